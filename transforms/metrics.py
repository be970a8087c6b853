"""Metrics of the whole job: how messages ended, how long they took, and how often a sink had to be asked again.

Counted in plain Python within a bundle and told to Beam once at its end: a metric's own update, looked up per element,
would cost more than many a step. docs/metrics.md describes every name; the model's own are in transforms/models/.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apache_beam.metrics import Metrics

from transforms import tracing
from transforms.barrier import unexpected_errors
from transforms.dead_letter import PREFIX, stage
from transforms.records import STAGES, Result

_LOGGER = logging.getLogger(__name__)
_NAMESPACE = "pipeline"

_RESULTS = Metrics.counter(_NAMESPACE, "results")
_DEAD_LETTERS = {name: Metrics.counter(_NAMESPACE, f"dead_letters_{name}") for name in (*STAGES, "unknown")}
_LATENCY_MS = Metrics.distribution(_NAMESPACE, "latency_ms")
_UNEXPECTED = Metrics.counter(_NAMESPACE, "unexpected_errors")
_RETRIES = {sink: Metrics.counter(_NAMESPACE, f"{sink}_retries") for sink in ("publish", "insert", "schema")}


#: Who is told, beside Beam, what a bundle published: latencies of results in milliseconds, dead letters by stage.
listeners: list[Callable[[Sequence[int], Mapping[str, int]], None]] = []


class Ended:
    """What a bundle published: tally it with :meth:`add`, and :meth:`tell` Beam at its end."""

    def __init__(self) -> None:
        self._latencies: list[int] = []
        self._stages: collections.Counter[str] = collections.Counter()

    def add(self, record: Any) -> None:
        """Counts one record published: a ``Result``, or the ``Message`` that is a dead letter."""
        if isinstance(record, Result):
            message = record.prediction.request.message
            now = time.time()
            self._latencies.append(int((now - message.publish_time) * 1000))
            if tracing.on():
                tracing.record(record.prediction, now)
        else:
            where = stage(record)
            self._stages[where if where in _DEAD_LETTERS else "unknown"] += 1
            if _LOGGER.isEnabledFor(logging.DEBUG):
                _LOGGER.debug("dead letter", extra=_about(record.attributes))

    def tell(self) -> None:
        """Updates Beam's metrics; to be called within the bundle."""
        for listener in listeners:
            listener(self._latencies, self._stages)
        if self._latencies:
            _RESULTS.inc(len(self._latencies))
            for latency in self._latencies:
                _LATENCY_MS.update(latency)
        for where, count in self._stages.items():
            _DEAD_LETTERS[where].inc(count)
        for where, count in list(unexpected_errors.items()):
            if count:
                unexpected_errors[where] -= count
                _UNEXPECTED.inc(count)
        for sink, count in list(_retried.items()):
            if count:
                _retried[sink] -= count
                _RETRIES[sink].inc(count)
        self._latencies, self._stages = [], collections.Counter()


def _about(attributes: Any) -> dict[str, Any]:
    """What a log line may say of a dead letter: where it failed and which message it was, and nothing that it held."""
    notes = {key: attributes.get(PREFIX + key) for key in ("message_id", "stage", "error_type")}
    return {**notes, "trace_id": tracing.trace_id(attributes)}


#: Requests asked again by threads that have no bundle of their own; told with the next bundle.
_retried: collections.Counter[str] = collections.Counter()


def retried(sink: str) -> None:
    """A request to ``sink`` (publish, insert or schema) failed and is tried again."""
    _retried[sink] += 1
