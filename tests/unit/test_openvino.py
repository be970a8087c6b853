"""OpenVINO beside torch: the same answers, and torch wherever it cannot give them, is not there or gains nothing."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import tiny_writers as writers
import torch
from zoo.build import build, enliven
from zoo.judge import INPUTS, judge, unlike

from pipeline import main
from transforms.models import sharing
from transforms.models.backends import convert, openvino
from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.loaded_model import LoadedModel
from transforms.models.tasks import probes
from transforms.models.tasks.pooling import _POOL, SentenceModel
from transforms.records import Prediction, Request

pytest.importorskip("openvino")

TEXTS = ["the order was late", "help", tiny.text_of(40), "where is my invoice please"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tiny products on one thread, and a cache of the test's own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("BEAM_HF_OPENVINO", str(tmp_path / "converted"))
    monkeypatch.setenv("BEAM_HF_CACHE", str(tmp_path / "choices"))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load(folder: str | Path, task: str | None = None, **options: Any) -> LoadedModel:
    words = {"device": "cpu", "dtype": "float32", "engine": "openvino", **options}
    return HuggingFaceModelHandler(str(folder), task, **words)._load()


def ask(model: LoadedModel, inputs: Any, parameters: Any = None) -> list[Prediction]:
    outcomes = model.answer([Request(each, parameters or {}) for each in inputs]).outcomes
    assert all(isinstance(each, Prediction) for each in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


def engines(outcomes: list[Prediction]) -> set[str | None]:
    return {each.model.engine for each in outcomes}


PICTURES = [tiny.png(tiny.picture(seed=seed)) for seed in range(3)]
SOUNDS = [tiny.wav(tiny.tone(seconds)) for seconds in (0.3, 0.3, 1.0)]


@pytest.mark.parametrize(
    ("make", "task", "inputs", "parameters"),
    [
        (tiny.sentiment, "text-classification", TEXTS, {"top_k": None}),
        pytest.param(tiny.entities, "token-classification", TEXTS, {"ignore_labels": []}, marks=pytest.mark.slow),
        pytest.param(
            tiny.entailment,
            "zero-shot-classification",
            TEXTS,
            {"candidate_labels": ["late", "wrong"]},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            tiny.masked, "fill-mask", [f"[MASK] {text}" for text in TEXTS], {"top_k": 3}, marks=pytest.mark.slow
        ),
        pytest.param(
            tiny.answering,
            "question-answering",
            [{"question": "who", "context": text} for text in TEXTS],
            {},
            marks=pytest.mark.slow,
        ),
        (tiny.body, "feature-extraction", TEXTS, {}),
        (writers.ranker, "text-ranking", [{"query": text, "texts": TEXTS} for text in TEXTS], {"raw_scores": True}),
        (tiny.animals, "image-classification", PICTURES, {"top_k": 5}),
        (tiny.vision_body, "image-feature-extraction", PICTURES, {}),
        pytest.param(tiny.sounds, "audio-classification", SOUNDS, {"top_k": 5}, marks=pytest.mark.slow),
    ],
)
def test_each_task_answers_as_on_torch(make: Any, task: str, inputs: Any, parameters: Any) -> None:
    """One answer whichever engine gives it, alone and in a batch; and the record says which one did."""
    ours, torchs = load(make(), task), load(make(), task, engine="torch")
    expected, together = ask(torchs, inputs, parameters), ask(ours, inputs, parameters)
    alone = [ask(ours, [each], parameters)[0] for each in inputs]
    for found in (together, alone):
        assert engines(found) == {"openvino"} and engines(expected) == {"torch"}
        for one, other in zip(found, expected, strict=True):
            assert not unlike(one.prediction, other.prediction)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "architecture", "verdict"),
    [
        ("text-classification", "BertForSequenceClassification", "equal"),
        ("text-classification", "XLNetForSequenceClassification", "equal"),
        ("text-classification", "FNetForSequenceClassification", "grouped"),
        ("token-classification", "ConvBertForTokenClassification", "grouped"),
        ("text-classification", "BigBirdForSequenceClassification", "grouped"),
        ("fill-mask", "FNetForMaskedLM", "grouped"),
        ("question-answering", "MobileBertForQuestionAnswering", "equal"),
        ("feature-extraction", "CanineModel", "grouped"),
        ("zero-shot-classification", "NystromformerForSequenceClassification", "grouped"),
        ("text-classification", "GPT2ForSequenceClassification", "equal"),
        ("text-classification", "DebertaV2ForSequenceClassification", "equal"),
        ("feature-extraction", "ModernBertModel", "equal"),
        ("feature-extraction", "T5EncoderModel", "equal"),
        ("feature-extraction", "LongformerModel", "equal"),
        ("token-classification", "FunnelForTokenClassification", "grouped"),
    ],
)
def test_the_sample_of_the_zoo(tmp_path: Path, task: str, architecture: str, verdict: str) -> None:
    """With the engine asked for, each architecture is answered as transformers does, by whichever of the two can."""
    build(tmp_path / "model", task, architecture)
    found = judge(tmp_path / "model", task, "openvino")
    assert found.verdict == verdict, found


def test_other_answers_are_not_given(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A conversion that answers differently is found when it is loaded: torch answers, and one line says why."""
    trace = convert._trace

    def wrong(module: Any, *about: Any) -> Any:
        other = copy.deepcopy(module)
        with torch.no_grad():
            other.classifier.bias += 0.01
        return trace(other, *about)

    monkeypatch.setattr(convert, "_trace", wrong)
    with caplog.at_level(logging.INFO):
        model = load(tiny.sentiment())
    assert engines(ask(model, TEXTS)) == {"torch"}
    (line,) = [each.message for each in caplog.records if each.name == openvino.__name__]
    assert "torch answers: OpenVINO's answers lie" in line and "more than 0.035%" in line


def test_a_conversion_that_fails_leaves_the_log_as_it_is() -> None:
    """OpenVINO has the root logger say errors alone while it converts, and forgets it where it raises."""

    class Odd(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> dict[str, Any]:
            return {"kept": torch.ops.aten.histc(inputs, 3)}

    root = logging.getLogger()
    before = (root.level, list(root.filters), list(root.handlers))
    with pytest.raises(Exception, match=r"."):
        convert._trace(Odd(), {"inputs": torch.ones(2)}, ["kept"])
    assert (root.level, root.filters, root.handlers) == before


def test_what_cannot_be_converted_stays_on_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the conversion raises, the model is served, and one line says why."""

    def no(*about: Any) -> Any:
        raise RuntimeError("no such operator\nand a page about it")

    monkeypatch.setattr(convert, "_trace", no)
    with caplog.at_level(logging.INFO):
        model = load(tiny.sentiment())
    assert engines(ask(model, TEXTS)) == {"torch"}
    (line,) = [each.message for each in caplog.records if each.name == openvino.__name__]
    assert "RuntimeError: no such operator" in line and "\n" not in line


def test_a_model_that_a_forward_changes_stays_on_torch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """BigBird turns its sparse attention off for good after a short text; a conversion would have it off or on."""
    build(tmp_path / "model", "feature-extraction", "BigBirdModel")
    with caplog.at_level(logging.INFO):
        assert load(tmp_path / "model", "feature-extraction").task.model.engine == "torch"
    assert "a forward changes the model" in caplog.text


def test_what_an_engine_leaves_in_padding_is_not_read() -> None:
    """ModernBERT's local windows over padding are 0 / 0 there: no way of pooling may take that into an embedding."""
    tokens = torch.arange(12.0).reshape(1, 4, 3)
    mask = torch.tensor([[True, True, False, False]])
    for mode in _POOL:
        pool = SentenceModel(Path(), (mode,)).pool
        expected = pool(tokens, mask)
        assert torch.equal(pool(tokens.masked_fill(~mask.unsqueeze(-1), torch.nan), mask), expected), mode


def test_auto_leaves_small_models_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over in a millisecond is not converted for seconds."""
    monkeypatch.setattr(openvino, "convert", None)  # a call would raise, and be heard
    model = load(tiny.sentiment(), engine="auto")
    assert type(model.task.model).__name__ == "TorchModel"
    assert engines(ask(model, TEXTS)) == {"torch"}


@pytest.mark.parametrize(("gain", "engine"), [(1.5, "openvino"), (1.01, "torch")])
def test_auto_takes_what_was_measured_faster(gain: float, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are timed; the other one's weights are not held packed beside."""
    monkeypatch.setattr(openvino, "LEAST_PARAMETERS", 0)
    timed: list[int] = []

    def times_faster(old: Any, new: Any) -> float:
        for run in (old, new):
            timed.append(len(run()))
        return gain

    monkeypatch.setattr(openvino, "times_faster", times_faster)
    model = load(tiny.sentiment(), engine="auto")
    assert timed[0] == timed[1] > 1
    assert engines(ask(model, TEXTS)) == {engine}
    # A second load on this machine chooses alike, without timing, and on torch without converting.
    monkeypatch.setattr(openvino, "times_faster", None)
    if engine == "torch":
        monkeypatch.setattr(openvino, "convert", None)
    assert engines(ask(load(tiny.sentiment(), engine="auto"), TEXTS)) == {engine}
    packed = [each for each in model.task.model.module.modules() if "forward" in vars(each)]
    assert not packed or engine == "torch"


def test_a_text_longer_than_any_tried_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not checked is not served unchecked, and the record of each says who answered it."""
    monkeypatch.setattr(sharing, "_TOKENS", {False: 16, True: 16})
    monkeypatch.setattr(probes, "_TOKENS", 16)
    model = load(tiny.sentiment(), max_batch_tokens=16)
    short, long = ask(model, ["the order", tiny.text_of(40)])
    assert (short.model.engine, long.model.engine) == ("openvino", "torch")
    assert not unlike(long.prediction, ask(load(tiny.sentiment(), engine="torch"), [tiny.text_of(40)])[0].prediction)


def test_a_conversion_is_kept_by_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second load converts nothing, another weight converts anew, and a torn file is made again."""
    made: list[str] = []
    trace = convert._trace
    monkeypatch.setattr(convert, "_trace", lambda *about: made.append("") or trace(*about))
    build(tmp_path / "model", "text-classification", "BertForSequenceClassification")
    inputs, parameters = INPUTS["text-classification"]
    first = ask(load(tmp_path / "model"), inputs, parameters)
    second = ask(load(tmp_path / "model"), inputs, parameters)
    assert len(made) == 1 and engines(second) == {"openvino"}
    assert not any(unlike(one.prediction, other.prediction) for one, other in zip(first, second, strict=True))
    (kept,) = convert.cache().iterdir()
    assert not kept.parent.stat().st_mode & 0o077
    (kept / "model.bin").write_bytes(b"torn")
    assert engines(ask(load(tmp_path / "model"), inputs, parameters)) == {"openvino"} and len(made) == 2
    model = load(tmp_path / "model", engine="torch").task.model.module
    enliven(model)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(tmp_path / "model")
    assert engines(ask(load(tmp_path / "model"), inputs, parameters)) == {"openvino"} and len(made) == 3


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A converted model is weights: where anybody may put one, it is neither kept nor read."""
    convert.cache().mkdir()
    convert.cache().chmod(0o777)
    assert engines(ask(load(tiny.sentiment()), TEXTS)) == {"openvino"}
    assert not list(convert.cache().iterdir()) and "others can write there" in caplog.text


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """auto is torch; asked for by name it is one line with the command that installs it, exit code 2."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else object())
    monkeypatch.setattr("pipeline.extras.find_spec", lambda name: None if name == "openvino" else object())
    assert type(load(tiny.sentiment(), engine="auto").task.model).__name__ == "TorchModel"
    with pytest.raises(ModelLoadError, match=r"`engine=openvino`: cannot run text-classification: openvino is not"):
        HuggingFaceModelHandler(tiny.sentiment(), engine="openvino").check()
    flags = [
        "--input_subscription=projects/my-project/subscriptions/some",
        "--output_topic=projects/my-project/topics/some",
    ]
    flags += [
        "--dead_letter_topic=projects/my-project/topics/other",
        f"--model={tiny.sentiment()}",
        "--engine=openvino",
    ]
    assert main.main(flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "--engine=openvino needs openvino; run: pip install 'beam-hf-inference[openvino]'" in line


def test_what_needs_more_than_one_forward_is_refused_by_name() -> None:
    """Generation stays on torch: asked for by name that is one line before any weights are read."""
    with pytest.raises(ModelLoadError, match="cannot run text-generation: its answer is more than one forward"):
        HuggingFaceModelHandler(tiny.causal(), "text-generation", engine="openvino").check()
    with pytest.raises(ModelLoadError, match="`device=cuda`: OpenVINO runs on the CPU"):
        load(tiny.sentiment(), device="cuda")
