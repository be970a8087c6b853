"""What is in flight outlives the release that wrote it: each record of each release is read, or told to be unknown."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam import coders
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st
from in_flight import records
from streams import CASES

from transforms import excerpt, travel
from transforms.coder import RecordCoder
from transforms.decode import decode
from transforms.records import Failure, Message, Prediction, Request, Result
from transforms.travel import UnknownVersion

RELEASES = sorted((CASES / "in_flight").glob("*.json"))
WRITTEN = [
    pytest.param(name, base64.b64decode(data), id=f"{file.stem} {name}")
    for file in RELEASES
    for name, data in json.loads(file.read_text("utf-8")).items()
]


def fields(record: object) -> object:
    """``record`` for comparison: all it consists of; an answered request is compared by its message."""
    if isinstance(record, Result):
        made = record.prediction
        answer = np.asarray(made.prediction).tolist()
        kept = dataclasses.replace(made, request=Request(None, {}, made.request.message), prediction=answer)
        return dataclasses.replace(record, prediction=kept)
    return record


@pytest.mark.parametrize(("name", "data"), WRITTEN)
def test_every_release_is_read(name, data):
    """What each release had in state or shuffle is read as the record that it was, by Beam's coder and by our own."""
    expected = records()[name.removesuffix(", by its coder")]
    found = [RecordCoder().decode(data)]
    if not name.endswith(", by its coder"):
        found.append(coders.FastPrimitivesCoder().decode(data))
    for record in found:
        assert fields(record) == fields(expected)
        # Also the fields that a release did not know yet: they are there, with their defaults.
        assert all(hasattr(record, field.name) for field in dataclasses.fields(record))


def test_the_old_release_wrote_another_form():
    """The kept bytes of 0.1.0 name its classes and none of our functions: they are what its pickle made."""
    (old,) = (file for file in RELEASES if file.stem == "0.1.0")
    for data in map(base64.b64decode, json.loads(old.read_text("utf-8")).values()):
        assert b"transforms.records" in data and b"transforms.travel" not in data


def test_state_of_an_old_job_is_worked_on(minilm):
    """A request that 0.1.0 had gathered is answered by today's steps, and its message has all of today's fields."""
    from transforms.encode import Encode
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.predict import Predict
    from transforms.records import Limits

    (old,) = (file for file in RELEASES if file.stem == "0.1.0")
    data = base64.b64decode(json.loads(old.read_text("utf-8"))["request of a chat"])
    request = coders.FastPrimitivesCoder().decode(data)
    request = dataclasses.replace(request, inputs=request.inputs[0]["content"])
    assert request.message.given_up == ""
    with TestPipeline() as pipeline:
        handler = HuggingFaceModelHandler(minilm, "feature-extraction")
        predictions = pipeline | beam.Create([request]) | Predict(handler)
        results = predictions.results | Encode(Limits(10_000_000, 100, 1024))
        assert_that(results.results | beam.Map(lambda result: result.attributes["message_id"]), equal_to(["17"]))


@pytest.mark.parametrize("name", list(records()))
def test_a_round_trip_changes_nothing(name):
    """Pickled, by our coder and by Beam's: the record that comes out is the one that went in."""
    record = records()[name]
    for back in (
        pickle.loads(pickle.dumps(record)),
        RecordCoder().decode(RecordCoder().encode(record)),
        coders.FastPrimitivesCoder().decode(coders.FastPrimitivesCoder().encode(record)),
    ):
        assert fields(back) == fields(record)


def test_a_newer_version_is_told():
    """A record of a version, kind or length that this release does not know says so, and the way out."""
    for written in (
        ("Request", travel.VERSION + 1, ("whole", 1), {}, Message()),
        ("Request", travel.VERSION, ("whole", 1), {}, Message(), "a field to come"),
        ("Verdict", travel.VERSION, 1),
    ):
        with pytest.raises(UnknownVersion, match=f"a {written[0]} of .* update the job to that release, or drain"):
            travel.read(*written)
    with pytest.raises(UnknownVersion, match=r"begin with b'\\x7f', which no release up to this one wrote"):
        RecordCoder().decode(b"\x7f\x01\x02")


def test_a_newer_version_inside_is_told():
    """The error comes through the coders as it is, however deep the record lies."""
    newer = pickle.dumps(records()["failure"]).replace(b"K\x01", b"K\x02")
    for data in (b"R" + newer, b"\xff" + newer):
        with pytest.raises(UnknownVersion, match="of version 2 is in flight"):
            RecordCoder().decode(data)


BODIES = {
    "compact": lambda value: json.dumps({"inputs": value}, separators=(",", ":"), ensure_ascii=False),
    "of Python": lambda value: json.dumps({"inputs": value}),
    "with characters": lambda value: json.dumps({"inputs": value}, ensure_ascii=False),
}
PAYLOADS = {
    "a text": "Where is my parcel? " * 500,
    "a text to escape": 'She said: \u201cno\u201d.\n\t"' * 500,
    "base64": base64.b64encode(bytes(range(256)) * 40).decode(),
    "a chat": [{"role": "user", "content": [{"type": "image", "image": "iVBORw0KGgo" * 900}]}],
    "an object": {"question": "Who?", "context": "Nobody knows. " * 700},
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payload_travels_once(body, payload):
    """A request is as long as its message, whatever the inputs are and however its JSON was written."""
    message = Message(BODIES[body](PAYLOADS[payload]).encode(), {}, "1")
    request = decode(message)
    assert len(pickle.dumps(request)) < len(message.data) + 300
    assert pickle.loads(pickle.dumps(request)) == request


def test_pictures_and_results_travel_once():
    """Raw bytes go once, and of a result the message and what is published, its prediction in it."""
    picture = decode(Message(bytes(range(256)) * 4000, {"content-type": "image/png"}))
    assert len(pickle.dumps(picture)) < len(picture.message.data) + 300
    long = json.dumps([[0.123456789] * 2000]).encode()
    prediction = Prediction(picture, json.loads(long), records()["failure"].model)
    result = Result(prediction, long, b'{"prediction":' + long + b"}", {}, "")
    assert len(RecordCoder().encode(result)) < len(result.data) + len(picture.message.data) + 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=60), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, body=st.sampled_from(sorted(BODIES)), more=st.binary(max_size=40))
def test_whatever_is_found_is_read_as_it_was(value, body, more):
    """Any value, found in a body or not (NaN, half a character, numbers of 400 digits), comes back with its types."""
    data = more + BODIES[body](value).encode("utf-8", "replace")
    assert repr(excerpt.read(excerpt.find(value, data), data)) == repr(value)
    request = Request(value, {}, Message(data))
    assert repr(pickle.loads(pickle.dumps(request)).inputs) == repr(value)


def test_what_is_no_json_goes_whole():
    """Inputs that somebody made for a RunInference of their own, such as tuples, arrive as they are."""
    for value in ((1, 2) * 30, {1: "a" * 60}, {"a", "b"}, 10**400, [10**25] * 20):
        assert excerpt.find(value, json.dumps(str(value)).encode() * 2)[0] == "whole"


def test_a_failure_keeps_what_is_not_to_be_shown():
    """A failure's redacted words come through as well."""
    failure = Failure(Message(), "predict", "InvalidInput", "'secret'", 0.0, None, "a value")
    assert RecordCoder().decode(RecordCoder().encode(failure)).redacted == "a value"
