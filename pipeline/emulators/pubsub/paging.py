"""Pages of a listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def page(names: Iterable[str], request: Any, prefix: str) -> tuple[list[str], str]:
    """One page of the sorted ``names`` that begin with ``prefix``, and the token of the next; a token is a name."""
    found = sorted(name for name in names if name.startswith(prefix) and name > request.page_token)
    size = request.page_size if 0 < request.page_size < 1000 else 1000
    return found[:size], found[size - 1] if len(found) > size else ""
