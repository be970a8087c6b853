"""Event-time windows: which one a message belongs to.

Windows never split a batch or drop a late message: inference runs in the global window, and the window of an element
is a function of its event time, recorded in its audit row. (In Beam's own windows, sliding ones would predict each
message several times, sessions would batch one message at a time, and late messages would be dropped.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from transforms.encode import FIRST_SECOND, LAST_SECOND

_KINDS = {"fixed": 1, "sliding": 2, "session": 1, "global": 0}
#: Shortest and longest window, in seconds: an instant that a timestamp column can hold, and a century.
_SHORTEST_S, _LONGEST_S = 0.001, 36_525 * 86_400.0

_USE = "use fixed:SECONDS, sliding:SIZE:PERIOD, session:GAP or global"


@dataclass(frozen=True, slots=True)
class Windowing:
    """A windowing of event time; ``size`` and ``period`` in seconds."""

    kind: str
    size: float = 0.0
    period: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Windowing:
        """Reads ``fixed:60``, ``sliding:60:30``, ``session:60`` or ``global``.

        Raises:
            ValueError: naming what is wrong with ``text``.
        """
        kind, *numbers = text.split(":")
        if kind not in _KINDS:
            raise ValueError(f"unknown kind {kind!r}; {_USE}")
        if len(numbers) != _KINDS[kind]:
            raise ValueError(f"{kind} takes {_KINDS[kind]} number(s), not {len(numbers)}; {_USE}")
        try:
            seconds = [float(number) for number in numbers]
        except ValueError:
            raise ValueError(f"{':'.join(numbers)!r} is not in seconds; {_USE}") from None
        if not all(0 < number < math.inf for number in seconds):
            raise ValueError(f"seconds must be positive; {_USE}")
        for number, written in zip(seconds, numbers, strict=True):
            if not _SHORTEST_S <= number <= _LONGEST_S:
                raise ValueError(
                    f"{written} seconds are not from {_SHORTEST_S:g} to {_LONGEST_S:,.0f} (a hundred years); {_USE}"
                )
        if kind == "sliding" and seconds[1] > seconds[0]:
            raise ValueError(f"period {numbers[1]} is longer than size {numbers[0]}, which leaves gaps; {_USE}")
        return cls(kind, *seconds)

    def bounds(self, event_time: float) -> tuple[float, float] | None:
        """Start and end of the window of ``event_time``, or None for ``global``.

        Of sliding windows, the one that starts last; of a session, the message's own gap, before any merging. Where a
        window reaches beyond the years 1 to 9999, its bound is the first or the last second of those.
        """
        if self.kind == "global":
            return None
        if self.kind == "session":
            return _clamp(event_time), _clamp(event_time + self.size)
        start = event_time - event_time % (self.period or self.size)
        return _clamp(start), _clamp(start + self.size)


def _clamp(seconds: float) -> float:
    return min(max(seconds, FIRST_SECOND), LAST_SECOND)
