"""Batches across bundles, gathered under several keys a process.

A runner works on one bundle of a key at a time. Beam's ``BatchElements`` has one key a process, so a worker with one
process stands still while an endpoint is asked, or while the answers wait for what comes after. Here keys take turns:
one gathers until its batch is full or its time is up, then the next, so that batches are as large as under one key.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.transforms.util import _pardo_stateful_batch_elements

#: Keys a process: one in its forward, one that gathers, and two whose answers or endpoint are waited for.
KEYS = 4

_DURATION = "max_batch_duration_secs"


class Turns:
    """Which key gathers now, in one process. Safe to call from several threads."""

    def __init__(self, keys: int, most: int, seconds: float) -> None:
        process = uuid.uuid4().hex
        self.keys = [f"{process}-{number}" for number in range(keys)]
        self._most, self._seconds = most, seconds
        self._turn = self._count = 0
        self._since = float("-inf")
        self._lock = threading.Lock()

    def key(self, now: float) -> str:
        """The key of an element that comes at ``now``, in seconds of a clock that only goes forward."""
        with self._lock:
            if self._count >= self._most or now - self._since >= self._seconds:
                self._turn = (self._turn + 1) % len(self.keys)
                self._since, self._count = now, 0
            self._count += 1
            return self.keys[self._turn]


#: The steps of a process, one a thread, share their turns: with turns of their own, a batch would be spread over keys.
_turns = functools.cache(Turns)


class WithSharedKey(beam.DoFn):
    """Keys each element by whose turn it is; it has the name of Beam's own step, whose place it takes in an update."""

    def __init__(self, keys: int, most: int, seconds: float) -> None:
        self._shape = (keys, most, seconds)

    def setup(self) -> None:
        self._turns = _turns(*self._shape)

    def process(self, element: Any) -> Iterator[tuple[str, Any]]:
        yield self._turns.key(time.monotonic()), element


class _BatchElements(beam.BatchElements):
    """Beam's own gathering across bundles, with its state and timers, under other keys."""

    def __init__(self, kwargs: Mapping[str, Any]) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call] # Beam's
        self._shape = (KEYS, kwargs["max_batch_size"], kwargs[_DURATION])

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[list[Any]]:
        keyed = elements | beam.ParDo(WithSharedKey(*self._shape))
        # As in the base class, the coder included: it is part of what an update compares (see transforms/travel.py).
        coder = beam.coders.registry.get_coder(elements)
        batching = _pardo_stateful_batch_elements(coder, self._batch_size_estimator, self._max_batch_dur, self._clock)
        batches: beam.PCollection[list[Any]] = keyed | beam.ParDo(batching)
        return batches


class GatheredInference(RunInference[Any, Any]):
    """``RunInference`` over batches that form across bundles under :data:`KEYS` keys a process."""

    def __init__(self, handler: ModelHandler[Any, Any, Any]) -> None:
        super().__init__(handler.with_no_batching())
        self._gathering = handler.batch_elements_kwargs()

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[Any]:
        batches = elements | "BatchElements" >> _BatchElements(self._gathering)
        answers: beam.PCollection[Any] = super().expand(batches)
        return answers


def inference(handler: ModelHandler[Any, Any, Any]) -> RunInference[Any, Any]:
    """``RunInference`` with ``handler``: gathered across bundles where it says for how long."""
    return GatheredInference(handler) if _DURATION in handler.batch_elements_kwargs() else RunInference(handler)
