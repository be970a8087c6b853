"""How many messages a bundle has: by what they cost, by how long they have waited, by how many wait."""

from __future__ import annotations

from pipeline.direct.pace import Pace
from transforms.records import Message, Request

SHORT, LONG = Message(b"x" * 100), Message(b"x" * 900)


def paced(message: Message, count: int, seconds: float) -> Pace:
    """One of 100 ms, told what ``count`` such messages took."""
    pace = Pace(0.1)
    pace.took([Request("", {}, message)] * count, seconds)
    return pace


def test_a_bundle_is_taken_by_what_it_costs() -> None:
    """With 10 ms for a short message ten are taken in 100 ms, two of those five times as long, and never none."""
    pace = paced(SHORT, 16, 0.16)
    assert pace.of([SHORT] * 20, 20, 0) == 10
    assert pace.of([LONG, LONG, LONG], 3, 0) == 2
    assert paced(LONG, 1, 1000).of([LONG], 1, 0) == 1
    assert Pace(0.1).of([SHORT] * 20, 20, 0) == 16  # nothing is known yet


def test_in_a_backlog_bundles_are_large() -> None:
    """Where the first has waited for a second, a second's worth is taken; of a thousand that wait, a quarter."""
    pace = paced(SHORT, 16, 0.16)
    assert pace.of([SHORT] * 200, 200, 1.0) == 100
    assert pace.of([SHORT] * 1000, 1000, 0) == 250


def test_it_learns() -> None:
    """What became slower is taken in smaller bundles, and a batch of nothing says nothing."""
    pace = paced(SHORT, 16, 0.16)
    pace.took([], 5)
    for _ in range(20):
        pace.took([Request("", {}, SHORT)] * 10, 0.5)
    assert pace.of([SHORT] * 4, 4, 0) == 2
