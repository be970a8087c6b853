"""Book: what became of each message, as far as the topics told; bounded in messages and in bytes."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.console.cases import Case, Cases
from pipeline.console.filters import matcher
from pipeline.console.spread import Spread
from pipeline.console.story import Story, label_and_score, reason
from pipeline.console.waiting import Waiting
from transforms.dead_letter import FIRST_ID, PREFIX
from transforms.records import STAGES, Message

#: What is kept: the newest messages, as long as they fit.
STORIES = 20_000
BYTES = 128 << 20

#: The newest messages that shares are counted in: an event needs them every second.
LOOKED_AT = 5_000
_Key = TypeVar("_Key")


class Book:
    """Stories by message id; safe to use from several threads."""

    def __init__(self, id_attribute: str | None = None) -> None:
        self._lock = threading.RLock()
        self._stories: collections.OrderedDict[str, Story] = collections.OrderedDict()
        self._waiting = Waiting(id_attribute)
        self._cases = Cases()
        self._bytes = 0
        self._number = 0
        #: Of the results kept, as are the models below.
        self.spread = Spread()
        #: Model, revision and variant of the results kept.
        self.models: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def know_repeats_by(self, id_attribute: str | None) -> None:
        """The job says by which attribute it knows a message again."""
        with self._lock:
            self._waiting.id_attribute = id_attribute

    def published(self, message: Message) -> bool:
        """A message arrived at the input topic; False where it was delivered before."""
        with self._lock:
            story = self._story(message.message_id)
            if story.input is not None:
                return False
            self._put(story, input=message)
            if story.status is None:
                self._waiting.published(message)
            elif story.ended is not None:
                story.latency_ms = max(0.0, (story.ended - message.publish_time) * 1000)
            return True

    def result(self, message: Message) -> Story | None:
        """A result arrived; None where it tells of no message, or was delivered before."""
        message_id = message.attributes.get("message_id")
        if not message_id or self._had(message_id, message):
            return None
        with self._lock:
            story = self._end(message_id, "ok", message)
            story.label, story.score = label_and_score(message.data)
            self._count(story, 1)
            if FIRST_ID in message.attributes:
                story.replay_of = story.replay_of or message.attributes[FIRST_ID]
            self._cases.ended_well(story)
            return story

    def dead_letter(self, message: Message) -> Story:
        """A dead letter arrived; one without room for notes is known by its own id."""
        notes = message.attributes
        with self._lock:
            story = self._end(notes.get(f"{PREFIX}message_id", message.message_id), "dead_letter", message)
            story.stage = notes.get(f"{PREFIX}stage", "unknown")
            story.error_type = notes.get(f"{PREFIX}error_type", "unknown")
            story.error = notes.get(f"{PREFIX}error", "")
            story.reason = reason(story.error)
            if story.root() != story.message_id:
                story.replay_of = story.replay_of or story.root()
            self._cases.failed(story)
            return story

    def replayed(self, message_id: str, new_id: str, edited: bool = False) -> None:
        """``message_id`` was published again, as ``new_id``."""
        with self._lock:
            new = self._story(new_id)
            new.replay_of, new.edited = message_id, edited
            story = self._stories.get(message_id)
            if story is not None:
                story.replayed_as = new_id
                self._cases.replayed(story, new_id, time.time(), edited)

    def dismiss(self, roots: Iterable[str], why: str) -> int:
        with self._lock:
            return self._cases.dismiss(roots, why, time.time())

    def get(self, message_id: str) -> Story | None:
        with self._lock:
            return self._stories.get(message_id)

    def case(self, story: Story) -> Case | None:
        """The case that a dead letter, or a replay's result, belongs to."""
        with self._lock:
            return self._cases.get(story.root())

    def on_their_way(self) -> tuple[int, float | None, int]:
        """How many messages wait, when the oldest was published, and how many were repeats that the job drops."""
        with self._lock:
            return self._waiting.count(), self._waiting.oldest(), self._waiting.repeats

    def newest(
        self, status: str, limit: int, after: int = 0, words: str = "", spread: Spread | None = None
    ) -> tuple[list[Story], int]:
        """Stories that ended as ``status`` since number ``after`` and fit the filter, newest first; and how many fit.

        All that fit are counted into ``spread``, where one is given.

        Raises:
            Refused: the filter is none.
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
                    if spread is not None:
                        spread.count(story.label, story.score)
            return found, count

    def arrived(self, limit: int, fits: Callable[[Story], bool]) -> list[Story]:
        """The messages published last, newest first, whatever became of them."""
        with self._lock:
            stories = [story for story in self._stories.values() if story.input is not None and fits(story)]
        return sorted(stories, key=lambda s: -(s.input.publish_time if s.input else 0.0))[:limit]

    def cases(self, fits: Callable[[Story], bool], until: int | None = None) -> tuple[list[Case], list[dict[str, Any]]]:
        """The cases that fit, newest first, and their groups; see :meth:`Cases.find`."""
        with self._lock:
            found = self._cases.find(fits, until)
            return found, self._cases.groups(found)

    def variants(self, since: float) -> dict[str, int]:
        """How many of the newest results, published from ``since`` on, each of the job's models answered."""
        found: collections.Counter[str] = collections.Counter()
        with self._lock:
            for story in itertools.islice(self._newest_first(), LOOKED_AT):
                if story.ended is None:
                    continue
                if story.ended < since:
                    break
                _add(found, story.note("variant"), 1)
        return dict(found)

    def case_counts(self) -> dict[str, int]:
        """How many cases there are in each state, and under ``number`` how many there have been."""
        with self._lock:
            return {**self._cases.counts(), "number": self._cases.number}

    @property
    def number(self) -> int:
        """Number of the last story that ended."""
        return self._number

    def _had(self, message_id: str, message: Message) -> bool:
        """Whether this very message was delivered before, as it is where its acknowledgement was lost."""
        story = self.get(message_id)
        return bool(story and story.output and message.message_id and story.output.message_id == message.message_id)

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
        self._waiting.ended(message, message_id)
        story = self._story(message_id)
        self._uncount(story)
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
        self._cases.forget(story)

    def _count(self, story: Story, by: int) -> None:
        """Adds a story's answer to the distributions, or takes it out."""
        model = story.note("model")
        self.spread.count(story.label, story.score, by)
        _add(
            self.models, (model, story.note("model_revision") or "", story.note("variant") or "") if model else None, by
        )

    def _uncount(self, story: Story) -> None:
        """A story is forgotten, or the same message ended again."""
        self._count(story, -1)
        story.label = story.score = None


def _add(counter: collections.Counter[_Key], key: _Key | None, by: int) -> None:
    if key is None:
        return
    counter[key] += by
    if not counter[key]:
        del counter[key]


#: Stages as the flow shows them, one for messages without room for notes.
SHOWN_STAGES = (*STAGES, "unknown")
