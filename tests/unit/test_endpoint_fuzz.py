"""Replies of every kind of server, mutated by Hypothesis: each message has one outcome, and no fault gets further."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from transforms.encode import encode
from transforms.models.remote import caller, circuit_breaker
from transforms.models.remote.caller import EndpointUnavailable
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.remote.protocol import Post
from transforms.models.remote.reply import Reply
from transforms.models.remote.transport import Transport
from transforms.records import Failure, Limits, Message, Prediction, Request

ENTITY = {"entity": "B-PER", "score": 0.9, "index": 1, "word": "Ada", "start": 0, "end": 3}
SCORED = [{"label": "a", "score": 0.7}, {"label": "b", "score": 0.3}]
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": [{"type": "text", "text": "hello"}]}}]}
BOX = {"label": "cat", "score": 0.9, "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}
RANKED = {"labels": ["a", "b"], "scores": [0.7, 0.3]}
RANKS = [{"index": 1, "score": 0.7}, {"index": 0, "score": 0.3}]
SPAN = {"score": 0.8, "start": 0, "end": 3, "answer": "Ada"}
SPOKEN = {"text": "a", "chunks": [{"text": "a", "timestamp": [0.0, 1.0]}]}
LIMITS = Limits(10_000_000, 100, 1024)
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
TEI = {"model_id": "org/m", "model_sha": "c" * 40, "model_type": {}, "max_client_batch_size": 4}


VERTEX = "vertex:projects/p/locations/l/endpoints/"
IMAGES = {
    "toolkit": "huggingface-pytorch-inference",
    "tei": "text-embeddings-inference",
    "tgi": "text-generation-inference",
    "vllm": "pytorch-vllm-serve",
}


def vertex(predictions: list[Any]) -> dict[str, Any]:
    """What Vertex AI answers around a container's predictions."""
    model = "projects/p/locations/l/models/9"
    return {"predictions": predictions, "deployedModelId": "5", "model": model, "modelVersionId": "3"}


def described(url: str) -> dict[str, Any]:
    """A Vertex AI endpoint, whose model is of its own name; or that model."""
    kind, name = url.split("/")[-2:]
    if kind == "endpoints":
        deployed = {"id": "5", "model": f"projects/p/locations/l/models/{name}", "modelVersionId": "3"}
        return {"deployedModels": [deployed], "trafficSplit": {"5": 100}}
    name = name.partition("@")[0]
    route = "/v1/embeddings" if name == "raw" else "/predict"
    return {"containerSpec": {"imageUri": IMAGES.get(name, "own"), "predictRoute": route}}


def words(text: str) -> Any:
    return text


def chat(text: str) -> Any:
    return [{"role": "user", "content": text}]


def question(text: str) -> Any:
    return {"question": text, "context": "Ada wrote it."}


def ranking(text: str) -> Any:
    return {"query": text, "texts": ["one", "two"]}


def similar(text: str) -> Any:
    return {"source_sentence": text, "sentences": ["one", "two"]}


def recording(text: str) -> Any:
    return base64.b64encode(text.encode()).decode()


#: URL, task, how a text becomes the inputs, and what a healthy server answers to so many rows.
SERVERS: dict[str, tuple[str, str, Callable[[str], Any], Callable[[int], Any]]] = {
    "tei embed": ("http://tei", "feature-extraction", words, lambda n: [[0.5, 0.25]] * n),
    "tei predict": ("http://tei", "text-classification", words, lambda n: [SCORED] * n),
    "openai embed": (
        "http://x/v1",
        "feature-extraction",
        words,
        lambda n: {"data": [{"index": i, "embedding": [0.5, 0.25]} for i in range(n)], "usage": USAGE},
    ),
    "openai chat": ("http://x/v1", "text-generation", chat, lambda n: {**CHAT, "usage": USAGE}),
    "openai text": ("http://x/v1", "text-generation", words, lambda n: {"choices": [{"text": "x"}], "usage": USAGE}),
    "tgi": ("http://x", "text-generation", words, lambda n: [{"generated_text": "x y"}]),
    "tokens": ("http://x", "feature-extraction", words, lambda n: [[[0.5, 0.25], [1, 2]]]),
    "labels": ("http://x", "text-classification", words, lambda n: [SCORED]),
    "entities": ("http://x", "token-classification", words, lambda n: [ENTITY]),
    "zero shot": (
        "http://x",
        "zero-shot-classification",
        words,
        lambda n: {"labels": ["a", "b"], "scores": [0.7, 0.3]},
    ),
    "fills": ("http://x", "fill-mask", words, lambda n: [[{"score": 0.5, "token_str": "sun"}]] * 2),
    "summaries": ("http://x", "summarization", words, lambda n: [{"summary_text": "x y"}]),
    "translations": ("http://x", "translation", words, lambda n: [{"translation_text": "x y"}]),
    "rewritten": ("http://x", "text2text-generation", words, lambda n: [{"generated_text": "x y"}]),
    "tei rerank": ("http://tei", "text-ranking", ranking, lambda n: RANKS),
    "openai rerank": (
        "http://x/v1",
        "text-ranking",
        ranking,
        lambda n: {"results": [{"index": i, "relevance_score": 0.5} for i in (1, 0)]},
    ),
    "tei similarity": ("http://tei", "sentence-similarity", similar, lambda n: [0.5, -0.25]),
    "spans": (
        "http://x",
        "question-answering",
        question,
        lambda n: {"score": 0.8, "start": 0, "end": 3, "answer": "A"},
    ),
    "speech": (
        "http://x",
        "automatic-speech-recognition",
        recording,
        lambda n: {"text": "a", "chunks": [{"text": "a"}]},
    ),
    "image": ("http://x", "image-classification", recording, lambda n: SCORED),
    "features": ("http://x", "image-feature-extraction", recording, lambda n: [[[0.5, 0.25]]]),
    "boxes": ("http://x", "object-detection", recording, lambda n: [BOX]),
    "masks": ("http://x", "image-segmentation", recording, lambda n: [{"label": "cat", "mask": "iV", "score": None}]),
    "vertex toolkit": (VERTEX + "toolkit", "text-classification", words, lambda n: vertex([SCORED] * n)),
    "vertex tei": (VERTEX + "tei", "feature-extraction", words, lambda n: vertex([[0.5, 0.25]] * n)),
    "vertex tgi": (VERTEX + "tgi", "text-generation", words, lambda n: vertex([[{"generated_text": "x y"}]] * n)),
    "vertex vllm": (VERTEX + "vllm", "text-generation", words, lambda n: vertex(["x y"] * n)),
    "vertex chat": (VERTEX + "tgi", "text-generation", chat, lambda n: {**CHAT, "usage": USAGE}),
    "vertex raw": (
        VERTEX + "raw",
        "feature-extraction",
        words,
        lambda n: {"data": [{"index": i, "embedding": [0.5, 0.25]} for i in range(n)], "deployedModelId": "5"},
    ),
}
#: How many of the six messages share a request with the bad one.
TOGETHER = {"tei embed": 4, "tei predict": 4, "openai embed": 6, "vertex toolkit": 6, "vertex tei": 6, "vertex raw": 6}
PARAMETERS = {"zero-shot-classification": {"candidate_labels": ["a", "b"]}}

ODD = st.one_of(
    st.sampled_from([None, True, "", "1", "NaN", -1, 0, 10**30, 1e39, math.nan, math.inf, -math.inf, [], {}, [None]]),
    st.sampled_from([[[]], {"a": None}, [[0.5], [0.5, 1]], ["0.5"], [True], {"label": None, "score": None}, "\ud800"]),
    st.integers(),
    st.text(max_size=5),
)
ERRORS = st.sampled_from(
    [
        {"error": "kaboom"},
        {"error": {"message": "slow down", "code": 429}},
        {"error": "Rate limit reached"},
        {"error": {"message": "no", "type": "invalid_request_error"}},
        {"error": {"code": 401}},
        {"object": "error", "message": "no", "code": 404},
        {"errors": [{"msg": 1}]},
    ]
)


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """``valid`` with something odd, missing, doubled or more in some of its places."""

    def change(value: Any) -> Any:
        what = draw(st.sampled_from(["in", "in", "in", "odd", "drop", "twice", "wrap", "deep"]))
        if what == "in" and isinstance(value, dict) and value:
            key = draw(st.sampled_from(sorted(value)))
            return {**value, key: change(value[key])}
        if what == "in" and isinstance(value, list) and value:
            place = draw(st.integers(0, len(value) - 1))
            return [*value[:place], change(value[place]), *value[place + 1 :]]
        if what == "drop" and value and isinstance(value, (dict, list)):
            return dict(list(value.items())[1:]) if isinstance(value, dict) else value[1:]
        if what == "twice" and isinstance(value, list):
            return value * 2
        if what == "wrap":
            return [value]
        if what == "deep":
            for _ in range(draw(st.sampled_from([5, 120, 200]))):
                value = [value]
            return value
        return draw(ODD)

    for _ in range(draw(st.integers(1, 3))):
        valid = change(valid)
    return valid


@st.composite
def replies(draw: st.DrawFn, valid: Any) -> Reply:
    """A reply of 200 with a mutated answer, an error or a broken text in it."""
    found = draw(st.one_of(mutated(valid), mutated(valid), mutated(valid), ODD, ERRORS))
    body = json.dumps(found).encode()
    how = draw(st.sampled_from(["whole"] * 6 + ["cut", "utf-16", "latin-1", "bytes"]))
    if how == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif how in ("utf-16", "latin-1"):
        body = (json.dumps(found, ensure_ascii=False) + " é").encode(how, "replace")
    elif how == "bytes":
        body = draw(st.binary(max_size=20))
    count = draw(st.sampled_from(["", "7", "-1", "9" * 400, "NaN", "²", "1e999", "true"]))
    return Reply(200, {"x-prompt-tokens": count, "x-generated-tokens": count}, body)


@contextlib.contextmanager
def answering(reply: Reply, valid: Callable[[int], Any]) -> Iterator[None]:
    """A server that gives ``reply`` to every request with a bad text in it, and a healthy answer to all others."""

    async def send(self: Transport, post: Post, token: str | None, timeout_s: float) -> Reply:
        await asyncio.sleep(0)
        if post.method == "GET":
            if "aiplatform" in post.url:
                return Reply(200, {}, orjson.dumps(described(post.url)))
            return Reply(200, {}, orjson.dumps(TEI)) if "//tei" in post.url else Reply(404, {}, b"{}")
        assert post.body is not None
        if b"bad" in post.body:
            return reply
        payload = orjson.loads(post.body) if post.body[:1] == b"{" else {}
        rows = payload.get("instances", payload.get("inputs", payload.get("input")))
        return Reply(200, {}, orjson.dumps(valid(len(rows) if isinstance(rows, list) else 1)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "send", send)
        for name in ("FIRST_WAIT_S", "LAST_WAIT_S"):
            patch.setattr(caller, name, 0.0005)
        for name in ("FIRST_PROBE_S", "LAST_PROBE_S"):
            patch.setattr(circuit_breaker, name, 0.0005)
        yield


def outcomes(name: str, reply: Reply, max_wait_s: float) -> tuple[list[Prediction | Failure], list[Request]]:
    """What becomes of five good messages and a bad one in their midst."""
    url, task, inputs, valid = SERVERS[name]
    given = PARAMETERS.get(task)
    handler = EndpointModelHandler(url, task, max_wait_s=max_wait_s, parameters=given, auth="none")
    texts = ["good 0", "good 1", "good 2", "bad", "good 4", "good 5"]
    batch = [Request(inputs(text), {}, Message(message_id=str(i))) for i, text in enumerate(texts)]
    with answering(reply, valid):
        return handler.run_inference(batch, handler._new()), batch


def check(found: list[Prediction | Failure], batch: list[Request]) -> None:
    """One outcome each, the good ones answered, and every answer fit to be written."""
    assert len(found) == len(batch)
    for outcome, request in zip(found, batch, strict=True):
        if isinstance(outcome, Failure):
            assert request is batch[3] and outcome.message is request.message, outcome
            assert outcome.error_type in ("EndpointFailed", "EndpointRefused", "NonFinite"), outcome
        else:
            assert outcome.request is request
            assert outcome.tokens is None or 0 <= outcome.tokens < 2**31
            written = orjson.loads(encode(outcome, LIMITS).prediction_json)
            if isinstance(outcome.prediction, np.ndarray):
                assert np.isfinite(outcome.prediction).all()
            for number in scores(written):
                assert type(number) in (int, float) and math.isfinite(number), written


def scores(value: Any) -> Iterator[Any]:
    """Every score in a prediction, but those of a semantic map's segments, which have none."""
    if isinstance(value, dict):
        yield from (value.get("scores") or [])
        if "score" in value and "mask" not in value:
            yield value["score"]
    for one in value if isinstance(value, list) else ():
        yield from scores(one)


@pytest.mark.parametrize("name", SERVERS)
def test_no_reply_costs_more_than_its_own_message(name: str) -> None:
    """Whatever one message's answers of 200 hold, it ends as one outcome, others are answered, nothing raises."""
    valid = SERVERS[name][3](TOGETHER.get(name, 1))

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(replies(valid))
    @example(Reply(200, {}, b'{"error": {"message": "slow down", "code": 429}}'))
    @example(Reply(200, {}, b"[" * 100_000))
    def run(reply: Reply) -> None:
        check(*outcomes(name, reply, max_wait_s=60.0))

    run()


HEADERS = st.sampled_from(["", "1e5", "²", "9" * 400, "-1", "Mon, 99 Foo 99999 00:00:00 GMT", "inf", "nan", "0"])


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(SERVERS)), st.integers(200, 599), st.one_of(ERRORS, ODD), HEADERS)
def test_no_status_or_header_raises_anything_but_that_it_is_away(name: str, status: int, body: Any, wait: str) -> None:
    """Every status with any body and any Retry-After is one outcome each, or a batch that comes again."""
    reply = Reply(status, {"retry-after": wait}, json.dumps(body).encode())
    with contextlib.suppress(EndpointUnavailable):
        check(*outcomes(name, reply, max_wait_s=0.05))
