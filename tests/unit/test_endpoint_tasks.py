"""Ranks, similarities, summaries, translations and short embeddings by endpoint: each server's own route and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint, near, vector

from transforms.models.errors import ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.task_table import TASKS
from transforms.records import Failure, Message, Prediction, Request

TEXTS = ["late", "the invoice is wrong", "thank you"]
RANK = {"query": "my order", "texts": TEXTS}
SIMILAR = {"source_sentence": "my order", "sentences": TEXTS}


def ask(
    endpoint: FakeEndpoint, task: str, asked: Sequence[tuple[Any, dict[str, Any]]], path: str = "", **words: Any
) -> list[Any]:
    handler = EndpointModelHandler(endpoint.url + path, task, max_wait_s=5, **words)
    requests = [Request(one, given, Message(message_id=str(i))) for i, (one, given) in enumerate(asked)]
    outcomes = handler.run_inference(requests, handler._new())
    return [one.prediction if isinstance(one, Prediction) else one for one in outcomes]


@pytest.mark.parametrize(
    ("kind", "path"), [("tei", ""), ("tei", "/rerank"), ("openai", "/v1"), ("openai", "/v1/rerank")]
)
def test_ranks(kind: str, path: str) -> None:
    """Both kinds of servers are asked on their route, and the answer is the one that local weights give."""
    with FakeEndpoint(kind).running() as endpoint:
        whole, best = ask(endpoint, "text-ranking", [(RANK, {}), (RANK, {"top_k": 1, "return_text": True})], path)
        route = "/v1/rerank" if kind == "openai" else "/rerank"
        assert {seen.path for seen in endpoint.posts} == {route}
    scores = [near("my order", text) for text in TEXTS]
    order = sorted(range(3), key=lambda i: -scores[i])
    assert whole == [{"index": i, "score": scores[i]} for i in order]
    assert best == [{"index": order[0], "score": scores[order[0]], "text": TEXTS[order[0]]}]


def test_what_a_server_is_told_of_ranks() -> None:
    """Text Embeddings Inference gets raw_scores and truncate beside the query, and nothing of what is done here."""
    with FakeEndpoint("tei").running() as endpoint:
        ask(endpoint, "text-ranking", [(RANK, {"raw_scores": True, "top_k": 2, "return_text": True})])
        assert endpoint.posts[0].payload == {**RANK, "raw_scores": True, "truncate": True}
    with FakeEndpoint("openai").running() as endpoint:
        (refused,) = ask(endpoint, "text-ranking", [(RANK, {"raw_scores": True})], "/v1")
    assert isinstance(refused, Failure) and refused.error_type == "InvalidParameter"
    assert "parameters.raw_scores: an OpenAI-compatible server has none" in refused.error


def test_similarities() -> None:
    """Text Embeddings Inference's /similarity, one message a request; an Inference API gets the same under inputs."""
    expected = [near("my order", text) for text in TEXTS]
    with FakeEndpoint("tei").running() as endpoint:
        assert ask(endpoint, "sentence-similarity", [(SIMILAR, {}), (SIMILAR, {})]) == [expected, expected]
        assert [seen.payload for seen in endpoint.posts] == [{"inputs": SIMILAR, "parameters": {"truncate": True}}] * 2
        (refused,) = ask(endpoint, "sentence-similarity", [(SIMILAR, {"dimensions": 4})])
        assert isinstance(refused, Failure) and "compares whole embeddings" in refused.error
    with FakeEndpoint("inference", answer=expected).running() as endpoint:
        assert ask(endpoint, "sentence-similarity", [(SIMILAR, {})]) == [expected]
        assert endpoint.posts[0].payload == {"inputs": SIMILAR}


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
@pytest.mark.parametrize(
    "form", [lambda one: [one], lambda one: one, lambda one: [[one]]], ids=["list", "one", "nested"]
)
def test_texts_for_texts(task: str, key: str, form: Any) -> None:
    """The three forms in which servers answer are one; one that generates may call it generated_text."""
    for name in (key, "generated_text"):
        with FakeEndpoint("inference", answer=form({name: "Bonjour"})).running() as endpoint:
            given = {"src_lang": "en", "tgt_lang": "fr"} if task == "translation" else {"max_new_tokens": 4}
            assert ask(endpoint, task, [("Hello", given)]) == [[{key: "Bonjour"}]]
            assert endpoint.posts[0].payload == {"inputs": "Hello", "parameters": given}


@pytest.mark.parametrize("name", ["dimensions", "truncate_dim"])
@pytest.mark.parametrize(("kind", "path"), [("tei", ""), ("openai", "/v1")])
def test_short_embeddings(kind: str, path: str, name: str) -> None:
    """Both names go to the server as the one that it has; messages that ask for other lengths share no request."""
    with FakeEndpoint(kind).running() as endpoint:
        found = ask(endpoint, "feature-extraction", [("a", {name: 3}), ("b", {}), ("c", {name: 3})], path)
        for text, short, own in zip("abc", (3, 8, 3), found, strict=True):
            np.testing.assert_allclose(own, vector(text)[:short], rtol=1e-6)
        assert sorted(seen.payload.get("dimensions", 0) for seen in endpoint.posts) == [0, 3]


def test_a_server_that_does_not_cut_is_not_believed() -> None:
    """An embedding of another length than was asked for is no answer, and the launch says so."""
    with FakeEndpoint("inference").running() as endpoint:
        handler = EndpointModelHandler(endpoint.url, "feature-extraction", parameters={"dimensions": 3})
        with pytest.raises(ModelLoadError, match="expected 3 dimensions, as asked, got 8"):
            handler.probe()


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("text-ranking", [{"index": 0, "score": 0.5}]),
        ("text-ranking", [{"index": i, "score": 0.5} for i in (0, 1, 1)]),
        ("text-ranking", [{"index": i, "score": 0.5} for i in (1, 2, 3)]),
        ("text-ranking", [{"index": i, "score": "0.5"} for i in range(3)]),
        ("text-ranking", [{"index": float(i), "score": 0.5} for i in range(3)]),
        ("sentence-similarity", [0.5, 0.5]),
        ("sentence-similarity", [0.5, 0.5, True]),
        ("sentence-similarity", {"0": 0.5}),
        ("summarization", [{"summary_text": None}]),
        ("summarization", []),
        ("translation", "Bonjour"),
    ],
)
def test_what_is_no_answer(task: str, answer: Any) -> None:
    """Scores of fewer texts, of one twice or of none, and nulls for texts are misfits of the request."""
    inputs = {"text-ranking": RANK, "sentence-similarity": SIMILAR}.get(task, "Hello")
    with pytest.raises(Misfit):
        TASKS[task].read(answer, Ask(inputs, {}))
