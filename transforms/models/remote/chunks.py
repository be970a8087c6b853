"""Which inputs share a request: those of equal parameters, as many as the server takes, and as long as one may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from transforms.models.errors import ElementError
from transforms.models.inputs import Ask


def same_parameters(ask: Ask) -> str:
    """A text that two inputs have in common whose parameters are equal."""
    return "" if not ask.parameters else json.dumps(ask.parameters, sort_keys=True, default=repr)


def chunks(asks: Sequence[Ask], server: Any) -> list[list[int]]:
    """Indices of ``asks``, cut under ``server.rows`` and, where it has such a bound, ``server.most_bytes``.

    One that is longer than a request may be goes alone: the server says so, and nobody else is refused with it.
    """
    groups: dict[str, list[int]] = {}
    for index, ask in enumerate(asks):
        groups.setdefault(same_parameters(ask), []).append(index)
    return [chunk for own in groups.values() for chunk in _cut(own, asks, server)]


def _cut(indices: list[int], asks: Sequence[Ask], server: Any) -> list[list[int]]:
    if server.most_bytes is None:
        return [indices[start : start + server.rows] for start in range(0, len(indices), server.rows)]
    room = server.most_bytes - len(same_parameters(asks[indices[0]]))
    found: list[list[int]] = []
    used = 0
    for index in indices:
        size = _size(asks[index], server)
        if not found or used + size > room or len(found[-1]) >= server.rows:
            found.append([])
            used = 0
        found[-1].append(index)
        used += size
    return found


def _size(ask: Ask, server: Any) -> int:
    try:
        return int(server.size(ask))
    except ElementError:
        return 0  # parameters that this server has not; it is told when the request is made
