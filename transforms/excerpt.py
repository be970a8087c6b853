"""Where a value is found in the bytes that it was read from, so that a record need not carry both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

#: ``("whole", value)``, or the kind of the excerpt, its first byte, and the one after its last.
Place = tuple[str, Any] | tuple[str, int, int]

#: What is shorter costs less than a search for it.
_LEAST = 48


def find(value: Any, data: bytes) -> Place:
    """Where ``data`` spells ``value`` out: as bytes, as text, or as JSON. ``value`` itself where it does not.

    What :func:`read` makes of the place is always equal to ``value``, wherever in ``data`` it was found.
    """
    for kind, spelling in _spellings(value):
        start = data.find(spelling) if len(spelling) >= _LEAST else -1
        if start >= 0:
            return kind, start, start + len(spelling)
    return "whole", value


def read(place: Place, data: bytes) -> Any:
    """The value that :func:`find` found at ``place`` of ``data``."""
    if len(place) == 2:
        return place[1]
    kind, start, stop = place
    part = data[start:stop]
    return part if kind == "bytes" else part.decode() if kind == "text" else orjson.loads(part)


def _spellings(value: Any) -> Iterator[tuple[str, bytes]]:
    """The ways in which a body may spell ``value``, the likeliest first."""
    if isinstance(value, bytes):
        yield "bytes", value
    if not isinstance(value, str | list | dict):
        return
    try:
        if isinstance(value, str):
            yield "text", value.encode()
        compact = orjson.dumps(value)
        # Not everything that can be written is read as it was: NaN, numbers of over 64 bits, what is no JSON at all.
        if orjson.loads(compact) != value:
            return
    except (TypeError, ValueError):
        return
    yield "json", compact
    yield "json", json.dumps(value).encode()
    yield "json", json.dumps(value, ensure_ascii=False).encode()
