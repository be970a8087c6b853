"""The source's watermark: how far event time has come, as far as a subscription's reader can tell.

It follows the messages' own times and the time that passes after them, and never this machine's clock: a clock that is
wrong would make every message late, or hold every window open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from transforms.records import Message

#: How long a message may be on its way from its publisher through the service to here, in an idle stream.
ON_THE_WAY_S = 3.0

#: Before anything was received: Beam's earliest time, in seconds.
BEGINNING = -9_223_372_036_854.0


def mark_of(message: Message) -> float:
    """What ``message`` says of the time: its event time, unless that is later than when it was published."""
    return min(message.event_time, message.publish_time)


class Watermark:
    """To be told what the stream brings and when it breaks; ``clock`` counts seconds, from anywhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._reached = BEGINNING
        self._at = self._opened = clock()
        self._broken = False

    def received(self, messages: Iterable[Message]) -> None:
        """A response brought ``messages``."""
        marks = sorted(map(mark_of, messages))
        if marks:
            # Not the least: a single clock that is years behind must not hold every window open.
            self._reached, self._at, self._broken = marks[len(marks) // 10], self._clock(), False

    def opened(self) -> None:
        """A new stream was asked for."""
        self._opened = self._clock()

    def broke(self) -> None:
        """The stream ended by an error: what is published meanwhile comes only after the next one is open."""
        if not self._broken:
            self._reached, self._at, self._broken = self._idle(), self._clock(), True

    def of(self, queue: Iterable[Message]) -> float:
        """The watermark where ``queue`` is what was received and not yet handed over."""
        if self._broken and self._clock() - self._opened > ON_THE_WAY_S:
            self._at, self._broken = self._clock(), False
        idle = self._reached if self._broken else self._idle()
        return min([idle, *map(mark_of, queue)])

    def _idle(self) -> float:
        """While nothing comes, event time goes on as time does; so much is left for what is on its way."""
        return self._reached + max(0.0, self._clock() - self._at - ON_THE_WAY_S)
