"""Pages of a listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.emulators.pubsub.errors import InvalidArgument


def page(names: Iterable[str], request: Any, prefix: str) -> tuple[list[str], str]:
    """One page of the sorted ``names`` that begin with ``prefix``, and the token of the next; a token is a name.

    Raises:
        InvalidArgument: the page has a negative size, or its token is none of this listing.
    """
    if request.page_size < 0 or not request.page_token.startswith(prefix if request.page_token else ""):
        argument = "page_size" if request.page_size < 0 else "page_token"
        raise InvalidArgument(f"You have passed an invalid argument to the service (argument={argument}).")
    found = sorted(name for name in names if name.startswith(prefix) and name > request.page_token)
    size = request.page_size if 0 < request.page_size < 1000 else 1000
    return found[:size], found[size - 1] if len(found) > size else ""
