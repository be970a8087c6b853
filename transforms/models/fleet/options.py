"""What a fleet is made from: hashable, and fit to travel with a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transforms.models.fleet.view import Reader
from transforms.models.token import TokenSource


@dataclass(frozen=True, slots=True)
class Options:
    """Where the models file is, how often it is asked for, and what its models have where it does not say.

    ``weights`` and ``endpoints`` are arguments of ``HuggingFaceModelHandler`` and ``EndpointModelHandler``; ``memory``
    bounds the models in memory, in bytes; ``launched`` is the file as it was at the launch, for a worker that starts
    while the file is not fit to be used.
    """

    source: str
    refresh_s: float = 60.0
    memory: int | None = None
    weights: tuple[tuple[str, Any], ...] = ()
    endpoints: tuple[tuple[str, Any], ...] = ()
    token: TokenSource | Callable[[], str | None] | None = None
    reader: Reader = Reader()
    launched: bytes | None = None

    def hub_token(self) -> str | None:
        """The hub token, read where it is needed."""
        return self.token() if self.token is not None else None
