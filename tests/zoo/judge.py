"""Whether a folder's answers are the model's alone: the same alone, in a batch, in another order, and later."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
import transformers as t
from PIL import Image
from torch.overrides import TorchFunctionMode

from transforms.models.backends.pack import unpack
from transforms.models.bisect import Budget
from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.loaded_model import LoadedModel
from transforms.records import Failure, Request
from zoo import labels, media, sights
from zoo.tokenizer import MOST_TOKENS

#: How far two answers of one model may lie apart, as a share of the largest number in them: rounding, no more.
TOLERANCE = 2e-3

TEXTS = (
    "good order",
    "help",
    "the order was late and my invoice is wrong",
    "😀 thank you 😀",
    "   ",
    "where is my invoice please help the order was late and wrong",
    tiny_models.text_of(150),
    "my order",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one architecture in one task, and why."""

    verdict: str
    why: str = ""


class _Exact(TorchFunctionMode):
    """float64 wherever a model's own code says float32, as many a norm does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args = [torch.float64 if each is torch.float32 else each for each in args]
        named = {name: torch.float64 if each is torch.float32 else each for name, each in (kwargs or {}).items()}
        return func(*args, **named)


def asked(folder: Path, task: str) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """What a folder is asked, and with which parameters."""
    inputs, parameters = INPUTS[task]
    return (inputs(folder) if callable(inputs) else inputs), parameters


def judge(folder: Path, task: str, engine: str = "torch") -> Verdict:
    """``equal`` (in mixed batches), ``grouped``, ``alone``, ``refused``, or ``wrong`` with what was seen."""
    inputs, parameters = asked(folder, task)
    words: dict[str, Any] = {"device": "cpu", "dtype": "float32", "max_batch_tokens": 1_000_000, "engine": engine}
    handler = HuggingFaceModelHandler(str(folder), task, **words)
    try:
        model = handler._load()  # a fresh one: the registry would keep every model of the zoo
    except ModelLoadError as error:
        line = str(error).partition(": ")[2]
        if "\n" in str(error):
            return Verdict("wrong", f"refused in several lines: {error}")
        return Verdict("refused", line + (" (transformers answers)" if _reference_answers(folder, task) else ""))
    except Exception as error:
        return Verdict("wrong", f"the launch raised {type(error).__name__}: {str(error)[:120]}")
    model.budget = Budget(1_000_000)  # all that may share a forward does, however much padding that takes
    alone = [_ask(model, [each], parameters)[0] for each in inputs]
    if all(isinstance(answer, Failure) for answer in alone):
        return Verdict("wrong", f"no text is answered: {alone[0].error}")
    try:
        expected = REFERENCES[task](folder, inputs, parameters)
    except Exception as error:  # transformers has no pipeline for this one
        expected = [error] * len(inputs)
    found = _unlike(task, inputs, alone, expected) or _moved(model, inputs, parameters, alone)
    exact = {**media.REFERENCES, **labels.REFERENCES} if task in (*media.IMAGES, *labels.IMAGES) else {}
    if found and exact:  # hundreds of regions, or of layers: is it more than the packed layers' rounding, or any?
        unpack(model.task.model.module)
        alone = [_ask(model, [each], parameters)[0] for each in inputs]
        found = _unlike(task, inputs, alone, expected) or _moved(model, inputs, parameters, alone)
    if found and exact:
        model.task.model.module.double()
        model.task.dtype, model.task.lanes = torch.float64, None
        model._thread.submit(_Exact().__enter__).result()  # a mode is of the thread that it was entered on
        alone = [_ask(model, [each], parameters)[0] for each in inputs]
        with _Exact():
            expected = exact[task](folder, inputs, parameters, torch.float64)
        found = _unlike(task, inputs, alone, expected) or _moved(model, inputs, parameters, alone)
    if found:
        return Verdict("wrong", found)
    refused = sum(isinstance(answer, Failure) for answer in alone)
    why = f"{refused} of {len(alone)} texts refused" if refused else ""
    return Verdict({"all": "equal", "length": "grouped", "none": "alone"}[model.task.sharing.which], why)


def _unlike(task: str, inputs: Sequence[Any], answers: Sequence[Any], expected: Sequence[Any]) -> str:
    """Where an answer is another than transformers'; nothing where none is."""
    for each, answer, reference in zip(inputs, answers, expected, strict=True):
        difference = against(answer, reference, task in _CUTS)
        if difference:
            return f"transformers: {each!r:.30} {difference}"
    return ""


def _moved(model: LoadedModel, inputs: Sequence[Any], parameters: Mapping[str, Any], alone: Sequence[Any]) -> str:
    """Where an answer is another than ``alone``, because of what else the model was asked; nothing where none is."""
    for what, order in _orders(len(inputs)):
        answers = _ask(model, [inputs[i] for i in order], parameters)
        for i, answer in zip(order, answers, strict=True):
            difference = differ(alone[i], answer)
            if difference:
                return f"{what}: {inputs[i]!r:.30} {difference}"
    return ""


def _reference_answers(folder: Path, task: str) -> bool:
    """Whether transformers itself can do with the folder what was refused."""
    inputs, parameters = asked(folder, task)
    try:
        expected = REFERENCES[task](folder, inputs[:3], parameters)
    except Exception:
        return False
    return not all(isinstance(each, Exception) for each in expected)


def _orders(count: int) -> list[tuple[str, list[int]]]:
    order = list(range(count))
    return [
        ("in a batch", order),
        ("in another order", order[::-1]),
        ("beside one other", order[-2:]),
        ("alone, later", [0]),
        ("in a batch, later", [*order, 0]),
    ]


def _ask(engine: LoadedModel, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    return engine.answer([Request(each, parameters) for each in inputs]).outcomes


def differ(one: Any, other: Any) -> str:
    """How two outcomes differ, or nothing."""
    if isinstance(one, Failure) or isinstance(other, Failure):
        texts = [each.error_type if isinstance(each, Failure) else "an answer" for each in (one, other)]
        return "" if texts[0] == texts[1] else f"{texts[0]} alone, {texts[1]} there"
    return unlike(one.prediction, other.prediction)


def against(answer: Any, reference: Any, cuts: bool) -> str:
    """How an outcome differs from what transformers answered (an exception, where it raised)."""
    if isinstance(answer, Failure):
        # To refuse one input is no wrong answer; a model that cannot answer must be refused at launch.
        refused = answer.error_type in ("InvalidInput", "TooLong") or isinstance(reference, Exception)
        return "" if refused else f"{answer.error_type}: {answer.error}"
    if isinstance(reference, Exception) or (answer.truncated and not cuts):
        return ""
    if isinstance(answer.request.inputs, dict) and "texts" in answer.request.inputs:
        scores = {one["index"]: one["score"] for one in answer.prediction}
        return unlike([scores[i] for i in range(len(scores))], reference)
    if isinstance(answer.request.inputs, dict) and "context" in answer.request.inputs:
        return unlike(answer.prediction["score"], reference)
    return unlike(answer.prediction, reference)


def unlike(one: Any, other: Any) -> str:
    """How two predictions differ by more than ``TOLERANCE``, or nothing."""
    one, other = _by_label(one), _by_label(other)
    if _boxes(one) and _boxes(other) and len(one) == len(other):
        return _unmatched(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return f"keys {sorted(one)} against {sorted(other)}"
        return next((f"{key}: {found}" for key in one if (found := unlike(one[key], other[key]))), "")
    if isinstance(one, str) and isinstance(other, str) and one.startswith(_PNG) and other.startswith(_PNG):
        return _pixels(one, other)
    if isinstance(one, str) or one is None:
        return "" if one == other else f"{one!r:.40} against {other!r:.40}"
    if isinstance(one, (list, tuple)) and one and isinstance(one[0], (dict, str)):
        if len(one) != len(other):
            return f"{len(one)} items against {len(other)}"
        return next((found for a, b in zip(one, other, strict=True) if (found := unlike(a, b))), "")
    if isinstance(one, int) and isinstance(other, int):  # a box's side in pixels, cut off
        return "" if abs(one - other) <= 1 else f"{one} against {other}"
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape:
        return f"shape {a.shape} against {b.shape}"
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    worst = float(np.abs(a - b).max(initial=0))
    return "" if worst <= TOLERANCE * scale else f"{a.ravel()[:3].round(3)} against {b.ravel()[:3].round(3)}"


_PNG = "iVBORw0KGgo"


def _pixels(one: str, other: str) -> str:
    """How two pictures differ by over a pixel in a hundred: which label is the likeliest turns on the last digit."""
    a, b = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each))), np.int64) for each in (one, other))
    if a.shape != b.shape:
        return f"a picture of {a.shape} against {b.shape}"
    share = float((np.abs(a - b) > 2).mean())
    return "" if share <= 0.01 else f"{share:.1%} of the pixels differ"


def _boxes(prediction: Any) -> bool:
    return isinstance(prediction, list) and bool(prediction) and "box" in prediction[0]


def _unmatched(ones: Sequence[Any], others: Sequence[Any]) -> str:
    """What of ``ones`` is not among ``others``: the order of regions with one score is no part of an answer."""
    left = list(others)
    for each in ones:
        found = next((i for i, other in enumerate(left) if not unlike(each, other)), None)
        if found is None:
            return f"no region like {each!r:.60}"
        left.pop(found)
    return ""


def _by_label(prediction: Any) -> Any:
    """Scores by their labels: the order of two that are equal is no part of an answer."""
    if isinstance(prediction, Mapping) and prediction.keys() == {"sequence", "labels", "scores"}:
        return dict(zip(prediction["labels"], prediction["scores"], strict=True))
    if isinstance(prediction, list) and prediction and isinstance(prediction[0], Mapping):
        names = prediction[0].keys() - {"score"}
        if names in ({"label"}, {"index"}) and "score" in prediction[0]:
            (name,) = names
            return {str(each[name]): each["score"] for each in prediction}
    return prediction


def _pipeline(folder: Path, task: str, **words: Any) -> Callable[..., Any]:
    """``transformers.pipeline``, with a model that no earlier forward has touched."""
    pipe: Any = t.pipeline(task, model=str(folder), dtype=torch.float32, device="cpu", **words)
    fresh, forward = pipe.model, pipe._forward

    def untouched(*args: Any, **kwargs: Any) -> Any:
        pipe.model = copy.deepcopy(fresh)
        return forward(*args, **kwargs)

    pipe._forward = untouched
    return pipe


def _each(call: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    answers: list[Any] = []
    for each in inputs:
        try:
            with torch.inference_mode():
                answers.append(call(each))
        except Exception as error:
            answers.append(error)
    return answers


def _piped(task: str, **words: Any) -> Callable[[Path, Sequence[Any], Mapping[str, Any]], list[Any]]:
    def reference(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
        call = _pipeline(folder, task)
        return _each(lambda each: call(each, **parameters, **words), inputs)

    return reference


def _embeddings(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    call = _pipeline(folder, "feature-extraction")
    return _each(lambda each: np.asarray(call(each, tokenize_kwargs={"truncation": True}))[0].mean(axis=0), inputs)


def _generated(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    """The raw model's ``generate``, for the pipeline puts an article of its own before a prompt of XLNet's."""
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    model: Any = t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = {name: value for name, value in parameters.items() if name != "return_full_text"}

    def call(text: str) -> Any:
        encoded = tokenizer(text, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        made = copy.deepcopy(model).generate(**encoded, **asked, pad_token_id=tokenizer.pad_token_id)
        new = made[0, encoded["input_ids"].shape[1] :]
        return [{"generated_text": tokenizer.decode(new, skip_special_tokens=True)}]

    return _each(call, inputs)


def _rewritten(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    """The raw model's ``generate``: transformers 5 has no pipeline for it."""
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    model: Any = t.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()

    def call(text: str) -> Any:
        encoded = tokenizer(text, return_tensors="pt", truncation=True)
        encoded.pop("token_type_ids", None)
        made = copy.deepcopy(model).generate(**encoded, **parameters)
        return [{"generated_text": tokenizer.decode(made[0, 1:], skip_special_tokens=True)}]

    return _each(call, inputs)


def _ranked(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    import sentence_transformers as st

    try:
        encoder = st.CrossEncoder(str(folder), device="cpu")
    except OSError:  # it wants a processor of what the model reads beside a text; the raw model does not
        encoder = None
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    model: Any = t.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def score(*pair: str) -> float:
        if encoder is not None:
            return float(copy.deepcopy(encoder).predict([pair])[0])
        logits = copy.deepcopy(model)(**tokenizer(*pair, return_tensors="pt", truncation=True)).logits
        return float(logits.sigmoid())

    def call(each: dict[str, Any]) -> Any:  # a pair at a time: beside longer ones CANINE's scores are others
        return [score(each["query"], text) for text in each["texts"]]

    return _each(call, inputs)


def _spans(folder: Path, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
    """transformers 5 has no pipeline for it: the likeliest span of at most 15 tokens, from the raw model's logits."""
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    model: Any = t.AutoModelForQuestionAnswering.from_pretrained(folder).eval()

    def call(each: dict[str, str]) -> float:
        encoded = tokenizer(each["question"], each["context"], return_tensors="pt")
        if encoded["input_ids"].shape[1] > MOST_TOKENS:
            raise ValueError("the raw model alone reads no windows")
        inside = torch.tensor([place == 1 for place in encoded.sequence_ids(0)])
        allowed = inside.clone()
        allowed[0] = True
        outputs = copy.deepcopy(model)(**encoded)
        start, end = (
            logits[0].masked_fill(~allowed, -10_000.0).softmax(-1)
            for logits in (outputs.start_logits, outputs.end_logits)
        )
        table = (start * inside)[:, None] * (end * inside)[None]
        return float(table.triu().tril(14).max())

    return _each(call, inputs)


_MASKED = [f"[MASK] {text}" for text in TEXTS]
_RANKS = [{"query": "where is my order", "texts": [text, "late", "thank you for the invoice"]} for text in TEXTS]
_QUESTIONS = [{"question": "where is my order", "context": text} for text in TEXTS]

#: Tasks whose pipeline cuts a text that is too long, as ours do.
_CUTS = ("text-classification", "token-classification", "feature-extraction", "text2text-generation", "text-ranking")

#: The inputs of each task, and the parameters they go with.
INPUTS: dict[str, tuple[Sequence[Any] | Callable[[Path], Sequence[Any]], Mapping[str, Any]]] = {
    "text-classification": (TEXTS, {"top_k": None, "function_to_apply": "none"}),
    "token-classification": (TEXTS, {"ignore_labels": []}),
    "zero-shot-classification": (TEXTS, {"candidate_labels": ["invoice", "late order"]}),
    "fill-mask": (_MASKED, {"top_k": 3}),
    "question-answering": (_QUESTIONS, {}),
    "feature-extraction": (TEXTS, {}),
    "text2text-generation": (TEXTS, {"max_new_tokens": 4, "do_sample": False}),
    "text-ranking": (_RANKS, {}),
    "text-generation": (TEXTS, {"max_new_tokens": 4, "do_sample": False, "return_full_text": False}),
    **media.INPUTS,
    **labels.INPUTS,
    sights.TASK: sights.INPUTS,
}

REFERENCES: dict[str, Callable[[Path, Sequence[Any], Mapping[str, Any]], list[Any]]] = {
    "text-classification": _piped("text-classification", truncation=True),
    "token-classification": _piped("token-classification"),
    "zero-shot-classification": _piped("zero-shot-classification"),
    "fill-mask": _piped("fill-mask"),
    "question-answering": _spans,
    "feature-extraction": _embeddings,
    "text2text-generation": _rewritten,
    "text-ranking": _ranked,
    "text-generation": _generated,
    **media.REFERENCES,
    **labels.REFERENCES,
    sights.TASK: sights.reference,
}
