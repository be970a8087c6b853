"""Event times as messages carry them: RFC 3339, or milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from transforms.encode import has_date

#: RFC 3339: a date and a time with an offset. A time without one is in nobody knows which zone, and not of that form.
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d{1,30}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_MILLISECONDS = re.compile(r"-?\d{1,18}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_timestamp(text: str, otherwise: float) -> float:
    """``text`` in RFC 3339 or milliseconds since the epoch, as seconds; ``otherwise`` where it is neither.

    What is finer than a microsecond is cut off; the second 60 of a leap second is the one after it.
    """
    if _MILLISECONDS.fullmatch(text):
        seconds = int(text) / 1000
    else:
        try:
            seconds = _seconds(text)
        except (ValueError, OverflowError):
            return otherwise
    return seconds if has_date(seconds) else otherwise


def _seconds(text: str) -> float:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("not RFC 3339")
    day, minute, second, fraction, sign, hours, minutes = found.groups()
    if int(second) > 60 or int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise ValueError("no time of day")
    start = datetime.fromisoformat(f"{day}T{minute}:00+00:00")
    offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return (start - _EPOCH).total_seconds() + int(second) - offset + int((fraction or "")[:6].ljust(6, "0")) / 1e6
