"""What ``window`` says: which windows of event time there are, and which one a message's audit row names."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from apache_beam.transforms import window
from apache_beam.utils.timestamp import Duration

from transforms.encode import FIRST_SECOND, LAST_SECOND

_KINDS = {"fixed": 1, "sliding": 2, "session": 1, "global": 0}
_USE = "use fixed:SECONDS, sliding:SIZE:PERIOD, session:GAP or global"
#: ASCII alone, where float() reads other digits, underscores and blanks too.
_NUMBER = r"[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?|nan|inf)"
#: Timestamps hold microseconds, so that shorter windows would have no length; ten years leave every window of these
#: days inside the calendar of timestamp columns, which ends with the year 9999.
_LEAST_S, _MOST_S = 0.001, 10 * 366 * 86_400


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
        if not all(re.fullmatch(_NUMBER, number, re.ASCII | re.IGNORECASE) for number in numbers):
            raise ValueError(f"{':'.join(numbers)!r} is not in seconds; {_USE}")
        seconds = [float(number) for number in numbers]
        if not all(_LEAST_S <= number <= _MOST_S for number in seconds):
            raise ValueError(f"seconds must be positive, from {_LEAST_S} to {_MOST_S} (ten years); {_USE}")
        if kind == "sliding" and seconds[1] > seconds[0]:
            raise ValueError(f"period {numbers[1]} is longer than size {numbers[0]}, which leaves gaps; {_USE}")
        return cls(kind, *seconds)

    def beam(self) -> window.WindowFn:
        """Beam's own windows of this kind."""
        match self.kind:
            case "fixed":
                return window.FixedWindows(self.size)
            case "sliding":
                return window.SlidingWindows(self.size, self.period)
            case "session":
                return window.Sessions(self.size)
        return window.GlobalWindows()

    def cell(self, micros: int) -> tuple[int, ...]:
        """What all event times have in common that Beam puts into the same fixed or sliding windows."""
        size, period = _micros(self.size), _micros(self.period)
        return (micros // period, (micros - size) // period) if period else (micros // size,)

    def bounds(self, event_time: float) -> tuple[float, float] | None:
        """Start and end of the window of ``event_time``, or None for ``global``.

        Of sliding windows, the one that starts last; of a session, the message's own gap, before any merging. Where a
        window reaches beyond the years 1 to 9999, its bound is the first or the last second of those.
        """
        if self.kind == "global":
            return None
        if self.kind == "session":
            return clamp(event_time), clamp(event_time + self.size)
        start = event_time - event_time % (self.period or self.size)
        return clamp(start), clamp(start + self.size)


@functools.lru_cache(maxsize=64)
def _micros(seconds: float) -> int:
    """``seconds`` as Beam rounds them, which is asked for every message."""
    return int(Duration.of(seconds).micros)


def clamp(seconds: float) -> float:
    """``seconds`` since the epoch, or the end of the calendar of timestamp columns that is nearest."""
    return min(max(seconds, FIRST_SECOND), LAST_SECOND)
