"""A message and its way to a client: what is shared, what is leased, and what keeps its order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple


class Message(NamedTuple):
    """A published message, shared by all its subscriptions. ``data`` is the serialized PubsubMessage."""

    seq: int
    data: bytes
    ordering_key: str
    published: float


@dataclass(slots=True, eq=False)
class Flow:
    """What one streaming pull may have outstanding, and what it has; 0 is no limit."""

    max_messages: int = 0
    max_bytes: int = 0
    messages: int = 0
    size: int = 0

    @property
    def room(self) -> float:
        """Messages it may be given now."""
        if self.max_bytes and self.size >= self.max_bytes:
            return 0
        return self.max_messages - self.messages if self.max_messages else inf

    @property
    def bytes_room(self) -> float:
        """Bytes it may be given now; the last message to go may exceed them."""
        return self.max_bytes - self.size if self.max_bytes else inf


@dataclass(slots=True, eq=False)
class Lane:
    """The messages of one ordering key: ``queue`` waits until all of ``out`` is acknowledged."""

    key: str
    queue: deque[Delivery] = field(default_factory=deque)
    out: dict[int, Delivery] = field(default_factory=dict)
    due: float = 0.0


@dataclass(slots=True, eq=False)
class Delivery:
    """A message on its way: ``attempt`` counts deliveries, ``until`` ends its lease or its back-off."""

    message: Message
    attempt: int = 0
    until: float = 0.0
    flow: Flow | None = None
    lane: Lane | None = None
    acked: bool = False
