"""Which messages repeat one that came within ten minutes, by an attribute that their publisher gave them."""

from __future__ import annotations

import collections
import hashlib
import time

from transforms.dead_letter import ATTEMPT
from transforms.records import Message

#: Dataflow's own deduplication by attribute looks back ten minutes; the count bounds memory.
DEDUPLICATE_S = 600.0
DEDUPLICATE_IDS = 200_000


class Repeats:
    """What was seen lately under ``attribute``; None sees no repeat."""

    def __init__(self, attribute: str | None) -> None:
        self._attribute = attribute
        self._seen: collections.OrderedDict[bytes, float] = collections.OrderedDict()

    def has(self, message: Message) -> bool:
        """Whether ``message`` repeats another; it is remembered either way."""
        name = message.attributes.get(self._attribute) if self._attribute else None
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
