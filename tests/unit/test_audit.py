"""Audit: the row of every message, and what becomes of rows that the table refuses."""

import dataclasses
import hashlib
import json
import threading

import apache_beam as beam
import pytest
from apache_beam.pvalue import TaggedOutput
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from fakes import INFO

from pipeline.clients import LIMITS
from transforms.audit import ROWS_A_REQUEST, Audit, _WriteFn
from transforms.audit_row import AuditContext, row, row_id, to_json
from transforms.barrier import failure
from transforms.encode import encode
from transforms.models.errors import InvalidInput, brief
from transforms.records import AUDIT_SCHEMA, Failure, Message, Prediction, Request
from transforms.windowing import Windowing

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


@pytest.mark.parametrize(("mode", "kept"), [("full", "[1]"), ("none", None)])
def test_audit_prediction_decides_what_is_kept(mode, kept):
    """The answer or nothing of it; all that says how it was come by stays."""
    context = dataclasses.replace(CONTEXT, audit_prediction=mode)
    found, whole = row(result(), context, 91.0), row(result(), CONTEXT, 91.0)
    assert found.prediction == kept and dataclasses.replace(found, prediction="[1]") == whole
    assert row_id(result(), context) == row_id(result(), CONTEXT)


@pytest.mark.parametrize(
    ("names", "kept"),
    [(None, {"user": "u", "a.b": "c"}), (frozenset(), {}), (frozenset({"a.b", "other"}), {"a.b": "c"})],
)
@pytest.mark.parametrize("failed", [False, True])
def test_audit_attributes_decides_which_are_kept(names, kept, failed):
    """All, none or those named, of results and dead letters alike."""
    context = dataclasses.replace(CONTEXT, audit_attributes=names)
    record = result(attributes={"user": "u", "a.b": "c"})
    if failed:
        record = Failure(message(attributes={"user": "u", "a.b": "c"}), "decode", "InvalidBody", "no", 1.0)
    assert json.loads(row(record, context, 91.0).attributes) == kept


@pytest.mark.parametrize("key", ["traceparent", "googclient_traceparent"])
def test_the_trace_id_is_carried(key):
    """A W3C traceparent, the client library's own included, shows in the row."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert row(result(attributes={key: f"00-{trace}-00f067aa0ba902b7-01"}), CONTEXT, 0.0).trace_id == trace


def test_a_repeat_has_the_same_identity():
    """The row id is made from the message and its outcome, so that the same after a crash is recognised."""
    assert row_id(result(), CONTEXT) == row_id(result(publish_time=5.0), CONTEXT)
    assert row_id(result(), CONTEXT).startswith("job/7/fake/")


def test_another_outcome_has_another_identity():
    """BigQuery drops a row whose id it has just seen: one that ended otherwise must have an id of its own."""
    ended = [
        result(),
        encode(Prediction(Request("x", {}, message()), [2], INFO), LIMITS),
        encode(Prediction(Request("x", {}, message()), [1], dataclasses.replace(INFO, revision="2")), LIMITS),
        Failure(message(), "predict", "ModelError", "no", 1.0, INFO),
        Failure(message(), "audit", "RowRejected", "no", 1.0, INFO),
        result(message_id="8"),
        result(message_id="\u00e4 " * 60),
    ]
    ids = [row_id(record, CONTEXT) for record in ended]
    assert len(set(ids)) == len(ids) and all(len(each) <= 128 and each.isascii() for each in ids)


def test_a_message_without_an_id_gets_one_from_its_content():
    """Two messages that no source gave an id have rows of their own, the same ones each time."""
    ids = {row(result(message_id="", data=data), CONTEXT, 1.0).message_id for data in (b"a", b"b", b"a")}
    assert len(ids) == 2 and all(each.startswith("content-") for each in ids)


@pytest.mark.parametrize(("audit_input", "shown"), [("full", True), ("hash", False), ("none", False)])
def test_a_row_quotes_the_input_only_if_it_may(audit_input, shown):
    """What an error quotes of the message is in its dead letter; the row has it only where it has the input."""
    error = InvalidInput(f"inputs={brief('my secret')}: must be a list")
    context = dataclasses.replace(CONTEXT, audit_input=audit_input)
    found = failure(error, message(), "predict")
    assert found.error == "inputs='my secret': must be a list"
    assert row(found, context, 1.0).error == (found.error if shown else "inputs=…: must be a list")


class Sink:
    """Refuses rows as it is told to: the whole ones of some messages, or what ``raises`` is raised on."""

    def __init__(self, *refused, bare_too=False, raises=None):
        self.refused, self.bare_too, self.raises = refused, bare_too, raises

    def insert(self, rows, row_ids):
        found = {n for n, each in enumerate(rows) if each["message_id"] in self.refused}
        found = {n for n in found if self.bare_too or rows[n]["attributes"] is not None}
        if found and self.raises is not None:
            raise self.raises
        return dict.fromkeys(found, "location: wrong")


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


def test_a_row_always_exists():
    """A table that takes not even a bare row is at fault itself: the bundle fails, and no message is without a row."""
    failure = Failure(message(), "decode", "InvalidBody", "no", 90.0)
    with pytest.raises(Exception, match="refuses a row with nothing of message 7"), TestPipeline() as pipeline:
        pipeline | beam.Create([failure]) | Audit(Sink("7", bare_too=True), CONTEXT)


@pytest.mark.parametrize("raises", [TypeError("Type is not JSON serializable"), RecursionError(), KeyError("secret")])
def test_what_nobody_foresaw_in_the_sink_costs_one_message(raises):
    """A sink that raises on one row among a hundred costs that message alone, and its text is in no row."""
    with TestPipeline() as pipeline:
        records = pipeline | beam.Create([result(message_id=str(n)) for n in range(100)])
        outcome = records | Audit(Sink("37", raises=raises), CONTEXT)
        passed = outcome.results | beam.combiners.Count.Globally()
        failed = outcome.failures | "Failed" >> beam.Map(
            lambda each: (each.message.message_id, each.stage, "secret" in each.error)
        )
        assert_that(passed, equal_to([99]), "passed")
        assert_that(failed, equal_to([("37", "audit", False)]), "failed")


@pytest.mark.parametrize("field", ["publish_time", "event_time"])
def test_a_record_that_has_no_row_of_its_own_gets_a_bare_one(field):
    """A result whose row cannot be made is a dead letter, and a dead letter gets a row without what was in the way."""
    impossible = {field: float("nan")}
    written = []

    class Kept(Sink):
        def insert(self, rows, row_ids):
            written.extend(rows)
            return {}

    broken = Failure(message(**impossible), "decode", "InvalidBody", "no", 90.0)
    step = _WriteFn(Kept(), CONTEXT)
    step.start_bundle()
    assert not [*step.process(result(message_id="8")), *step.process(broken)]
    outputs = [output.value for output in step.finish_bundle()]
    assert len(outputs) == 2 and outputs[1] == broken
    assert [each["message_id"] for each in written] == ["8", "7"] and written[1]["event_time"] is None


class _MeetingSink:
    """Takes rows once two requests are under way at once, and refuses the row of one message."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2)

    def insert(self, rows, row_ids):
        assert len(rows) == len(row_ids) == ROWS_A_REQUEST
        self.both.wait(60)
        return {i: "no" for i, each in enumerate(rows) if each["message_id"] == "700"}


def test_the_requests_of_a_bundle_go_side_by_side():
    """A bundle of two requests waits for one; which row was refused is told by its place in the bundle."""
    write = _WriteFn(_MeetingSink(), CONTEXT)
    write.start_bundle()
    records = [result(message_id=str(i)) for i in range(2 * ROWS_A_REQUEST)]
    assert not [output for record in records for output in write.process(record)]
    outputs = list(write.finish_bundle())
    assert len(outputs) == len(records)
    (refused,) = [i for i, output in enumerate(outputs) if isinstance(output, TaggedOutput)]
    assert refused == 700
