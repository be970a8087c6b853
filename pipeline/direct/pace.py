"""How many messages a bundle has.

A large one keeps all of its messages until the last of them is answered, and a small one makes less of the model. So a
bundle is what keeps the model for about as long as it should; for longer where its first message has waited for longer
already, and where it is no more than a quarter of what waits: in a backlog, what a message waits for is the others.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence

from transforms.records import Message, Request

#: What a message weighs beside its bytes: a short one costs something too.
_OWN = 100

#: Messages of a bundle before anything was measured.
_FIRST = 16

#: The part of what waits that is taken at once.
_PART = 4


class Pace:
    """Learns what messages cost; ``target_s`` is how long a bundle keeps the model. Safe between threads."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._seconds: float | None = None  # for each unit of weight
        self._lock = threading.Lock()

    def of(self, messages: Iterable[Message], waiting: int, waited_s: float) -> int:
        """How many of ``messages``, of which ``waiting`` wait and the first has for ``waited_s``; one at the least."""
        least = max(1, waiting // _PART)
        with self._lock:
            seconds = self._seconds
        if seconds is None:
            return max(least, _FIRST)
        most = max(self._target_s, waited_s) / seconds
        together = itertools.accumulate(map(_weight, messages))
        return max(least, sum(1 for _ in itertools.takewhile(lambda weight: weight <= most, together)))

    def took(self, requests: Sequence[Request], seconds: float) -> None:
        """``requests`` together kept the model for so long."""
        weight = sum(_weight(request.message) for request in requests)
        if not weight:
            return
        with self._lock:
            self._seconds = seconds / weight if self._seconds is None else (self._seconds + seconds / weight) / 2


def _weight(message: Message) -> int:
    return _OWN + len(message.data)
