"""Messages that were here before by an attribute of their sender's, as Dataflow's own deduplication tells them."""

from __future__ import annotations

import collections
import hashlib
import time

from transforms.dead_letter import ATTEMPT
from transforms.records import Message

#: Dataflow's own looks back ten minutes; the count bounds memory.
DEDUPLICATE_S = 600.0
DEDUPLICATE_IDS = 200_000


class Repeats:
    """What was seen, by the attribute ``name``; without a name nothing is a repeat."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._seen: collections.OrderedDict[bytes, float] = collections.OrderedDict()

    def has(self, message: Message) -> bool:
        """Whether another of its name was seen lately; it is seen from now on."""
        name = message.attributes.get(self._name) if self._name else None
        if not name:  # an empty one identifies nothing
            return False
        now = time.monotonic()
        while self._seen and (
            len(self._seen) > DEDUPLICATE_IDS or next(iter(self._seen.values())) < now - DEDUPLICATE_S
        ):
            self._seen.popitem(last=False)
        # A replayed dead letter is no repeat of the message that failed.
        key = hashlib.blake2b(f"{message.attributes.get(ATTEMPT, '')}/{name}".encode(), digest_size=16).digest()
        repeat = key in self._seen
        self._seen.setdefault(key, now)
        return repeat
