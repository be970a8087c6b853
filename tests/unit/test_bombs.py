"""Small messages that would fill the memory, or take hours: refused, or answered by what the model reads of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import tiny_writers as writers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from streams import ROOT

from pipeline.clients import LIMITS
from transforms.encode import TooLarge, encode
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.tasks.tokenizer import load_tokenizer
from transforms.models.tasks.tokenizing import Encoder
from transforms.records import Failure, Message, ModelInfo, Prediction, Request

#: Ten megabytes, of which a tokenizer makes five million tokens.
LONG = "a " * 4_990_000


def answer(folder: str, task: str, inputs: Any, **parameters: Any) -> Prediction | Failure:
    handler = HuggingFaceModelHandler(folder, task, device="cpu", dtype="float32")
    return handler.run_inference([Request(inputs, parameters, Message(b"x"))], handler.load_model())[0]


_BOMBS: dict[str, tuple[str, str, str]] = {
    "a text": ("text-classification", "sentiment", "LONG"),
    "a pair": ("text-classification", "sentiment", '{"text": LONG[:5_000_000], "text_pair": LONG[:4_900_000]}'),
    "a text for a hundred labels": ("zero-shot-classification", "entailment", "LONG"),
    "a prompt": ("text-generation", "causal", "LONG"),
    "a context in windows that overlap": ("question-answering", "answering", '{"question": "a", "context": LONG}'),
    "a thousand texts": ("feature-extraction", "body", "['a ' * 4_900] * 1_000"),
    "a query beside a thousand texts": (
        "text-ranking",
        "ranker",
        '{"query": LONG[:9_000_000], "texts": ["a"] * 1_000}',
    ),
    "many masks": ("fill-mask", "masked", "'[MASK] ' * 500"),
}
_PARAMETERS = {
    "zero-shot-classification": {"candidate_labels": [f"label {n}" for n in range(100)]},
    "text-generation": {"max_new_tokens": 2},
    "question-answering": {"max_seq_len": 32, "doc_stride": 20},
    "fill-mask": {"top_k": 1000},
}
_RUN = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {support!r}, {here!r}]
from test_bombs import LONG, answer
def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))
folder, task, parameters = json.loads(sys.argv[1])
small = {{"question-answering": {{"question": "a", "context": "b"}}, "text-ranking": {{"query": "a", "texts": ["b"]}}}}
answer(folder, task, small.get(task, "[MASK]"), **parameters)
before = megabytes("VmRSS")
inputs = {inputs}
ended = answer(folder, task, inputs, **parameters)
print(type(ended).__name__, getattr(ended, "error_type", ""), megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    "bomb", ["a text", *(pytest.param(name, marks=pytest.mark.slow) for name in _BOMBS if name != "a text")]
)
def test_a_message_takes_no_more_memory_than_its_size_allows(bomb: str) -> None:
    """Ten megabytes at the most become at the most a gigabyte, and an answer or a refusal."""
    task, model, inputs = _BOMBS[bomb]
    code = _RUN.format(
        root=str(ROOT), support=str(ROOT / "tests" / "support"), here=str(ROOT / "tests" / "unit"), inputs=inputs
    )
    given = json.dumps([getattr(writers if model == "ranker" else tiny, model)(), task, _PARAMETERS.get(task, {})])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2_000:]
    *ended, megabytes = done.stdout.split()
    refused = {"question-answering": ["Failure", "TooLong"], "fill-mask": ["Failure", "InvalidParameter"]}
    assert ended == refused.get(task, ["Prediction"]) and int(megabytes) < 1_000, done.stdout


@pytest.mark.parametrize("model", [tiny.sentiment, tiny.body, tiny.causal])
@settings(max_examples=25)
@given(
    unit=st.sampled_from(["a ", "where is my order ", "x", "é ", "\u200b", " ", "😀", "ﷺ", "1", "."])
    | st.text(min_size=1),
    start=st.text(max_size=20),
)
def test_what_is_read_of_a_long_text_is_what_is_left_of_it(model: Callable[[], str], unit: str, start: str) -> None:
    """The tokens of a long text are those of the whole of it, cut; at its end as at its beginning."""
    tokenizer = load_tokenizer(model())
    text = (start + unit * 30_000)[:30_000]
    encoder = Encoder(tokenizer, 24)
    whole = tokenizer.backend_tokenizer
    (row,) = encoder.encode([text])
    whole.enable_truncation(24)
    assert row.ids == whole.encode(text).ids
    end = encoder.head(text, 24, end=True)
    whole.no_truncation()
    assert whole.encode(end).ids[-24:] == whole.encode(text).ids[-24:]


@pytest.mark.parametrize(
    ("task", "model", "inputs", "parameters", "words"),
    [
        ("zero-shot-classification", tiny.entailment, "a", {"candidate_labels": "a," * 200}, "under 100 commas"),
        ("text-generation", tiny.causal, "a", {"stop": ["a" * 100_000]}, "at most 256 characters"),
        ("automatic-speech-recognition", tiny.letters, None, {"chunk_length_s": 1e-6}, "make them longer"),
        (
            "automatic-speech-recognition",
            tiny.letters,
            None,
            {"chunk_length_s": 0.001, "stride_length_s": 0.00049999},
            "make them longer",
        ),
        ("automatic-speech-recognition", tiny.letters, None, {"chunk_length_s": 1, "stride_length_s": 9}, "pieces"),
    ],
)
def test_what_would_take_for_ever_is_refused(
    task: str, model: Callable[[], str], inputs: Any, parameters: dict[str, Any], words: str
) -> None:
    """A parameter that multiplies the work is told its bound."""
    sound = tiny.wav(tiny.tone(0.2), 16_000)
    ended = answer(model(), task, sound if inputs is None else inputs, **parameters)
    assert isinstance(ended, Failure) and words in ended.error, ended


def test_token_embeddings_that_no_message_holds_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token has as many numbers as the model is wide."""
    monkeypatch.setattr("transforms.models.tasks.embeddings.MAX_NUMBERS", 1_000)
    ended = answer(tiny.body(), "feature-extraction", ["a " * 60] * 4, pooling="none")
    assert isinstance(ended, Failure) and "send fewer texts" in ended.error, ended


@pytest.mark.parametrize("size", [(1, 20_000), (30_000, 2)])
def test_a_picture_like_a_thread_is_refused(size: tuple[int, int]) -> None:
    """A processor makes its short side as long as the model wants it, and the other one with it."""
    ended = answer(
        tiny.clip(), "zero-shot-image-classification", tiny.png(Image.new("RGB", size)), candidate_labels=["a"]
    )
    assert isinstance(ended, Failure) and "times the other" in ended.error, ended


@pytest.mark.parametrize("prediction", [np.zeros((1, 3_000, 2_000)), [np.zeros((3_000, 1_000))] * 2])
def test_a_result_that_can_never_fit_is_not_written_out(prediction: Any) -> None:
    """Numbers are counted before they become text of many times their size."""
    info = ModelInfo("feature-extraction", "m", "r", "cpu", "float32")
    with pytest.raises(TooLarge, match="6,000,000 numbers"):
        encode(Prediction(Request("a"), prediction, info), LIMITS)


def test_one_text_beside_a_thousand_is_bounded() -> None:
    """Without blanks it would be read anew beside each, for minutes; its neighbour is ranked."""
    handler = HuggingFaceModelHandler(writers.ranker(), "text-ranking", dtype="float32", device="cpu")
    bomb = Request({"query": "x" * 50_000, "texts": ["a"] * 1_000})
    fine = Request({"query": "good order", "texts": ["a", "b"]})
    long, ranked = handler.run_inference([bomb, fine], handler.load_model())
    assert long.error_type == "TooLong" and isinstance(ranked, Prediction)
