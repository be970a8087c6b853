"""Encode: the result's body and attributes, and what no message can hold."""

import base64
import gzip
import json

import numpy as np
import pytest
from fakes import INFO

from pipeline.clients import LIMITS
from transforms.encode import NotJson, TooLarge, _EncodeFn, encode
from transforms.envelopes import Opener
from transforms.records import Message, Prediction, Request


def prediction(value, **message) -> Prediction:
    return Prediction(Request("x", {}, Message(**{"message_id": "7", **message})), value, INFO, time=1.5)


def test_the_body_has_the_documented_fields():
    """A result is one JSON object with the model's answer and the way back to its message."""
    result = encode(prediction([{"label": "A", "score": 0.5}], event_time=0.25), LIMITS)
    assert json.loads(result.data) == {
        "schema_version": "1",
        "message_id": "7",
        "task": "text-classification",
        "model": "fake",
        "model_revision": "0" * 40,
        "prediction": [{"label": "A", "score": 0.5}],
        "event_time": "1970-01-01T00:00:00.250000Z",
        "processed_time": "1970-01-01T00:00:01.500000Z",
    }


def test_attributes_are_the_messages_own_and_ours():
    """The message's attributes go along; its content type becomes the result's; the ordering key stays."""
    result = encode(prediction(1, attributes={"customer": "c", "content-type": "text/plain"}, ordering_key="k"), LIMITS)
    assert result.attributes == {
        "customer": "c",
        "content-type": "application/json",
        "message_id": "7",
        "task": "text-classification",
        "model": "fake",
        "model_revision": "0" * 40,
        "schema_version": "1",
    }
    assert result.ordering_key == "k"


def test_the_first_label_is_an_attribute_to_filter_by():
    """Of the job's own prediction, not of an earlier one's; and no result is lost for want of room for it."""
    labelled = encode(prediction([{"label": "refund", "score": 0.9}, {"label": "bug", "score": 0.1}]), LIMITS)
    assert labelled.attributes["predicted_label"] == "refund"
    assert "predicted_label" not in encode(prediction(1, attributes=labelled.attributes), LIMITS).attributes
    long = [{"label": "x" * (LIMITS.attribute_value_bytes + 1), "score": 1.0}]
    assert "predicted_label" not in encode(prediction(long), LIMITS).attributes
    most = {f"k{n}": "" for n in range(LIMITS.attributes - 6)}
    full = encode(prediction([{"label": "refund", "score": 0.9}], attributes=most), LIMITS)
    assert len(full.attributes) == LIMITS.attributes and "predicted_label" not in full.attributes


def test_a_chain_leads_back_to_its_first_message():
    """Through any number of pipelines, origin_message_id is the id of the first input."""
    first = encode(prediction(1, message_id="a"), LIMITS)
    second = encode(prediction(1, message_id="b", attributes=first.attributes), LIMITS)
    third = encode(prediction(1, message_id="c", attributes=second.attributes), LIMITS)
    assert (second.attributes["origin_message_id"], second.attributes["message_id"]) == ("a", "b")
    assert (third.attributes["origin_message_id"], third.attributes["message_id"]) == ("a", "c")


def test_arrays_are_lists():
    """An embedding of float32 is written with its own precision, not a double's."""
    result = encode(prediction(np.array([0.1, 0.2], np.float32)), LIMITS)
    assert b'"prediction":[0.1,0.2]' in result.data


def test_what_json_cannot_hold_is_refused():
    """A prediction without a JSON form names its task."""
    with pytest.raises(NotJson, match="text-classification"):
        encode(prediction(object()), LIMITS)


def test_a_body_over_ten_megabytes_is_refused():
    """The error says how large the result is and what is allowed."""
    with pytest.raises(TooLarge, match="10000000"):
        encode(prediction("x" * LIMITS.message_bytes), LIMITS)


def test_too_many_attributes_are_refused():
    """Ninety-five attributes of its own leave no room for ours."""
    with pytest.raises(TooLarge, match="101 attributes"):
        encode(prediction(1, attributes={f"k{n}": "v" for n in range(95)}), LIMITS)


def test_an_attribute_over_its_quota_is_refused():
    """A value's length is counted in bytes."""
    with pytest.raises(TooLarge, match="'k'"):
        encode(prediction(1, attributes={"k": "é" * 600}), LIMITS)


def test_a_result_says_nothing_of_its_inputs_body():
    """Charset, encoding and content type of the input, in any capitals, are not the result's: the next job reads it."""
    attributes = {"Content-Type": "text/plain", "CONTENT-ENCODING": "gzip", "ce-datacontenttype": "x/y", "k": "v"}
    result = encode(prediction([1], attributes=attributes), LIMITS)
    assert {key for key in result.attributes if key.lower() in ("content-encoding", "ce-datacontenttype")} == set()
    assert [key for key in result.attributes if key.lower() == "content-type"] == ["content-type"]
    assert result.attributes["k"] == "v"


def kept_by(keep, data, attributes=None, inputs="hi", input_path=None, opener=None):
    """The fields that a result has beside those that it always has."""
    message = Message(data, attributes or {}, "1")
    step = _EncodeFn(LIMITS, keep, input_path is None, opener or Opener())
    result = step._encode(Prediction(Request(inputs, {}, message), [1], INFO))
    always = json.loads(encode(Prediction(Request("hi"), [1], INFO), LIMITS).data).keys()
    return {key: value for key, value in json.loads(result.data).items() if key not in always}


def test_a_result_keeps_nothing_of_its_input_unless_asked():
    """Without the flag a result is what it was."""
    assert kept_by("none", b'{"inputs": "hi"}') == {}


@pytest.mark.parametrize("inputs", ["h\u00e9", ["a", "b"], {"question": "q", "context": "c"}, 0, ""])
def test_inputs_are_kept_as_the_model_was_asked(inputs):
    """Any input that JSON has."""
    assert kept_by("inputs", b"{}", inputs=inputs) == {"inputs": inputs}


def test_raw_bytes_are_kept_in_base64():
    """A picture or a recording, whole, and bytes inside of an Avro record."""
    raw = bytes(range(256))
    encoded = base64.b64encode(raw).decode()
    assert kept_by("inputs", raw, {"content-type": "image/png"}, raw) == {"inputs": encoded}
    assert kept_by("body", raw, {"content-type": "image/png"}, raw) == {"body": encoded}
    assert kept_by("inputs", b"", inputs={"text": "a", "blob": raw}) == {"inputs": {"text": "a", "blob": encoded}}


@pytest.mark.parametrize(
    ("data", "attributes"),
    [
        (b'{"ticket": {"text": "h\xc3\xa9"}, "id": 7}', {}),
        (gzip.compress('{"ticket": {"text": "h\u00e9"}, "id": 7}'.encode()), {"Content-Encoding": "gzip"}),
        (
            '{"ticket": {"text": "h\u00e9"}, "id": 7}'.encode("utf-16"),
            {"content-type": "application/json; charset=utf-16"},
        ),
    ],
)
@pytest.mark.parametrize("path", [None, "ticket.text"])
def test_a_body_is_kept_as_it_was_read(data, attributes, path):
    """All of the JSON that the input was picked out of, however it was written."""
    assert kept_by("body", data, attributes, input_path=path) == {"body": {"ticket": {"text": "h\u00e9"}, "id": 7}}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_body_keeps_every_digit(wrapped):
    """A whole number of more than 64 bits, which a reader makes a float of: in a body, and in an event's data."""
    own = {"inputs": "hi", "id": 123456789012345678901234567890, "least": -(2**64), "most": 2**64 - 1}
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "t", "data": own}
    assert kept_by("body", json.dumps(event if wrapped else own).encode()) == {"body": own}


def test_a_text_is_its_own_body():
    """As it was read, in whatever charset it was sent."""
    kept = kept_by("body", "h\u00e9".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"}, "h\u00e9")
    assert kept == {"body": "h\u00e9"}


def test_a_body_is_kept_out_of_its_envelope():
    """What is in a push or an event; with an input path, which reads the envelope itself, all of it."""
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "t", "data": {"inputs": "hi"}}
    data = json.dumps(event).encode()
    assert kept_by("body", data) == {"body": {"inputs": "hi"}}
    assert kept_by("body", data, input_path="data.inputs") == {"body": event}


def test_an_input_that_makes_the_result_too_large_is_refused():
    """A body of six megabytes twice over is no message: a dead letter that says so."""
    with pytest.raises(TooLarge):
        kept_by("inputs", b"{}", inputs="x" * 10_000_000)


def test_an_input_without_a_json_form_is_refused():
    """Half a surrogate pair, which no decoder lets through, is told apart from a prediction's fault."""
    with pytest.raises(NotJson, match="the input has no JSON form"):
        kept_by("inputs", b"{}", inputs="\ud800")
