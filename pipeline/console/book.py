"""Book: what became of each message, as far as the topics told; bounded in messages and in bytes."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from typing import Any

from pipeline.console.story import Story, label_and_score, matcher
from transforms.dead_letter import PREFIX
from transforms.records import STAGES, Message

#: What is kept: the newest messages, as long as they fit.
STORIES = 20_000
BYTES = 128 << 20

#: Messages published and not yet ended that are counted as being on their way.
OPEN = 200_000

#: Columns of the score distribution, from 0 to 1.
_SCORE_BINS = 20


class Book:
    """Stories by message id; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stories: collections.OrderedDict[str, Story] = collections.OrderedDict()
        self._open: dict[str, float] = {}
        self._bytes = 0
        self._number = 0
        self.labels: collections.Counter[str] = collections.Counter()
        self.scores = [0] * _SCORE_BINS

    def published(self, message: Message) -> None:
        """A message arrived at the input topic."""
        with self._lock:
            story = self._story(message.message_id)
            self._put(story, input=message)
            if story.status is None:
                self._open[message.message_id] = message.publish_time
                if len(self._open) > OPEN:
                    del self._open[next(iter(self._open))]
            elif story.ended is not None:
                story.latency_ms = max(0.0, (story.ended - message.publish_time) * 1000)

    def result(self, message: Message) -> Story | None:
        """A result arrived; None where it tells of no message."""
        message_id = message.attributes.get("message_id")
        if not message_id:
            return None
        with self._lock:
            story = self._end(message_id, "ok", message)
            self._uncount(story)
            story.label, story.score = label_and_score(message.data)
            if story.label is not None:
                self.labels[story.label] += 1
            if story.score is not None:
                self.scores[min(_SCORE_BINS - 1, int(story.score * _SCORE_BINS))] += 1
            return story

    def dead_letter(self, message: Message) -> Story:
        """A dead letter arrived; one without room for notes is known by its own id."""
        notes = message.attributes
        with self._lock:
            story = self._end(notes.get(f"{PREFIX}message_id", message.message_id), "dead_letter", message)
            story.stage = notes.get(f"{PREFIX}stage", "unknown")
            story.error_type = notes.get(f"{PREFIX}error_type", "unknown")
            story.error = notes.get(f"{PREFIX}error", "")
            return story

    def replayed(self, message_id: str, new_id: str) -> None:
        """``message_id`` was published again, as ``new_id``."""
        with self._lock:
            self._story(new_id).replay_of = message_id
            if message_id in self._stories:
                self._stories[message_id].replayed_as = new_id

    def get(self, message_id: str) -> Story | None:
        with self._lock:
            return self._stories.get(message_id)

    def on_their_way(self) -> tuple[int, float | None]:
        """How many messages have been published and have not ended, and when the oldest was published."""
        with self._lock:
            return len(self._open), next(iter(self._open.values()), None)

    def newest(self, status: str, limit: int, after: int = 0, words: str = "") -> tuple[list[Story], int]:
        """Stories that ended as ``status`` since number ``after`` and fit ``words``, newest first; and how many fit.

        ``words`` are a message id, ``key=value`` of an attribute, or any text in the input, label or error.
        """
        fits = matcher(words)
        with self._lock:
            found: list[Story] = []
            count = 0
            for story in self._newest_first():
                if story.status is not None and story.number <= after:
                    break
                if story.status == status and fits(story):
                    count += 1
                    if len(found) < limit:
                        found.append(story)
            return found, count

    def groups(self) -> list[dict[str, Any]]:
        """Dead letters by stage and kind of error, the largest group first."""
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        with self._lock:
            for story in self._newest_first():
                if story.status != "dead_letter":
                    continue
                key = (story.stage or "", story.error_type or "")
                group = groups.setdefault(
                    key,
                    {
                        "stage": key[0],
                        "error_type": key[1],
                        "count": 0,
                        "waiting": 0,
                        "example": story.error,
                        "last": 0.0,
                    },
                )
                group["count"] += 1
                group["waiting"] += story.replayed_as is None
                group["last"] = max(group["last"], story.ended or 0.0)
        return sorted(groups.values(), key=lambda group: -group["count"])

    def in_group(self, stage: str, error_type: str) -> list[Story]:
        """The dead letters of one group, newest first."""
        with self._lock:
            return [
                story
                for story in self._newest_first()
                if story.status == "dead_letter" and (story.stage, story.error_type) == (stage, error_type)
            ]

    @property
    def number(self) -> int:
        """Number of the last story that ended."""
        return self._number

    def _newest_first(self) -> Iterator[Story]:
        return reversed(self._stories.values())

    def _story(self, message_id: str) -> Story:
        story = self._stories.get(message_id)
        if story is None:
            story = self._stories[message_id] = Story(message_id, 0)
            while len(self._stories) > STORIES or self._bytes > BYTES:
                self._forget(self._stories.popitem(last=False)[1])
        return story

    def _end(self, message_id: str, status: str, message: Message) -> Story:
        self._open.pop(message_id, None)
        story = self._story(message_id)
        self._number += 1
        story.status, story.number, story.ended = status, self._number, message.publish_time
        self._put(story, output=message)
        if story.input is not None:
            story.latency_ms = max(0.0, (message.publish_time - story.input.publish_time) * 1000)
        self._stories.move_to_end(message_id)
        return story

    def _put(self, story: Story, **messages: Message) -> None:
        self._bytes -= story.size()
        for name, message in messages.items():
            setattr(story, name, message)
        self._bytes += story.size()

    def _forget(self, story: Story) -> None:
        self._bytes -= story.size()
        self._uncount(story)

    def _uncount(self, story: Story) -> None:
        """Takes a story's answer out of the distributions: it is forgotten, or the same message ended again."""
        if story.label is not None:
            self.labels[story.label] -= 1
            if not self.labels[story.label]:
                del self.labels[story.label]
        if story.score is not None:
            self.scores[min(_SCORE_BINS - 1, int(story.score * _SCORE_BINS))] -= 1
        story.label = story.score = None


#: Stages as the flow shows them, one for messages without room for notes.
SHOWN_STAGES = (*STAGES, "unknown")
