"""Every task against ``transformers.pipeline``: the same predictions, in whatever order and batch."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers
from tokenizers.processors import TemplateProcessing

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.tasks.base import Watch
from transforms.models.tasks.fallback import to_json
from transforms.models.tasks.vision import load_image_processor
from transforms.records import Failure, Prediction, Request

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is present")),
]
GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def answers(folder: str, task: str | None, requests: Sequence[Request], **options: Any) -> list[Any]:
    """Predictions (or failures) of a handler, float32 unless said otherwise."""
    handler = HuggingFaceModelHandler(folder, task, **({"dtype": "float32"} | options))
    model = handler.load_model()
    torch.set_num_threads(1)
    outcomes = handler.run_inference(requests, model)
    return [outcome.prediction if isinstance(outcome, Prediction) else outcome for outcome in outcomes]


def assert_same(ours: Any, theirs: Any, where: str = "prediction") -> None:
    """Equal in structure, text and numbers (to 1e-4), whatever holds them."""
    if isinstance(theirs, torch.Tensor):
        theirs = theirs.float().numpy()
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), f"{where}: {ours!r}"
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, np.ndarray) or isinstance(theirs, np.ndarray):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4, rtol=1e-3, err_msg=where)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), f"{where}: {ours!r} for {theirs!r}"
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, f"{where}[{i}]")
    elif isinstance(theirs, (float, np.floating)):
        assert math.isclose(ours, theirs, rel_tol=1e-3, abs_tol=1e-4), f"{where}: {ours} for {theirs}"
    else:
        assert ours == theirs, where


@dataclass(frozen=True)
class Case:
    """Requests to a task, and what ``transformers.pipeline`` is called with for each of them."""

    task: str
    folder: Callable[[], str]
    pairs: list[tuple[Request, Any, dict[str, Any]]] = field(default_factory=list)
    name: str = ""
    parts: Callable[[str], dict[str, Any]] = lambda folder: {}

    def __str__(self) -> str:
        return self.name or self.task


def _texts(parameters: Sequence[dict[str, Any]], count: int = 12) -> list[tuple[Request, Any, dict[str, Any]]]:
    texts = [tiny.text_of(1 + 3 * i % 17, seed=i) for i in range(count)]
    return [
        (Request(text, given), text, given)
        for i, text in enumerate(texts)
        for given in [parameters[i % len(parameters)]]
    ]


def _images(parameters: Sequence[dict[str, Any]], count: int = 6) -> list[tuple[Request, Any, dict[str, Any]]]:
    pairs = []
    for i in range(count):
        image, given = tiny.picture(30 + 7 * i, 50 - 3 * i, seed=i), parameters[i % len(parameters)]
        data = tiny.png(image)
        pairs.append((Request(data if i % 2 else tiny.b64(data), given), image, given))
    return pairs


def _sounds(parameters: Sequence[dict[str, Any]], count: int = 6) -> list[tuple[Request, Any, dict[str, Any]]]:
    pairs = []
    for i in range(count):
        samples, given = tiny.tone(0.1 + 0.03 * (i % 3), 200 + 150 * i), parameters[i % len(parameters)]
        data = tiny.wav(samples)
        heard = np.frombuffer(data[44:], "<i2").astype(np.float32) / 32768
        pairs.append((Request(data if i % 2 else tiny.b64(data), given), heard, given))
    return pairs


def _speeches() -> list[tuple[Request, Any, dict[str, Any]]]:
    ours: list[dict[str, Any]] = [
        {"language": "en", "max_new_tokens": 6, "num_beams": 1},
        {"num_beams": 1, "max_new_tokens": 4},
    ]
    return [
        (Request(one.inputs, given), heard, {"generate_kwargs": given})
        for i, (one, heard, _) in enumerate(_sounds([{}], 4))
        for given in [ours[i % 2]]
    ]


def _pil(folder: str) -> dict[str, Any]:
    return {"image_processor": load_image_processor(folder)}


def _masked() -> list[tuple[Request, Any, dict[str, Any]]]:
    texts = ["the [MASK] was late", "[MASK] [MASK] in paris", "thank [MASK]", "my [MASK] is wrong please help " * 2]
    given: list[dict[str, Any]] = [{}, {"top_k": 2}, {"targets": ["order", "paris"]}, {"top_k": 3}]
    return [(Request(text, one), text, one) for text, one in zip(texts, given, strict=True)]


def _chats() -> list[tuple[Request, Any, dict[str, Any]]]:
    question = [{"role": "user", "content": "where is my order"}]
    begun = [*question, {"role": "assistant", "content": "it is"}]
    prompts: list[Any] = [
        "the order was",
        question,
        "thank you",
        begun,
        [{"role": "system", "content": "be good"}, *question],
    ]
    pairs = []
    for i, prompt in enumerate(prompts):
        given = {**GREEDY, "return_full_text": i % 2 == 0}
        pairs.append((Request(prompt, given), prompt, given))
    return pairs


CASES = [
    Case(
        "text-classification",
        tiny.sentiment,
        _texts([{}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"top_k": None}]),
    ),
    Case("text-classification", tiny.topics, _texts([{}, {"top_k": 3}]), "text-classification, multi-label"),
    Case("text-classification", tiny.roberta, _texts([{}]), "text-classification, RoBERTa positions"),
    Case(
        "text-classification",
        tiny.sentiment,
        [
            (Request(pair, {"top_k": 1}), pair, {"top_k": 1})
            for pair in [{"text": "the order", "text_pair": "was late"}] * 2
        ],
        "text-classification, pairs",
    ),
    Case(
        "token-classification",
        tiny.entities,
        _texts([{}, {"aggregation_strategy": "simple"}, {"aggregation_strategy": "max"}, {"ignore_labels": []}]),
    ),
    Case(
        "token-classification",
        tiny.entities,
        [
            (Request(text, given), text, given)
            for text in ["smith lives in paris " * 3, tiny.text_of(80)]
            for given in [{"aggregation_strategy": "simple", "stride": 8}]
        ],
        "token-classification, windows",
    ),
    Case(
        "zero-shot-classification",
        tiny.entailment,
        _texts(
            [
                {"candidate_labels": ["good", "bad", "late"]},
                {"candidate_labels": ["good", "bad"], "multi_label": True},
                {"candidate_labels": "paris, order", "hypothesis_template": "it is {}"},
                {"candidate_labels": ["good"]},
            ]
        ),
    ),
    Case("fill-mask", tiny.masked, _masked()),
    Case("text-generation", tiny.causal, _chats()),
    Case(
        "image-classification", tiny.animals, _images([{}, {"top_k": 2}, {"function_to_apply": "sigmoid"}]), parts=_pil
    ),
    Case("image-feature-extraction", tiny.vision_body, _images([{}, {"pool": True}]), parts=_pil),
    Case(
        "zero-shot-image-classification",
        tiny.clip,
        _images([{"candidate_labels": ["a cat", "a dog"]}, {"candidate_labels": ["x"], "hypothesis_template": "{}!"}]),
        parts=_pil,
    ),
    Case("object-detection", tiny.detector, _images([{"threshold": 0.1}, {}, {"threshold": 0}]), parts=_pil),
    Case("image-segmentation", tiny.segmenter, _images([{}, {"subtask": "semantic"}]), parts=_pil),
    Case("audio-classification", tiny.sounds, _sounds([{}, {"top_k": 1}])),
    Case("depth-estimation", tiny.depths, _images([{}], 3), parts=_pil),
    Case(
        "zero-shot-object-detection",
        tiny.finder,
        _images([{"candidate_labels": ["a", "b"], "threshold": 0.0}], 3),
        parts=_pil,
    ),
    Case("automatic-speech-recognition", tiny.whisper, _speeches(), "automatic-speech-recognition, Whisper"),
    Case("automatic-speech-recognition", tiny.letters, _sounds([{}, {"return_timestamps": "word"}])),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_predictions_equal_the_pipelines_in_any_order_and_batch(case: Case, device: str) -> None:
    """A task's predictions are those of ``transformers.pipeline``, whatever stands beside a message in its batch."""
    folder = case.folder()
    reference = transformers.pipeline(case.task, model=folder, device=device, dtype=torch.float32, **case.parts(folder))
    expected = [reference(inputs, **given) for _, inputs, given in case.pairs]
    if case.task in ("image-segmentation", "depth-estimation"):
        expected = [to_json(one) for one in expected]
    # A fresh one, whose budget may be changed.
    model = HuggingFaceModelHandler(folder, case.task, dtype="float32", device=device)._load()
    for seed, budget in ((0, 4096), (1, 64), (2, 1)):
        order = list(range(len(case.pairs)))
        random.Random(seed).shuffle(order)
        model.budget.tokens = budget
        outcomes = model.answer([case.pairs[i][0] for i in order]).outcomes
        ours = [each.prediction if isinstance(each, Prediction) else each for each in outcomes]
        for i, mine in zip(order, ours, strict=True):
            assert not isinstance(mine, Failure), mine
            assert_same(mine, expected[i], f"prediction of {case.pairs[i][0].parameters}")


@pytest.mark.parametrize("device", DEVICES)
def test_image_text_to_text_generates_what_the_pipeline_does(device: str) -> None:
    """A chat with an image gives the pipeline's new text, alone and in a batch of other lengths."""
    folder = tiny.captioner()
    image = tiny.picture(seed=5)
    texts = ["what is in it", "describe it please", "who"]
    chats = [_with_image(text, {"image": tiny.b64(tiny.png(image))}) for text in texts]
    processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    reference = transformers.pipeline("image-text-to-text", model=folder, processor=processor, device=device)
    generate = dict(GREEDY)
    expected = [
        reference(text=_with_image(text, {"image": image}), return_full_text=False, generate_kwargs=generate)
        for text in texts
    ]
    ours = answers(folder, None, [Request(chat, GREEDY) for chat in chats], device=device)
    assert [one[0]["generated_text"] for one in ours] == [one[0]["generated_text"] for one in expected]


@pytest.mark.parametrize("writes", [False, True])
def test_a_chat_with_images_begins_and_goes_on_as_in_the_pipeline(tmp_path: Path, writes: bool) -> None:
    """What its tokenizer puts first stands there once, whoever writes it; an answer that was begun is gone on with."""
    shutil.copytree(tiny.captioner(), tmp_path, dirs_exist_ok=True)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path, backend="pil")
    tokenizer = processor.tokenizer
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    processor.chat_template = ("{{ bos_token }}" if writes else "") + processor.chat_template
    processor.save_pretrained(tmp_path)
    image = tiny.picture(seed=5)
    begun = {"role": "assistant", "content": [{"type": "text", "text": "it is"}]}
    more: list[list[Any]] = [[], [begun]]
    reference = transformers.pipeline("image-text-to-text", model=str(tmp_path), processor=processor, device="cpu")
    theirs = [[*_with_image("what is it", {"image": image}), *rest] for rest in more]
    expected = [reference(text=chat, return_full_text=False, generate_kwargs=dict(GREEDY)) for chat in theirs]
    picture = {"image": tiny.b64(tiny.png(image))}
    mine = [Request([*_with_image("what is it", picture), *rest], GREEDY) for rest in more]
    ours = answers(str(tmp_path), None, mine, device="cpu")
    assert [one[0]["generated_text"] for one in ours] == [one[0]["generated_text"] for one in expected]


def _with_image(text: str, image: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", **image}, {"type": "text", "text": text}]}]


def test_prompts_share_a_forward_only_where_it_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vision-language model that reads what pads the shorter prompt answers each alone; the others together."""
    folder = tiny.captioner()
    picture = {"image": tiny.b64(tiny.png(tiny.picture(seed=5)))}
    requests = [Request(_with_image(text, picture), GREEDY) for text in ("who", "describe all of it please", "what")]
    load = lambda: HuggingFaceModelHandler(folder, device="cpu", engine="torch")._load()  # noqa: E731
    assert load().task.sharing.which == "all"
    forward = transformers.LlavaForConditionalGeneration.forward

    @functools.wraps(forward)
    def reads_padding(self: Any, attention_mask: Any = None, **inputs: Any) -> Any:
        return forward(self, **inputs)

    monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "forward", reads_padding)
    engine = load()
    assert engine.task.sharing.which == "none"
    alone = [engine.answer([each]).outcomes[0].prediction for each in requests]
    assert [each.prediction for each in engine.answer(requests).outcomes] == alone


def test_a_model_that_drops_what_watches_its_logits_answers_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Janus' own ``generate`` does not hand on the watch that sees where a prompt ends; the answer is the new text."""
    model = HuggingFaceModelHandler(tiny.captioner(), device="cpu", engine="torch")._load()
    request = Request(_with_image("who", {"image": tiny.b64(tiny.png(tiny.picture(seed=5)))}), GREEDY)
    expected = model.answer([request]).outcomes[0].prediction
    generate = model.task.generator.generate
    monkeypatch.setattr(model.task.generator, "generate", lambda logits_processor, **given: generate(**given))
    assert model.answer([request]).outcomes[0].prediction == expected


@pytest.mark.parametrize(("name", "seen"), [("logits", True), ("enc_outputs_coord_logits", False)])
def test_infinity_in_what_an_encoder_proposes_is_no_answer_s(name: str, seen: bool) -> None:
    """Grounding DINO marks with it where there is nothing, and answered no message."""

    class Detector(torch.nn.Module):
        def forward(self) -> dict[str, torch.Tensor]:
            return {"pred_boxes": torch.zeros(2), name: torch.tensor([0.5, math.inf])}

    detector = Detector()
    watch = Watch(detector)
    detector()
    assert watch.seen is seen


@pytest.mark.parametrize("there", [True, False])
def test_a_processor_that_reads_films_too_asks_for_torchvision(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen's is not there for PIL: with torchvision it is read so, and without one line says what to install."""
    read, find = transformers.AutoProcessor.from_pretrained, importlib.util.find_spec

    def from_pretrained(folder: Any, backend: str = "torchvision", **how: Any) -> Any:
        if backend == "pil":
            raise ImportError("Video processor cannot be loaded - requested pil backend is not available.")
        return read(folder, backend="pil", **how)

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", from_pretrained)
    spec = object() if there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: spec if name == "torchvision" else find(name))
    handler = HuggingFaceModelHandler(tiny.captioner(), device="cpu", engine="torch")
    if there:
        handler._load()
    else:
        with pytest.raises(ModelLoadError, match="its processor needs torchvision, which is not installed; install"):
            handler._load()


def test_a_captioner_that_answers_no_chat_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    """This one's cache is of another kind than LLaVA asks of it."""
    shutil.copytree(tiny.captioner(), tmp_path, dirs_exist_ok=True)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    size = config.text_config.vocab_size
    text = transformers.RecurrentGemmaConfig(
        **tiny.SIZES, vocab_size=size, num_key_value_heads=2, attention_window_size=64, lru_width=32
    )
    config.text_config = text
    transformers.LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="cannot answer an example of image-text-to-text: ValueError: `get_seq_"):
        HuggingFaceModelHandler(str(tmp_path), device="cpu", engine="torch").load_model()


def test_what_a_pipeline_draws_by_chance_is_the_same_for_each_message() -> None:
    """As VITS' sound and the piece of a long recording that CLAP hears; what others draw goes on as if nothing were."""
    model = HuggingFaceModelHandler(tiny.finder(), "zero-shot-object-detection", device="cpu")._load()
    model.task.pipeline = lambda *_, **__: [torch.rand(1).item(), np.random.rand()]  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    requests = [Request(tiny.png(tiny.picture(seed=seed)), {"candidate_labels": ["a cat"]}) for seed in range(2)]
    one, other = (outcome.prediction for outcome in model.answer(requests).outcomes)
    assert one == other
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_question_answering_finds_the_likeliest_span() -> None:
    """transformers 5 has no such pipeline: the answer is the span that scores best in the model's own logits."""
    folder = tiny.answering()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    contexts = ["john smith lives in paris", "the order was late and my invoice is wrong", "paris"]
    requests = [Request({"question": "where is john", "context": context}) for context in contexts]
    for context, answer in zip(contexts, answers(folder, None, requests), strict=True):
        encoded = tokenizer("where is john", context, return_tensors="pt", return_offsets_mapping=True)
        offsets, inside = encoded.pop("offset_mapping")[0].tolist(), [s == 1 for s in encoded.sequence_ids(0)]
        with torch.no_grad():
            outputs = model(**encoded)
        allowed = torch.tensor([True, *inside[1:]])
        starts, ends = (
            torch.where(allowed, logits[0], -1e4).softmax(-1) for logits in (outputs.start_logits, outputs.end_logits)
        )
        score, first, last = max(
            (float(starts[a] * ends[b]), a, b)
            for a in range(len(inside))
            for b in range(a, min(a + 15, len(inside)))
            if inside[a] and inside[b]
        )
        assert answer["score"] == pytest.approx(score, abs=1e-4)
        assert answer["start"] <= offsets[first][0] and answer["end"] >= offsets[last][1]
        assert answer["answer"] == context[answer["start"] : answer["end"]]


def test_question_answering_reads_a_long_context_in_windows() -> None:
    """A context over the model's 64 tokens is read whole: the best span of all windows wins, and top_k ranks them."""
    context = " ".join(tiny.text_of(30, seed) for seed in range(6))
    inputs = {"question": "who", "context": context}
    several = answers(tiny.answering(), None, [Request(inputs, {"top_k": 5, "doc_stride": 10})])[0]
    assert [one["score"] for one in several] == sorted((one["score"] for one in several), reverse=True)
    assert len({(one["start"], one["end"]) for one in several}) == 5
    short = {"question": "who", "context": "paris"}
    impossible = answers(tiny.answering(), None, [Request(short, {"handle_impossible_answer": True, "top_k": 9})])[0]
    assert {one["answer"] for one in impossible} == {"paris", ""}


def test_seeded_sampling_repeats_and_equals_the_pipelines() -> None:
    """A seed fixes a sample, whatever else is in the batch, to the text that transformers samples from that seed."""
    folder, given = tiny.causal(), {"max_new_tokens": 8, "do_sample": True, "temperature": 1.0, "top_k": 20, "seed": 11}
    reference = transformers.pipeline("text-generation", model=folder, dtype=torch.float32)
    torch.manual_seed(11)
    expected = reference("the order", **{name: v for name, v in given.items() if name != "seed"})
    crowd = [Request(tiny.text_of(4, seed), GREEDY) for seed in range(3)]
    for requests in ([Request("the order", given)], [*crowd, Request("the order", given)]):
        assert answers(folder, None, requests)[-1] == expected
    other = answers(folder, None, [Request("the order", {**given, "seed": 12})])[0]
    assert other != expected


def test_what_ends_a_text_for_the_tokenizer_alone_ends_no_answer(tmp_path: Path) -> None:
    """``generate`` writes on where the model's own files name no end; a stop holds there for each of a batch."""
    shutil.copytree(tiny.causal(), tmp_path, dirs_exist_ok=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    prompts, expected = ["the order", "where is my invoice please", "late"], []
    for prompt in prompts:
        given = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**given, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        expected.append(made[0, given["input_ids"].shape[1] :])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(expected[0][2]))
    tokenizer.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [tokenizer.decode(each, skip_special_tokens=True) for each in expected]
    parameters = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    ours = answers(str(tmp_path), None, [Request(each, parameters) for each in prompts])
    assert [each[0]["generated_text"] for each in ours] == texts
    stop = tokenizer.decode(expected[1][:2])
    ours = answers(str(tmp_path), None, [Request(each, {**parameters, "stop": [stop]}) for each in prompts])
    assert ours[1][0]["generated_text"] == stop


def test_generation_stops_at_a_stop_string_and_returns_several_sequences() -> None:
    """``stop`` ends the text with the stop string; ``num_return_sequences`` gives as many texts."""
    folder = tiny.causal()
    whole = answers(folder, None, [Request("the order", {**GREEDY, "return_full_text": False})])[0][0]["generated_text"]
    stop = whole[2]
    cut = answers(folder, None, [Request("the order", {**GREEDY, "return_full_text": False, "stop": [stop]})])[0]
    assert cut[0]["generated_text"] == whole[: whole.index(stop) + 1]
    several = answers(folder, None, [Request("the order", {**GREEDY, "num_beams": 3, "num_return_sequences": 3})])[0]
    assert len(several) == 3


@pytest.mark.parametrize(
    "said",
    [
        {"num_return_sequences": 3, "num_beams": 3},
        {"return_dict_in_generate": True, "output_scores": True},
        {"stop_strings": ["e"]},
        {"eos_token_id": [1, 2], "suppress_tokens": [5, 6]},
    ],
    ids=lambda said: "+".join(said),
)
def test_what_a_generation_config_says_mixes_up_no_answers(tmp_path: Path, said: dict[str, Any]) -> None:
    """Each message has its own answers, as many as alone, whatever the model's files ask of ``generate``."""
    folder = tmp_path / "m"
    shutil.copytree(tiny.causal(), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    texts = ["the order was late", "help", "my invoice"]
    given = {"max_new_tokens": 6, "return_full_text": False, "do_sample": False}
    together = answers(str(folder), "text-generation", [Request(text, given) for text in texts])
    pipe: Any = transformers.pipeline("text-generation", model=str(folder), device="cpu", dtype=torch.float32)
    for text, mine in zip(texts, together, strict=True):
        theirs = pipe(text, tokenizer=pipe.tokenizer, **given)
        assert mine == [{"generated_text": each["generated_text"]} for each in theirs]


@pytest.mark.parametrize(("make", "task"), [(tiny.sentiment, "text-classification"), (tiny.body, "feature-extraction")])
def test_a_token_that_the_model_has_no_vector_for_is_its_texts_failure(tmp_path: Path, make: Any, task: str) -> None:
    """Tokens that were added and never trained: a GPU would be lost on them, and the texts beside them too."""
    folder = tmp_path / "m"
    shutil.copytree(make(), folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(folder)
    good, strange = answers(str(folder), task, [Request("the order"), Request("zzz order")])
    assert not isinstance(good, Failure)
    assert isinstance(strange, Failure) and strange.error_type == "InvalidInput" and "the token 'zzz'" in strange.error


def test_a_generation_over_its_time_limit_is_that_elements_failure() -> None:
    """What the time limit stops is a failure that says how far it came; what was finished before it is a result."""
    handler = HuggingFaceModelHandler(tiny.causal(), time_limit_s=1e-9, dtype="float32")
    slow, quick = handler.run_inference(
        [Request("the order", {**GREEDY, "max_new_tokens": 50}), Request("the order", {**GREEDY, "max_new_tokens": 1})],
        handler.load_model(),
    )
    assert isinstance(slow, Failure) and slow.error_type == "TimeLimit" and "1 of 50 tokens" in slow.error
    assert isinstance(quick, Prediction)


def test_a_prompt_too_long_for_the_model_loses_its_beginning() -> None:
    """A prompt that leaves no room is cut from the left and marked; with dead_letter it is refused."""
    request = Request("x" * 150 + "the end", GREEDY)
    handler = HuggingFaceModelHandler(tiny.causal(), dtype="float32")
    kept = handler.run_inference([request], handler.load_model())[0]
    assert isinstance(kept, Prediction) and kept.truncated and kept.tokens == 128 - 8
    refused = answers(tiny.causal(), None, [request], on_too_long="dead_letter")[0]
    assert refused.error_type == "TooLong"
