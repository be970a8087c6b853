"""Observer: the watches of one job's topics, and the book and figures that they fill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pipeline.console.book import SHOWN_STAGES, Book
from pipeline.console.flow import Flow, read_metrics
from pipeline.console.settings import ConsoleSettings
from pipeline.console.vitals import job
from pipeline.console.watch import FIRST_S, Watch
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)
_Taken = TypeVar("_Taken")


class Observer:
    """Watches what ``settings`` name, from ``start`` to ``close``."""

    def __init__(self, settings: ConsoleSettings):
        self.settings = settings
        self.book = Book(settings.id_attribute)
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
        patience = time.monotonic() + FIRST_S
        for watch in self.watches.values():
            watch.ready.wait(max(0.0, patience - time.monotonic()))

    def close(self) -> None:
        """Ends all watches at once, so that a Pub/Sub that does not answer is waited for once."""
        for watch in self.watches.values():
            watch.stop()
        for watch in self.watches.values():
            watch.close()

    def figures(self) -> dict[str, Any]:
        """Everything that the flow shows, as of now."""
        now, metrics = time.time(), read_metrics(self.settings.metrics_file)
        if metrics and self.settings.id_attribute is None:
            self.book.know_repeats_by((metrics.get("job") or {}).get("id_attribute"))
        waiting, oldest, repeats = self.book.on_their_way()
        known = "input" in self.watches
        return {
            "now": now,
            "since": self.flow.since,
            "published": self.flow.published,
            "repeats": repeats,
            "results": self.flow.results,
            "dead_letters": {stage: self.flow.dead_letters.get(stage, 0) for stage in SHOWN_STAGES},
            "rates": self.flow.rates(),
            "latency": self.flow.latency(),
            "on_their_way": waiting if known else None,
            "oldest_s": None if oldest is None else max(0.0, round(now - oldest, 1)),
            "task": self.task,
            **self.book.spread.told(),
            "models": [[*names, count] for names, count in self.book.models.most_common(8)],
            "variants": self._variants(metrics or {}),
            "cases": self.book.case_counts(),
            "watches": {name: watch.error for name, watch in self.watches.items()},
            "job": job(
                now,
                self.flow.last_end,
                waiting if known else None,
                oldest,
                metrics["age_s"] if metrics else None,
                away=any(watch.error for watch in self.watches.values()),
            ),
            "metrics": metrics,
            "windows": self._windows(metrics or {}),
        }

    def _variants(self, metrics: dict[str, Any]) -> dict[str, int]:
        """Results by the model of a file that answered, since what is in force is; empty for a job without a file."""
        since = (metrics.get("models") or {}).get("since")
        return self.book.variants(since) if isinstance(since, int | float) else {}

    def _windows(self, metrics: dict[str, Any]) -> dict[str, Any] | None:
        """Panes of windows that the job has summed up, as its metrics say; None where it sums up none."""
        counters = metrics.get("counters", {})
        if self.settings.summary_table is None and not metrics.get("job", {}).get("summaries"):
            return None
        panes = counters.get("summary_panes", 0) if metrics else None
        return {"panes": panes, "shifted": counters.get("summary_shifted", 0)}

    def _published(self, messages: Sequence[Message]) -> None:
        self.flow.saw_published(sum(_each(self.book.published, messages)))

    def _results(self, messages: Sequence[Message]) -> None:
        stories = _each(self.book.result, messages)
        self.flow.saw_ended([story for story in stories if story is not None])
        self.task = next((m.attributes["task"] for m in reversed(messages) if "task" in m.attributes), self.task)

    def _dead_letters(self, messages: Sequence[Message]) -> None:
        self.flow.saw_ended(_each(self.book.dead_letter, messages))


def _each(take: Callable[[Message], _Taken], messages: Sequence[Message]) -> list[_Taken]:
    """What ``take`` makes of each; one that it cannot take is left out, or it would come again for ever."""
    taken = []
    for message in messages:
        try:
            taken.append(take(message))
        except Exception:
            _LOGGER.exception("message %s is left out", message.message_id)
    return taken
