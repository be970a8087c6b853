"""Long texts in pieces: each piece's embedding is that of the piece alone, and no piece is ever cut again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch

from transforms.models.errors import InvalidParameter, ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.parameters import validate
from transforms.models.task_table import TASKS
from transforms.models.tasks.chunks import _by_tokens
from transforms.records import Failure, Prediction, Request

LONG = " ".join(f"{tiny.text_of(3 + i % 9, seed=i)}{'.!?'[i % 3]}" for i in range(60))
ODD = "😀 the order " * 60 + "x" * 300 + "東京" * 50 + "\n\n  my invoice\t" * 20


def outcomes(folder: str, requests: Sequence[Request], **options: Any) -> list[Prediction | Failure]:
    handler = HuggingFaceModelHandler(folder, "feature-extraction", **({"dtype": "float32", "device": "cpu"} | options))
    model = handler.load_model()
    torch.set_num_threads(1)
    return handler.run_inference(requests, model)


CHUNKS: list[Any] = [
    "tokens",
    "sentences",
    {"tokens": 16},
    {"tokens": 20, "overlap": 7},
    {"by": "sentences", "tokens": 24},
    {"tokens": 4},
]


TEXTS = {
    "long": LONG,
    "odd": ODD,
    "short": "short",
    "spaces": "   lead",
    "dot": ".",
    # The tokenizer has no token for an accent, or for what is not seen.
    "marks": "\u200b the\x00 cafe\u0301 nai\u0308ve o\u200brder\u00ad. " * 12 + "\u0301",
}


@pytest.mark.parametrize("chunk", CHUNKS, ids=str)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_each_piece_is_embedded_as_it_is_alone(chunk: Any, text: str) -> None:
    """Offsets are into the text, every word is in a piece, and each embedding is the piece's own, uncut."""
    (found,) = outcomes(tiny.body(), [Request(text, {"chunk": chunk})])
    assert isinstance(found, Prediction) and not found.truncated, found
    pieces = found.prediction
    alone = outcomes(tiny.body(), [Request(text[one["start"] : one["end"]]) for one in pieces])
    for one, own in zip(pieces, alone, strict=True):
        assert isinstance(own, Prediction) and not own.truncated
        assert own.tokens is not None and own.tokens <= (chunk.get("tokens", 64) if isinstance(chunk, dict) else 64)
        np.testing.assert_allclose(one["embedding"], own.prediction, atol=1e-5)
    overlap = chunk.get("overlap", 0) if isinstance(chunk, dict) else 0
    for one, after in zip(pieces, pieces[1:], strict=False):
        assert one["start"] < after["start"] and one["end"] < after["end"]
        assert overlap or after["start"] >= one["end"]
        assert not text[one["end"] : after["start"]].strip(), "nothing is left out"
    assert not text[: pieces[0]["start"]].strip() and not text[pieces[-1]["end"] :].strip()


@pytest.mark.parametrize("text", ["東京" * 40, "ab 😀 " * 30, "word " * 9 + "x" * 90], ids=["three", "four", "word"])
@pytest.mark.parametrize("overlap", range(8))
def test_each_piece_goes_beyond_the_one_before(text: str, overlap: int) -> None:
    """Where a character is several tokens, and a word more than a piece, no piece is there twice or within another."""
    places = [(i, i + 1) for i, letter in enumerate(text) for _ in letter.encode() if letter != " "]
    spans = _by_tokens(text, places, 9, overlap)
    assert all(one[0] < after[0] and one[1] < after[1] for one, after in zip(spans, spans[1:], strict=False)), spans
    assert all(not text[one[1] : after[0]].strip() for one, after in zip(spans, spans[1:], strict=False))
    assert spans[0][0] == 0 and spans[-1][1] == len(text.rstrip())


def test_sentences_stay_whole() -> None:
    """A piece begins where a sentence does, and ends where one ends."""
    (found,) = outcomes(tiny.body(), [Request(LONG, {"chunk": "sentences"})])
    assert isinstance(found, Prediction) and len(found.prediction) > 3
    for one in found.prediction:
        assert LONG[one["start"] : one["end"]][-1] in ".!?"
        assert one["start"] == 0 or LONG[one["start"] - 2] in ".!?"


def test_a_job_that_cuts_gives_every_message_in_pieces() -> None:
    """on_too_long=chunk: short and long texts and lists, beside each other as alone."""
    requests = [Request("short"), Request(LONG), Request(["short", LONG]), Request(LONG, {"dimensions": 5})]
    requests.append(Request(LONG, {"chunk": {"tokens": 12}, "normalize": True}))
    together = outcomes(tiny.body(), requests, on_too_long="chunk")
    for request, whole in zip(requests, together, strict=True):
        (alone,) = outcomes(tiny.body(), [request], on_too_long="chunk")
        assert isinstance(whole, Prediction) and isinstance(alone, Prediction), (whole, alone)
        mine, other = (
            [one] if isinstance(request.inputs, str) else one for one in (whole.prediction, alone.prediction)
        )
        for pieces, others in zip(mine, other, strict=True):
            for one, same in zip(pieces, others, strict=True):
                assert (one["start"], one["end"]) == (same["start"], same["end"])
                np.testing.assert_allclose(one["embedding"], same["embedding"], atol=1e-5)
    assert len(together[3].prediction[0]["embedding"]) == 5  # type: ignore[union-attr]


def test_too_many_pieces_and_no_room() -> None:
    """Over a thousand pieces are TooLong, and pieces without room InvalidParameter; others are answered."""
    many, cramped, lapping, right = outcomes(
        tiny.body(),
        [
            Request("the order " * 4000, {"chunk": {"tokens": 4}}),
            Request(LONG, {"chunk": {"tokens": 2}}),
            Request(LONG, {"chunk": {"tokens": 10, "overlap": 8}}),
            Request(LONG, {"chunk": "tokens"}),
        ],
    )
    assert isinstance(many, Failure) and many.error_type == "TooLong" and "at most 1000" in many.error
    assert isinstance(cramped, Failure) and cramped.error_type == "InvalidParameter"
    assert isinstance(lapping, Failure) and "must be less" in lapping.error
    assert isinstance(right, Prediction)


WRONG = ["words", "", 5, True, [], {"tokens": 0}, {"overlap": -1}, {"by": "sentences", "overlap": 2}, {"size": 3}]


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_what_is_no_chunk(value: Any) -> None:
    """Other words, sizes of nothing, and an overlap of sentences are refused by the table alone."""
    with pytest.raises(InvalidParameter, match=r"parameters\.chunk"):
        validate({"chunk": value}, TASKS["feature-extraction"].parameters, "feature-extraction")


def test_only_embeddings_come_in_pieces() -> None:
    """A job of another task that shall cut into chunks is refused at launch, in one line."""
    with pytest.raises(ModelLoadError, match="cuts no text into chunks, feature-extraction does"):
        HuggingFaceModelHandler(tiny.sentiment(), on_too_long="chunk").check()
    (wrong,) = outcomes(tiny.body(), [Request("x", {"chunk": "tokens", "pooling": "none"})])
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter"
