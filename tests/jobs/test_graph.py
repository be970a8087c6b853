"""The graph in TestPipeline: golden cases through serve() with the real model, and windows under a TestStream."""

from __future__ import annotations

import dataclasses
import inspect
import json

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from fakes import FakeHandler
from streams import read_cases

from pipeline import graph
from transforms.audit_row import AuditContext, row
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Failure, Message, Result
from transforms.windowing import Windowing


def ending(record: Result | Failure) -> tuple:
    """What a case expects, of what came out."""
    if isinstance(record, Failure):
        return record.message.message_id, "dead_letter", record.stage, record.error_type, 0
    return record.prediction.request.message.message_id, "result", None, None, len(json.loads(record.prediction_json))


def test_golden_cases(minilm):
    """Every case of embeddings.ndjson ends as it says, through the real graph and the real model."""
    cases = read_cases("embeddings")
    messages = [dataclasses.replace(case["message"], message_id=case["name"]) for case in cases]
    expected = [
        (
            case["name"],
            case["expect"]["outcome"],
            case["expect"].get("stage"),
            case["expect"].get("error_type"),
            384 if case["expect"]["outcome"] == "result" else 0,
        )
        for case in cases
    ]
    with TestPipeline() as pipeline:
        outcome = graph.serve(pipeline | beam.Create(messages), HuggingFaceModelHandler(minilm, "feature-extraction"))
        endings = (outcome.results, outcome.failures) | beam.Flatten() | beam.Map(ending)
        assert_that(endings, equal_to(expected))


def test_twice_is_the_same(minilm):
    """The same message twice gives the same prediction: a repeat after a crash changes nothing."""
    message = Message(b'{"inputs": "Where is my parcel?"}', message_id="1")
    with TestPipeline() as pipeline:
        outcome = graph.serve(
            pipeline | beam.Create([message] * 2), HuggingFaceModelHandler(minilm, "feature-extraction")
        )
        distinct = (
            outcome.results
            | beam.Map(lambda each: each.prediction_json)
            | beam.Distinct()
            | beam.combiners.Count.Globally()
        )
        assert_that(distinct, equal_to([1]))


def at(time: float, text: str) -> TimestampedValue:
    message = Message(json.dumps({"inputs": text}).encode(), message_id=text, publish_time=time, event_time=time)
    return TimestampedValue(message, time)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("fixed:60", {"early": (0, 60), "edge": (60, 120), "late": (0, 60), "after": (180, 240)}),
        ("sliding:60:30", {"early": (0, 60), "edge": (60, 120), "late": (0, 60), "after": (180, 240)}),
        ("session:60", {"early": (10, 70), "edge": (60, 120), "late": (20, 80), "after": (200, 260)}),
        ("global", {"early": None, "edge": None, "late": None, "after": None}),
    ],
)
def test_no_window_splits_drops_or_repeats_a_message(window, expected):
    """With any --window, each message gives one result, late ones too, and its row names its window."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(10, "early"), at(60, "edge")])
        .advance_watermark_to(150)
        .add_elements([at(20, "late")])
        .advance_processing_time(60)
        .add_elements([at(200, "after")])
        .advance_watermark_to(300)
        .advance_watermark_to_infinity()
    )
    context = AuditContext(Windowing.parse(window), "job", "0")

    def bounds(result: Result) -> tuple:
        audit = row(result, context, 0.0)
        found = result.prediction.request.message
        assert (audit.window_start is None) == (window == "global")
        return found.message_id, context.windowing.bounds(found.event_time)

    with TestPipeline(options=PipelineOptions(streaming=True)) as pipeline:
        outcome = graph.serve(pipeline | stream, FakeHandler())
        assert_that(outcome.results | beam.Map(bounds), equal_to(list(expected.items())))
        assert_that(outcome.failures, equal_to([]), "none failed")


def test_results_do_not_wait_for_the_window():
    """A result leaves as soon as its batch is done, long before its window ends."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(1, "a")])
        .advance_processing_time(1)
        .add_elements([at(2, "b")])
        .advance_watermark_to(10)
        .advance_watermark_to_infinity()
    )
    with TestPipeline(options=PipelineOptions(streaming=True)) as pipeline:
        outcome = graph.serve(pipeline | stream, FakeHandler())
        batches = outcome.results | beam.Map(lambda each: (each.prediction.request.inputs, each.prediction.batch_size))
        assert_that(batches, equal_to([("a", 1), ("b", 1)]))


def test_parameters_and_path_reach_the_step():
    """serve() with an input path reads any JSON."""
    with TestPipeline() as pipeline:
        messages = pipeline | beam.Create([Message(b'{"ticket": {"text": "hi"}}', message_id="1")])
        outcome = graph.serve(messages, FakeHandler(), "ticket.text")
        lengths = outcome.results | beam.Map(lambda each: json.loads(each.data)["prediction"][0]["length"])
        assert_that(lengths, equal_to([2]))


def test_the_graph_fits_a_screen():
    """A reader finds the job's shape in a minute."""
    assert len(inspect.getsource(graph).splitlines()) <= 60
