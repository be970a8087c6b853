"""The source's watermark: it follows the messages and the time after them, and no clock of this machine."""

from __future__ import annotations

import pytest

from pipeline.direct.watermark import BEGINNING, ON_THE_WAY_S, Watermark
from transforms.records import Message


class Clock:
    now = 5_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def message(event_time: float, publish_time: float | None = None) -> Message:
    return Message(b"", {}, "", event_time if publish_time is None else publish_time, event_time)


def test_no_watermark_passes_what_waits(clock):
    """It is the earliest of the messages received and not yet handed over, however long they wait."""
    mark = Watermark(clock)
    queue = [message(100), message(90), message(120)]
    mark.received(queue)
    clock.now += 3_600
    assert mark.of(queue) == 90
    assert mark.of([]) == pytest.approx(90 + 3_600 - ON_THE_WAY_S)


def test_in_an_idle_stream_time_goes_on(clock):
    """Before the first message it stands at the beginning; after one, it follows as time passes, and never falls."""
    mark = Watermark(clock)
    assert mark.of([]) < BEGINNING + 10
    mark.received([message(1_000)])
    assert mark.of([]) == 1_000
    clock.now += 60
    assert mark.of([]) == 1_060 - ON_THE_WAY_S


def test_an_outage_holds_it(clock):
    """While no stream can be opened it stands; what was published meanwhile is not late when it comes."""
    mark = Watermark(clock)
    mark.received([message(1_000)])
    clock.now += 10
    mark.broke()
    for _ in range(100):
        clock.now += 1
        mark.opened()
        assert mark.of([]) == 1_007
        mark.broke()
    mark.opened()
    backlog = [message(1_012)]
    mark.received(backlog)
    assert mark.of(backlog) == 1_012
    mark.broke()
    mark.opened()
    clock.now += 60
    assert mark.of([]) == 1_012, "the stream is back, and quiet"
    clock.now += 60
    assert mark.of([]) == 1_012 + 60 - ON_THE_WAY_S


def test_wrong_clocks_of_senders(clock):
    """A time in the future moves it no further than the publishing; one years ago among others does not hold it."""
    mark = Watermark(clock)
    mark.received([message(9e9, 1_000)])
    assert mark.of([]) == 1_000
    mark.received([message(1.0, 1_100), *(message(1_100 + n) for n in range(20))])
    assert mark.of([]) == 1_101
