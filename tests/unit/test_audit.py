"""Audit: the row of every message, and what becomes of rows that the table refuses."""

import hashlib
import json

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from fakes import INFO

from pipeline.clients import LIMITS
from transforms.audit import Audit, AuditContext, row, row_id, to_json
from transforms.encode import encode
from transforms.records import AUDIT_SCHEMA, Failure, Message, Prediction, Request
from transforms.window import Windowing

CONTEXT = AuditContext(Windowing("fixed", 60.0), "job", "0.1.0")


def message(**fields) -> Message:
    return Message(**{"data": b"body", "message_id": "7", "publish_time": 90.0, "event_time": 61.0, **fields})


def result(**fields):
    return encode(Prediction(Request("x", {}, message(**fields)), [1], INFO, 3, False, 8, 2.5, 91.0), LIMITS)


def test_a_result_has_a_full_row():
    """Who, what, which model and revision, when and with what outcome."""
    found = to_json(row(result(attributes={"a": "b"}, ordering_key="k"), CONTEXT, 91.5))
    assert list(found) == [column["name"] for column in AUDIT_SCHEMA]
    expected = {
        "message_id": "7",
        "status": "ok",
        "stage": None,
        "event_time": "1970-01-01T00:01:01.000000Z",
        "window_start": "1970-01-01T00:01:00.000000Z",
        "window_end": "1970-01-01T00:02:00.000000Z",
        "model": "fake",
        "prediction": "[1]",
        "input_sha256": hashlib.sha256(b"body").hexdigest(),
        "input_bytes": 4,
        "input": None,
        "tokens": 3,
        "batch_size": 8,
        "inference_ms": 2.5,
        "total_ms": 1500.0,
        "ordering_key": "k",
        "job": "job",
        "pipeline_version": "0.1.0",
    }
    assert {key: found[key] for key in expected} == expected
    assert json.loads(found["attributes"]) == {"a": "b"}


def test_a_failure_has_a_row_too():
    """A dead letter's row says where and why."""
    found = row(Failure(message(), "decode", "InvalidBody", "the body is empty", 90.5), CONTEXT, 91.0)
    assert (found.status, found.stage, found.error_type, found.error) == (
        "dead_letter",
        "decode",
        "InvalidBody",
        "the body is empty",
    )
    assert found.model is None and found.prediction is None


@pytest.mark.parametrize(
    ("mode", "data", "sha", "text"),
    [
        ("none", b"x", False, None),
        ("hash", b"x", True, None),
        ("full", b"x", True, "x"),
        ("full", b"\xff", True, "/w=="),
    ],
)
def test_audit_input_decides_what_is_kept(mode, data, sha, text):
    """Nothing, the hash alone, or all of the input, in base64 where it is no text."""
    found = row(result(data=data), AuditContext(CONTEXT.windowing, "job", "0", mode), 91.0)
    assert (found.input_sha256 is not None, found.input) == (sha, text)


@pytest.mark.parametrize("key", ["traceparent", "googclient_traceparent"])
def test_the_trace_id_is_carried(key):
    """A W3C traceparent, the client library's own included, shows in the row."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert row(result(attributes={key: f"00-{trace}-00f067aa0ba902b7-01"}), CONTEXT, 0.0).trace_id == trace


def test_a_repeat_has_the_same_identity():
    """The row id is made from the message, so that the same message after a crash is recognised."""
    assert row_id(result(), CONTEXT) == row_id(result(data=b"other"), CONTEXT) == "job/7"


class Sink:
    """Refuses the rows of the messages that it is told to, unless they are bare."""

    def __init__(self, *refused):
        self.refused = refused

    def insert(self, rows, row_ids):
        return {n: "location: wrong" for n, each in enumerate(rows) if each["message_id"] in self.refused}


def test_a_refused_row_makes_a_dead_letter():
    """The message whose row is refused fails with stage audit; the others pass."""
    with TestPipeline() as pipeline:
        records = pipeline | beam.Create([result(message_id=str(n)) for n in range(3)])
        outcome = records | Audit(Sink("1"), CONTEXT)
        passed = outcome.results | "Ids" >> beam.Map(lambda each: each.prediction.request.message.message_id)
        failed = outcome.failures | "Failed" >> beam.Map(lambda each: (each.message.message_id, each.stage, each.error))
        assert_that(passed, equal_to(["0", "2"]), "passed")
        assert_that(failed, equal_to([("1", "audit", "location: wrong")]), "failed")


def test_a_dead_letter_passes_in_any_case():
    """A failure whose row is refused is still sent to the dead-letter topic."""
    failure = Failure(message(), "decode", "InvalidBody", "no", 90.0)
    with TestPipeline() as pipeline:
        outcome = pipeline | beam.Create([failure]) | Audit(Sink("7"), CONTEXT)
        assert_that(outcome.results, equal_to([failure]))
