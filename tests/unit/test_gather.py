"""Batches across bundles: whose turn it is to gather, and that every element is in one batch."""

from __future__ import annotations

import threading

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from fakes import FakeHandler

from transforms.models.gather import KEYS, GatheredInference, Turns, inference
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Request


def test_a_key_gathers_until_its_time_is_up():
    """What comes within the time, from the first element on, shares a key; then the next has its turn, in a circle."""
    turns = Turns(3, 100, 1.0)
    times = [5.0, 5.25, 5.75, 6.0, 6.5, 7.0, 9.0]
    keys = [turns.key(now) for now in times]
    assert [keys.index(key) for key in keys] == [0, 0, 0, 3, 3, 5, 0]


def test_a_key_gathers_until_its_batch_is_full():
    """A batch that is full before its time ends gives the turn to the next key: a burst fills several at once."""
    turns = Turns(KEYS, 10, 60.0)
    keys = [turns.key(0.0) for _ in range(10 * KEYS)]
    assert all(len(set(keys[start : start + 10])) == 1 for start in range(0, len(keys), 10))
    assert len(set(keys)) == KEYS


def test_threads_share_a_turn():
    """Steps on several threads gather one batch together, and the keys of two processes are never the same."""
    turns, keys = Turns(KEYS, 800, 60.0), []
    threads = [threading.Thread(target=lambda: keys.extend(turns.key(0.0) for _ in range(100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 800 and len(set(keys)) == 1
    assert Turns(KEYS, 1, 1.0).key(0.0) not in keys


class Counting(FakeHandler):
    """Says for each element how many shared its batch."""

    def batch_elements_kwargs(self):
        return {"min_batch_size": 8, "max_batch_size": 8, "max_batch_duration_secs": 3600}

    def run_inference(self, batch, model, inference_args=None):
        return [(request.inputs, len(batch)) for request in batch]


def test_every_element_is_in_one_full_batch():
    """Eighty elements of eighty bundles come in ten batches of eight, each element once."""
    with TestPipeline() as pipeline:
        answers = pipeline | beam.Create([Request(n) for n in range(80)]) | beam.Reshuffle() | inference(Counting())
        assert_that(answers, equal_to([(n, 8) for n in range(80)]))


def test_only_what_gathers_across_bundles_is_keyed():
    """Without a time to gather for, Beam's own RunInference batches within a bundle."""
    across = HuggingFaceModelHandler("a/b", "fill-mask", max_batch_latency_ms=50)
    assert isinstance(inference(across), GatheredInference)
    assert type(inference(HuggingFaceModelHandler("a/b", "fill-mask"))) is RunInference
