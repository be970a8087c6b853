"""Observer: the watches of one job's topics, and the book and figures that they fill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pipeline.console.book import SHOWN_STAGES, Book
from pipeline.console.flow import Flow, read_metrics
from pipeline.console.settings import ConsoleSettings
from pipeline.console.watch import Watch
from transforms.records import Message


class Observer:
    """Watches what ``settings`` name, from ``start`` to ``close``."""

    def __init__(self, settings: ConsoleSettings):
        self.settings = settings
        self.book = Book()
        self.flow = Flow()
        self.watches: dict[str, Watch] = {}
        #: What the job does, as its last result says.
        self.task: str | None = None

    def start(self) -> None:
        s, own = self.settings, self.settings.own_subscriptions
        for name, receive, topic, subscription in (
            ("input", self._published, s.input_topic, None),
            ("output", self._results, s.output_topic, s.output_subscription),
            ("dead_letter", self._dead_letters, s.dead_letter_topic, s.dead_letter_subscription),
        ):
            if subscription or (topic and own):
                self.watches[name] = Watch(receive, topic, subscription)

    def close(self) -> None:
        for watch in self.watches.values():
            watch.close()

    def figures(self) -> dict[str, Any]:
        """Everything that the flow shows, as of now."""
        waiting, oldest = self.book.on_their_way()
        return {
            "now": time.time(),
            "since": self.flow.since,
            "published": self.flow.published,
            "results": self.flow.results,
            "dead_letters": {stage: self.flow.dead_letters.get(stage, 0) for stage in SHOWN_STAGES},
            "rates": self.flow.rates(),
            "latency": self.flow.latency(),
            "on_their_way": waiting if "input" in self.watches else None,
            "oldest_s": max(0.0, round(time.time() - oldest, 1)) if oldest else None,
            "task": self.task,
            "labels": dict(self.book.labels.most_common(30)),
            "scores": list(self.book.scores),
            "groups": self.book.groups(),
            "watches": {name: watch.error for name, watch in self.watches.items()},
            "metrics": read_metrics(self.settings.metrics_file),
        }

    def _published(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.book.published(message)
        self.flow.saw_published(len(messages))

    def _results(self, messages: Sequence[Message]) -> None:
        stories = [self.book.result(message) for message in messages]
        self.flow.saw_ended([story for story in stories if story is not None])
        self.task = next((m.attributes["task"] for m in reversed(messages) if "task" in m.attributes), self.task)

    def _dead_letters(self, messages: Sequence[Message]) -> None:
        self.flow.saw_ended([self.book.dead_letter(message) for message in messages])
