"""Encode: the result's body and attributes, and what no message can hold."""

import json

import numpy as np
import pytest
from fakes import INFO

from pipeline.clients import LIMITS
from transforms.encode import NotJson, TooLarge, encode
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
