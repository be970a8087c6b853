"""Where a message's time went: waiting, batch, forward and sink, which add up to its row's ``total_ms``.

A sink that is slow holds the message behind it, whose own row cannot yet say so, and then the next bundle, which it is
told of: that part of its waiting counts as the sink's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from transforms.records import Message, Prediction

_lock = threading.Lock()
_held_s = 0.0


def worker() -> str:
    """This process, among all that read the same subscription: its host and its id."""
    return _named(os.getpid())


@functools.cache
def _named(pid: int) -> str:
    return f"{socket.gethostname()}-{pid}"


@contextlib.contextmanager
def sink() -> Iterator[None]:
    """Counts the block's time as one in which a sink holds the work."""
    global _held_s
    started = time.monotonic()
    try:
        yield
    finally:
        with _lock:
            _held_s += time.monotonic() - started


def begin(bundle: Sequence[Message]) -> None:
    """Notes in its messages that ``bundle`` is begun with, and how long sinks held the one before.

    In place: whoever looked ahead knows a message by its identity.
    """
    global _held_s
    if not bundle:
        return
    with _lock:
        held, _held_s = _held_s, 0.0
    now = time.time()
    for message in bundle:
        object.__setattr__(message, "taken", now)
        object.__setattr__(message, "held", min(held, max(0.0, now - message.publish_time)))


def waiting_ms(message: Message) -> float | None:
    """From publishing to its begin, less what sinks held it up; None where it was not noted."""
    return _ms(message.taken - message.publish_time - message.held) if message.taken else None


def batch_ms(prediction: Prediction) -> float | None:
    """From its begin to its answer, less the forward: gathering, preparing, and the forwards of its neighbours."""
    taken = prediction.request.message.taken
    return _ms(prediction.time - taken - prediction.inference_ms / 1000) if taken else None


def sink_ms(prediction: Prediction, now: float) -> float | None:
    """What sinks held it up before its begin, and what passed between its answer and its row, written ``now``."""
    message = prediction.request.message
    return _ms(message.held + now - max(prediction.time, message.taken)) if message.taken else None


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
