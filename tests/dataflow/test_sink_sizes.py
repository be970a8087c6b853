"""Dataflow's sink at its limits: Beam's own serialising takes what it is given; what is larger arrives another way."""

from __future__ import annotations

from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import WriteToPubSub
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from streams import fresh, pull

from pipeline import clients, publish
from transforms.dead_letter import Source, dead_letter
from transforms.encode import encode
from transforms.records import Failure, Message, ModelInfo, Prediction, Request

SOURCE = Source("j" * 1024, "projects/my-project/subscriptions/" + "s" * 200)
MODEL = ModelInfo("feature-extraction", "m" * 200, "c" * 40, "cpu", "float32")


def filled(data: int, attributes: int) -> Message:
    """A message of ``data`` bytes with the longest attributes that there can be, in letters of two bytes."""
    return Message(b"x" * data, {f"{n:03}".ljust(256, "k"): "é" * 512 for n in range(attributes)}, "17", 1.0, 1.0)


def letter(data: int, attributes: int) -> Message:
    return dead_letter(
        Failure(filled(data, attributes), "predict", "Unexpected", "é" * 2000, 1.0, MODEL), clients.LIMITS, SOURCE
    )


def result(characters: int, attributes: int) -> publish.Result:
    return encode(Prediction(Request("", {}, filled(1, attributes)), "é" * characters, MODEL), clients.LIMITS)


def parted(records: list, topic: str) -> list[int]:
    """Indices of the records that go to Beam's sink, serialised as it does; the others are published on the way."""
    step = publish._OutgoingFn(topic)
    given = []
    for index, record in enumerate(records):
        for message in step.process(record):
            assert WriteToPubSub.message_to_proto_str(message), "raises where Beam's own sink would fail the bundle"
            given.append(index)
    return given


@pytest.mark.parametrize("attributes", [0, 1, 50, 99])
def test_the_sink_takes_what_it_is_given(servers, attributes):
    """Results and dead letters around every limit: Beam serialises what is small, the rest is published whole."""
    resources = fresh("sizes")
    records = [letter(size, attributes) for size in (0, 6_300_000, clients.NATIVE_BYTES, 9_500_000)]
    records += [letter(10_000_000 - 1, 0), letter(0, 100)]
    records += [result(count, min(attributes, 90)) for count in (1, 3_000_000, 3_250_000, 4_600_000)]
    given = parted(records, resources.output_topic)
    large = [index for index, record in enumerate(records) if len(record.data) > clients.NATIVE_BYTES]
    assert large and not set(large) & set(given)
    others = [record for index, record in enumerate(records) if index not in given]
    arrived = pull(resources.output_subscription, len(others), 60)
    assert sorted(len(each.data) for each in arrived) == sorted(len(each.data) for each in others)
    assert {each.data for each in arrived} == {each.data for each in others}


def test_each_ends_once_in_the_pipeline(servers):
    """In the step itself: of a small and a large record one is handed on, one published, neither twice."""
    resources = fresh("sizes")
    records = [letter(10, 3), letter(9_000_000, 3)]
    with TestPipeline() as pipeline:
        handed = pipeline | beam.Create(records) | beam.ParDo(publish._OutgoingFn(resources.output_topic))
        assert_that(handed | beam.Map(lambda message: len(message.data)), equal_to([10]))
    assert [len(each.data) for each in pull(resources.output_subscription, 1, 60)] == [9_000_000]


def test_attributes_alone_can_be_too_much(servers):
    """A body that fits with attributes that do not is published as well: the sink counts both."""
    resources = fresh("sizes")
    heavy = replace(letter(0, 90), data=b"x" * (clients.NATIVE_BYTES - 1000))
    assert parted([heavy], resources.output_topic) == []
    assert len(pull(resources.output_subscription, 1, 60)) == 1
