"""Envelopes: CloudEvents and push, what is opened under which format, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.decode import InvalidBody, decode
from transforms.envelopes import FORMATS, Opener
from transforms.records import Message, Request

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "ticket"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}


def asked(body: Any, attributes: dict[str, str] | None = None, form: str = "auto", path: str | None = None) -> Any:
    """The inputs that a message asks, its body given as JSON or as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    message = Message(data, attributes or {})
    request = decode(message, path and jmespath.compile(path), Opener(form))
    assert request.message is message
    return request.inputs


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pushed(data: bytes, **attributes: str) -> dict[str, Any]:
    message = {"data": packed(data), "attributes": attributes, "messageId": "7", "publishTime": "2026-01-31T12:00:00Z"}
    return {"message": message, "subscription": "projects/my-project/subscriptions/tickets"}


@pytest.mark.parametrize(
    ("more", "inputs"),
    [
        ({"data": {"inputs": "hi"}}, "hi"),
        ({"data": {"inputs": "hi"}, "datacontenttype": "application/vnd.shop+json"}, "hi"),
        ({"data": "hi", "datacontenttype": "text/plain; charset=iso-8859-1"}, "hi"),
        ({"data": "é", "datacontenttype": "Text/Plain; charset=iso-8859-1"}, "é"),
        ({"data_base64": packed(b'{"inputs": "hi"}')}, "hi"),
        ({"data_base64": packed("é".encode("latin-1")), "datacontenttype": "text/plain; charset=latin1"}, "é"),
        ({"data_base64": packed(b"\x89PNG"), "datacontenttype": "image/png"}, b"\x89PNG"),
        ({"data": '{"inputs": "hi"}', "datacontenttype": "application/xml"}, "hi"),
        ({"data": pushed(b'{"inputs": "hi"}'), "datacontenttype": "application/json", "time": "2026"}, "hi"),
    ],
)
@pytest.mark.parametrize("form", ["auto", "cloudevents"])
def test_structured_events_give_their_data(form, more, inputs):
    """Data as JSON, text or base64, by its own content type; declared by the message's, or known by its shape."""
    assert asked({**EVENT, **more}, STRUCTURED, form) == inputs
    assert asked({**EVENT, **more}, {}, form) == inputs


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({**EVENT, "id": ""}, "has no id"),
        ({**EVENT, "source": 3, "data": {}}, "has no source"),
        ({"data": {"inputs": "hi"}}, "has no specversion, id, source, type"),
        ([EVENT], "no JSON object"),
        ({**EVENT}, "has no data"),
        ({**EVENT, "data": None}, "has no data"),
        ({**EVENT, "data": 1, "data_base64": "aGk="}, "both"),
        ({**EVENT, "data_base64": "ä"}, "not base64"),
        ({**EVENT, "data_base64": 7}, "not base64"),
        ({**EVENT, "data_base64": ""}, "is empty"),
        ({**EVENT, "specversion": "0.3", "data": 1}, "use 1.0"),
        ({**EVENT, "data": "iVBOR", "datacontenttype": "image/png"}, "data_base64"),
        ({**EVENT, "data": {"a": 1}, "datacontenttype": "text/plain"}, "data_base64"),
        ({**EVENT, "data": 1, "datacontenttype": 7}, "no string"),
    ],
)
def test_what_is_no_event_is_refused(event, words):
    """Each lack is named."""
    with pytest.raises(InvalidBody, match=words):
        asked(event, STRUCTURED)
    with pytest.raises(InvalidBody, match=words):
        asked(event, {}, "cloudevents")


@pytest.mark.parametrize("kind", ["application/cloudevents-batch+json", "application/cloudevents+avro"])
def test_other_forms_of_events_are_named(kind):
    """A batch is many messages in one, which one result cannot answer."""
    with pytest.raises(InvalidBody, match="use application/cloudevents\\+json"):
        asked([EVENT], {"content-type": kind})


def test_binary_events():
    """The body is the data, by content-type or ce-datacontenttype; the format asks for all that an event has."""
    binary = {"ce-specversion": "1.0", "CE-id": "1", "ce-source": "/shop", "ce-type": "ticket"}
    for form in ("auto", "json", "cloudevents"):
        assert asked({"inputs": "hi"}, binary, form) == "hi"
        assert asked(b"hi", {**binary, "ce-datacontenttype": "text/plain"}, form) == "hi"
        assert asked(b"\x89PNG", {**binary, "content-type": "image/png"}, form) == b"\x89PNG"
    del binary["ce-source"]
    assert asked({"inputs": "hi"}, binary) == "hi"
    with pytest.raises(InvalidBody, match="it has no ce-source$"):
        asked({"inputs": "hi"}, binary, "cloudevents")
    with pytest.raises(InvalidBody, match="use 1.0"):
        asked({"inputs": "hi"}, {**binary, "ce-source": "/", "ce-specversion": "2.0"}, "cloudevents")


@pytest.mark.parametrize(
    ("data", "attributes", "inputs"),
    [
        (b'{"inputs": "hi"}', {}, "hi"),
        (b"hi", {"Content-Type": "text/plain"}, "hi"),
        (b"\x89PNG", {"content-type": "image/png"}, b"\x89PNG"),
        (gzip.compress(b'{"inputs": "hi"}'), {"content-encoding": "gzip"}, "hi"),
        (json.dumps({**EVENT, "data": {"inputs": "hi"}}).encode(), STRUCTURED, "hi"),
        (json.dumps(pushed(b'{"inputs": "hi"}')).encode(), {}, "hi"),
    ],
)
def test_pushes_give_their_message(data, attributes, inputs):
    """A push envelope's data, by the attributes beside it, whatever that is in turn."""
    assert asked(pushed(data, **attributes)) == inputs
    assert asked({"message": {"data": packed(data), "attributes": attributes}}) == inputs


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": {"data": "ä"}}, "not base64"),
        ({"message": {"data": None}}, "not base64"),
        ({"message": {"data": ""}}, "is empty"),
        ({"message": {"data": "aGk=", "attributes": {"a": 1}}}, "no strings"),
        ({"message": {"data": "aGk=", "attributes": [1]}}, "no strings"),
        (pushed(gzip.compress(b"0" * 50_000_000), **{"content-encoding": "gzip"}), "over 10,000,000 bytes"),
        (pushed(json.dumps(pushed(json.dumps(pushed(json.dumps(pushed(b"1")).encode())).encode())).encode()), "over 4"),
    ],
)
def test_pushes_that_are_none_are_refused(body, words):
    """What the envelope says is not so is named, and a bomb in it is opened no further than one outside."""
    with pytest.raises(InvalidBody, match=words):
        asked(body)


def test_what_only_looks_like_an_envelope_is_a_body():
    """A request with inputs, and a push with anything beside, are read as they are; so is all under `json`."""
    assert asked({**EVENT, "data": 1, "inputs": "hi"}) == "hi"
    assert asked({"message": {"data": "aGk="}, "inputs": "hi"}) == "hi"
    for body in ({"message": {"data": "aGk=", "text": "hi"}}, {"message": {"data": "aGk="}, "other": 1}):
        with pytest.raises(InvalidBody, match="without 'inputs'"):
            asked(body)
    with pytest.raises(InvalidBody, match="without 'inputs'"):
        asked({**EVENT, "data": {"inputs": "hi"}}, STRUCTURED, "json")


def test_a_path_picks_in_what_was_opened():
    """In an event's data where the event is declared; in the body as it is where only its shape would tell."""
    event = {**EVENT, "data": {"text": "hi"}}
    assert asked(event, STRUCTURED, path="text") == "hi"
    assert asked(event, {}, "cloudevents", "text") == "hi"
    assert asked(event, {}, path="data.text") == "hi"
    assert asked(event, STRUCTURED, "json", "data.text") == "hi"
    assert asked({"message": {"data": "hi"}}, path="message.data") == "hi"


@pytest.mark.parametrize("body", [{"inputs": "hi"}, [], "hi", b"hi", b"\x89PNG"])
@pytest.mark.parametrize("kind", ["", "text/plain", "image/png"])
def test_the_format_for_events_takes_nothing_else(body, kind):
    """A message that is no event is refused under `cloudevents`, whatever its content type."""
    with pytest.raises(InvalidBody, match="no CloudEvent|not JSON"):
        asked(body, {"content-type": kind}, "cloudevents")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "1.0", "aGk=", "text/plain", "image/png"]),
    lambda each: (
        st.lists(each, max_size=2)
        | st.dictionaries(
            st.sampled_from(["message", "data", "data_base64", "attributes", "inputs", "datacontenttype", *EVENT]), each
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(["", "application/cloudevents+json", "application/cloudevents", "text/plain", "image/png"])


@given(JSON, KINDS, st.sampled_from(FORMATS), st.booleans(), st.none() | st.sampled_from(["data", "@"]))
def test_any_envelope_is_opened_or_refused(body, kind, form, whole, path):
    """No JSON of these words, in any format, raises anything but InvalidBody."""
    given_body = {**EVENT, **body} if whole and isinstance(body, dict) else body
    message = Message(json.dumps(given_body).encode(), {"content-type": kind})
    try:
        assert isinstance(decode(message, path and jmespath.compile(path), Opener(form)), Request)
    except InvalidBody as error:
        assert str(error)
