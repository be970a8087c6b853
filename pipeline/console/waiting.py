"""Waiting: which messages were published and have not ended, counted as the job counts them."""

from __future__ import annotations

import collections

from transforms.dead_letter import ATTEMPT, PREFIX
from transforms.records import Message

#: Messages that are counted as being on their way, and those remembered as having ended.
OPEN = 200_000
#: How long the job, and Dataflow, know an identifier again (``--id_attribute``).
REPEAT_S = 600.0


class Waiting:
    """Messages on their way. With an ``id_attribute``, those that the job drops as repeats of another are not.

    Whichever of two the job takes, its result or dead letter has the same identifier: then none of them waits.
    """

    def __init__(self, id_attribute: str | None = None) -> None:
        self.id_attribute = id_attribute
        self.repeats = 0
        self._open: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._seen: collections.OrderedDict[str, float] = collections.OrderedDict()

    def published(self, message: Message) -> None:
        """A message arrived at the input topic that has not been seen to end."""
        key, at = self._key(message, message.message_id), message.publish_time
        self._forget(at)
        if key in self._open or key in self._seen:
            self.repeats += 1
            return
        self._open[key] = at
        if self.id_attribute:
            self._seen[key] = at
        if len(self._open) > OPEN:
            self._open.popitem(last=False)

    def ended(self, message: Message, message_id: str) -> None:
        """A result or dead letter of ``message_id`` arrived, which has the message's own attributes."""
        key = self._key(message, message_id)
        self._open.pop(key, None)
        self._open.pop(message_id, None)
        if self.id_attribute:
            self._seen.setdefault(key, message.publish_time)

    def count(self) -> int:
        return len(self._open)

    def oldest(self) -> float | None:
        """When the oldest of them was published."""
        return next(iter(self._open.values()), None)

    def _key(self, message: Message, message_id: str) -> str:
        value = message.attributes.get(self.id_attribute) if self.id_attribute else None
        # As the job counts: a replayed dead letter is no repeat of the message that failed. A dead letter's own count
        # includes the failure that it tells of.
        if value is None:
            return message_id
        attempt = message.attributes.get(ATTEMPT, "")
        if f"{PREFIX}stage" in message.attributes:
            attempt = "" if attempt in ("", "1") else str(int(attempt) - 1) if attempt.isdecimal() else attempt
        return f"{attempt}/{value}"

    def _forget(self, now: float) -> None:
        while self._seen and (len(self._seen) > OPEN or next(iter(self._seen.values())) < now - REPEAT_S):
            self._seen.popitem(last=False)
