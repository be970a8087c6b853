"""Messages that a topic keeps, acknowledged or not, for whichever of its subscriptions seeks back to them.

https://cloud.google.com/pubsub/docs/topic-retention. Like retained acknowledged messages, they end with the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.emulators.pubsub.delivery import Message


class Retention:
    """What the topics keep, each as long as its own configuration says."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Message]] = {}

    def keep(self, topic: Any, messages: Iterable[Message]) -> None:
        """Keeps what was just published to ``topic``, a proto, if it keeps anything."""
        if not topic.HasField("message_retention_duration"):
            self._kept.pop(topic.name, None)
            return
        kept = self._kept.setdefault(topic.name, deque())
        kept.extend(messages)
        while kept and kept[0].published < kept[-1].published - topic.message_retention_duration.seconds:
            kept.popleft()

    def forget(self, topic: str) -> None:
        """The topic is gone."""
        self._kept.pop(topic, None)

    def since(self, topic: Any, moment: float, now: float) -> Iterator[Message]:
        """What ``topic`` has kept since ``moment``, at ``now`` (both in seconds since the epoch)."""
        first = max(moment, now - topic.message_retention_duration.seconds)
        return (message for message in self._kept.get(topic.name, ()) if message.published >= first)
