"""Answers that must fit a schema: local weights are held to it, servers are asked for it, and each is looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import tiny_models as tiny
import torch
from fake_endpoint import FakeEndpoint

from transforms.models import structured
from transforms.models.errors import InvalidAnswer, InvalidParameter, ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.structured import Structure
from transforms.records import Failure, Message, Prediction, Request

TICKET = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["refund", "delivery", "other"]},
        "urgent": {"type": "boolean"},
        "parts": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["kind", "urgent", "parts"],
    "additionalProperties": False,
}
NUMBER = {"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"], "additionalProperties": False}


def openai(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tgi(schema: Any) -> dict[str, Any]:
    return {"grammar": {"type": "json", "value": schema}}


def answers(requests: Sequence[Request], **options: Any) -> list[Any]:
    handler = HuggingFaceModelHandler(
        tiny.causal(), "text-generation", **({"dtype": "float32", "device": "cpu"} | options)
    )
    model = handler.load_model()
    torch.set_num_threads(1)
    outcomes = handler.run_inference(requests, model)
    return [outcome.prediction if isinstance(outcome, Prediction) else outcome for outcome in outcomes]


LONG = {"max_new_tokens": 100, "do_sample": False}
CHAT = [{"role": "user", "content": "where is my order"}]


@pytest.mark.parametrize("form", [openai, tgi])
@pytest.mark.parametrize("inputs", ["my order was late", CHAT])
def test_local_weights_are_held_to_a_schema(form: Any, inputs: Any) -> None:
    """A model of random weights, which writes no JSON by itself, gives what the schema asks for, a chat or not."""
    ((one,),) = answers([Request(inputs, {**LONG, **form(TICKET)})])
    assert one["parsed"]["kind"] in ("refund", "delivery", "other") and isinstance(one["parsed"]["urgent"], bool)
    text = one["generated_text"]
    said = text[len(inputs) :] if isinstance(inputs, str) else text[-1]["content"]
    assert json.loads(said) == one["parsed"]


def test_held_and_free_messages_share_a_batch() -> None:
    """Each is answered as it is alone, whatever schema, or none, the others of its batch ask for."""
    sampled = {"max_new_tokens": 100, "do_sample": True, "temperature": 5.0, "seed": 7, **openai(TICKET)}
    asked = [LONG | openai(TICKET), {**LONG, "max_new_tokens": 6}, LONG | tgi(NUMBER), LONG | openai(TICKET), sampled]
    requests = [Request(tiny.text_of(2 + i % 4, i), asked[i % len(asked)]) for i in range(10)]
    alone = [answers([request])[0] for request in requests]
    assert len({str(each) for each in alone}) > 5, "a mix-up must show"
    for order in (list(range(10)), list(range(10))[::-1]):
        assert answers([requests[i] for i in order]) == [alone[i] for i in order]
    assert [("parsed" in each[0]) for each in alone[:5]] == [True, False, True, True, True]


def test_several_sequences_are_each_held() -> None:
    """num_return_sequences gives as many objects."""
    given = {"max_new_tokens": 100, "do_sample": True, "num_return_sequences": 3, "seed": 1, **openai(NUMBER)}
    (several,) = answers([Request("x", given)])
    assert len(several) == 3 and all(one["parsed"]["n"] in (1, 22) for one in several)


def test_an_answer_that_was_cut_is_a_dead_letter() -> None:
    """Too few tokens leave half a JSON, which is no answer; its neighbours are answered."""
    short, whole = answers(
        [Request("x", {**LONG, "max_new_tokens": 5, **openai(TICKET)}), Request("x", LONG | tgi(NUMBER))]
    )
    assert isinstance(short, Failure) and short.error_type == "InvalidAnswer", short
    assert "too few max_new_tokens" in short.error and isinstance(whole, list)


def test_the_schema_may_be_the_jobs() -> None:
    """--inference_params holds it for every message, and a bad one stops the launch in one line."""
    ((one,),) = answers([Request("x", LONG)], parameters=openai(NUMBER))
    assert one["parsed"]["n"] in (1, 22)
    with pytest.raises(ModelLoadError, match="nothing is fetched"):
        HuggingFaceModelHandler(tiny.causal(), parameters=openai({"$ref": "http://x/y"})).check()


def laughs(keyword: str) -> dict[str, Any]:
    levels = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    return {"$defs": {**levels, "d30": {"type": "string"}}, "$ref": "#/$defs/d0"}


def deep(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BAD = {
    "a remote reference": ({"$ref": "http://169.254.169.254/latest"}, "nothing is fetched"),
    "a file": ({"properties": {"default": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
    "an inner base": ({"properties": {"a": {"$id": "http://x/", "$ref": "y"}}}, "has \\$id"),
    "a dynamic reference": ({"$dynamicRef": "#x"}, "has \\$dynamicRef"),
    "a reference to nothing": ({"$ref": "#/$defs/none"}, "which is not in it"),
    "a million laughs": (laughs("allOf"), "unfolds to more than"),
    "a million choices": (laughs("anyOf"), "unfolds to more than"),
    "too deep": (deep(60), "nested deeper than"),
    "huge": ({"enum": ["x" * 70_000]}, "at most 65536"),
    "no type": ({"type": "strng"}, "is none"),
    "no schema": ({"properties": {"a": 3}}, "is none"),
    "what the rest may be": ({"patternProperties": {"(a+)+$": {}}, "unevaluatedProperties": False}, "not read"),
    "no pattern": ({"type": "string", "pattern": "("}, "has pattern"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_schema_is_the_messages_fault(name: str) -> None:
    """References to elsewhere, what unfolds without end, and what is no schema: refused before any model is asked."""
    schema, what = BAD[name]
    for form in (openai, tgi):
        with pytest.raises(InvalidParameter, match=what):
            structured.asked(form(schema))
    wrong, right = answers([Request("x", LONG | openai(schema)), Request("x", LONG | openai(NUMBER))])
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter" and isinstance(right, list)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "text"},
        {"type": "regex", "value": "a+"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": []},
        {"type": "json", "value": "{}"},
        {"type": 3},
        {},
        [],
        "json",
        True,
    ],
)
def test_what_is_no_response_format(value: Any) -> None:
    """Other types than JSON, and no schema in it, are InvalidParameter."""
    (wrong,) = answers([Request("x", {"response_format": value})])
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter", wrong


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({**LONG, **openai(NUMBER), **tgi(NUMBER)}, "response_format is given too"),
        ({**LONG, **openai(NUMBER), "num_beams": 2}, "without beams"),
        ({**LONG, **openai({"type": "array", "uniqueItems": True})}, "no answer can be held to its schema"),
        ({**LONG, **openai(False)}, "no answer can be held to its schema"),
    ],
)
def test_what_cannot_be_held(parameters: dict[str, Any], what: str) -> None:
    """Two wishes, beams, and keywords that no generation can be held to are named."""
    (wrong,) = answers([Request("x", parameters)])
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter" and what in wrong.error, wrong


def test_a_number_that_would_be_another_is_refused() -> None:
    """A whole number over 64 bits would be read as the nearest with a fraction; the same digits in a text are none."""
    anything = Structure({})
    assert anything.read(f"[{2**64 - 1}, {-(2**63)}, 1.{'5' * 30}]")[:2] == [2**64 - 1, -(2**63)]
    assert anything.read(json.dumps({"9" * 40: "9" * 40})) == {"9" * 40: "9" * 40}
    for number in (2**64, -(2**63) - 1, 10**29):
        with pytest.raises(InvalidAnswer, match="more than 64 bits"):
            anything.read(json.dumps({"n": [number]}))


def test_patterns_and_recursion_end() -> None:
    """A pattern that backtracks without end, and a schema that branches at each level, cost a bounded time."""
    backtracking = Structure({"type": "string", "pattern": "^(a+)+$"})
    assert backtracking.read(json.dumps("a" * 40)) == "a" * 40
    with pytest.raises(InvalidAnswer):
        backtracking.read(json.dumps("a" * 5_000 + "b"))
    branch = {"properties": {"x": {"$ref": "#"}}}
    branching = Structure(
        {"anyOf": [{**branch, "required": ["y"]}, {**branch, "required": ["z"]}] * 4, "type": "object"}
    )
    nested: Any = {}
    for _ in range(30):
        nested = {"x": nested}
    with pytest.raises(InvalidAnswer):
        branching.read(json.dumps(nested))
    with pytest.raises(InvalidAnswer, match="takes too much"):
        Structure({"$ref": "#"}).read("1")


def test_no_reason_quotes_an_answer_unless_asked() -> None:
    """The reason is whole where the audit keeps inputs, and without the answer's words where it does not."""
    structure = Structure(TICKET)
    for text in ('{"kind": "geheim", "urgent": true, "parts": []}', '{"kind": "other", "geheim": 1}', "geheim"):
        with pytest.raises(InvalidAnswer) as caught:
            structure.read(text)
        assert "geheim" not in caught.value.redacted(), caught.value.redacted()


def ask(endpoint: FakeEndpoint, inputs: Any, given: dict[str, Any], path: str = "") -> Any:
    handler = EndpointModelHandler(endpoint.url + path, "text-generation", max_wait_s=5)
    (outcome,) = handler.run_inference([Request(inputs, given, Message(message_id="1"))], handler._new())
    return outcome


SAID = '{"n": 22}'


@pytest.mark.parametrize("form", [openai, tgi])
def test_servers_are_asked_in_their_own_words(form: Any) -> None:
    """OpenAI-compatible ones get a json_schema, Text Generation Inference a grammar, whichever form the message has."""
    chat = {"choices": [{"message": {"role": "assistant", "content": SAID}}]}
    with FakeEndpoint("openai").running() as endpoint:
        endpoint.openai = lambda path, payload: (200, chat, {})  # type: ignore[method-assign]
        outcome = ask(endpoint, CHAT, form(NUMBER), "/v1")
        asked = endpoint.posts[0].payload["response_format"]
        assert asked["type"] == "json_schema" and asked["json_schema"]["schema"] == NUMBER
        assert outcome.prediction == [
            {"generated_text": [*CHAT, {"role": "assistant", "content": SAID}], "parsed": {"n": 22}}
        ]
    with FakeEndpoint(
        "tgi", answer=lambda payload: [{"generated_text": payload["inputs"] + SAID}]
    ).running() as endpoint:
        outcome = ask(endpoint, "the order: ", form(NUMBER))
        assert endpoint.posts[0].payload["parameters"]["grammar"] == {"type": "json", "value": NUMBER}
        assert "response_format" not in endpoint.posts[0].payload["parameters"]
        assert outcome.prediction == [{"generated_text": "the order: " + SAID, "parsed": {"n": 22}}]
    with FakeEndpoint("tgi").running() as endpoint:
        endpoint.openai = lambda path, payload: (200, chat, {})  # type: ignore[method-assign]
        outcome = ask(endpoint, CHAT, form(NUMBER))
        assert endpoint.posts[0].payload["response_format"] == {"type": "json_object", "value": NUMBER}
        assert outcome.prediction[0]["parsed"] == {"n": 22}


@pytest.mark.parametrize("said", ['{"n": 3}', "It is 22.", '{"n": 22', '{"n": 22, "m": 1}', ""])
def test_a_server_is_not_believed(said: str) -> None:
    """What does not fit is a dead letter InvalidAnswer at once, and not tried again."""
    chat = {"choices": [{"message": {"role": "assistant", "content": said}}]}
    with FakeEndpoint("openai").running() as endpoint:
        endpoint.openai = lambda path, payload: (200, chat, {})  # type: ignore[method-assign]
        outcome = ask(endpoint, CHAT, openai(NUMBER), "/v1")
        assert len(endpoint.posts) == 1
    assert isinstance(outcome, Failure) and outcome.error_type == "InvalidAnswer", outcome
    with FakeEndpoint("tgi", answer=[{"generated_text": "x" + said}]).running() as endpoint:
        outcome = ask(endpoint, "x", tgi(NUMBER))
    assert isinstance(outcome, Failure) and outcome.error_type == "InvalidAnswer", outcome
