"""Flow: counts, rates and latencies by the second, from what the topics carried and what Beam's metrics say."""

from __future__ import annotations

import collections
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.console.story import Story

#: Seconds that the charts go back.
HISTORY_S = 3600
#: Latencies kept of one second, drawn evenly; past these a percentile is no better.
_SAMPLES = 500
#: Seconds that a rate and a point's percentiles look back.
_RATE_S = 5
_LATENCY_S = 10
#: Seconds of which latencies are kept: the tiles look back over a minute.
_KEPT_S = 70


@dataclass(slots=True)
class Second:
    """What one second brought."""

    time: int
    published: int = 0
    results: int = 0
    dead_letters: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: list[float] = field(default_factory=list)
    timed: int = 0

    def saw(self, latency_ms: float) -> None:
        """Keeps it; past ``_SAMPLES``, each of the second with the same chance: late ones are as true as early ones."""
        self.timed += 1
        if len(self.latencies) < _SAMPLES:
            self.latencies.append(latency_ms)
        elif (place := random.randrange(self.timed)) < _SAMPLES:  # noqa: S311 - a sample, no secret
            self.latencies[place] = latency_ms


def quantile(ordered: list[float], q: float) -> float | None:
    """The ``q`` quantile of an ascending list: its nearest rank."""
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1) if ordered else None


class Flow:
    """Figures since the console began; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: collections.OrderedDict[int, Second] = collections.OrderedDict()
        self._points: collections.deque[list[float | None]] = collections.deque(maxlen=HISTORY_S)
        self.since = time.time()
        self.published = 0
        self.results = 0
        self.last_end: float | None = None
        self.dead_letters: collections.Counter[str] = collections.Counter()

    def saw_published(self, count: int) -> None:
        with self._lock:
            self.published += count
            self._now().published += count

    def saw_ended(self, stories: list[Story]) -> None:
        with self._lock:
            second = self._now()
            for story in stories:
                self.last_end = max(self.last_end or 0.0, story.ended or 0.0)
                if story.status == "ok":
                    self.results += 1
                    second.results += 1
                else:
                    self.dead_letters[story.stage or "unknown"] += 1
                    second.dead_letters[story.stage or "unknown"] += 1
                if story.latency_ms is not None:
                    second.saw(story.latency_ms)

    def points(self, after: int = 0) -> list[list[float | None]]:
        """A point for each whole second since ``after``, quiet ones too.

        It has the time, how many messages were published, became results and dead letters, and p50, p95 and p99 of
        latency in milliseconds over the ten seconds to it.
        """
        with self._lock:
            self._advance()
            return [point for point in self._points if (point[0] or 0) > after]

    def _advance(self) -> None:
        """Makes points of the seconds that are over, at most an hour of them."""
        now = int(time.time())
        first = int((self._points[-1][0] or 0) + 1 if self._points else self.since)
        self._points.extend(self._point(moment) for moment in range(max(first, now - HISTORY_S), now))
        while self._seconds and next(iter(self._seconds)) < now - _KEPT_S:
            self._seconds.popitem(last=False)

    def _point(self, moment: int) -> list[float | None]:
        second = self._seconds.get(moment) or Second(moment)
        latencies = self._latencies(moment - _LATENCY_S, moment)
        return [moment, second.published, second.results, second.dead_letters.total(), *latencies]

    def _latencies(self, after: int, until: int) -> list[float | None]:
        found = [self._seconds[moment].latencies for moment in range(after + 1, until + 1) if moment in self._seconds]
        ordered = sorted(itertools.chain.from_iterable(found))
        return [quantile(ordered, q) for q in (0.5, 0.95, 0.99)]

    def rates(self) -> dict[str, Any]:
        """Messages a second over the last whole seconds; of dead letters, by stage."""
        now = int(time.time())
        with self._lock:
            recent = [self._seconds[moment] for moment in range(now - _RATE_S, now) if moment in self._seconds]
        dead = sum((second.dead_letters for second in recent), collections.Counter())
        return {
            "published": round(sum(second.published for second in recent) / _RATE_S, 1),
            "results": round(sum(second.results for second in recent) / _RATE_S, 1),
            "dead_letters": {stage: round(count / _RATE_S, 1) for stage, count in dead.items()},
        }

    def latency(self, seconds: int = 60) -> dict[str, float | None]:
        """p50, p95 and p99 in milliseconds over the last ``seconds``."""
        now = int(time.time())
        with self._lock:
            return dict(zip(("p50", "p95", "p99"), self._latencies(now - seconds, now), strict=True))

    def _now(self) -> Second:
        moment = int(time.time())
        if moment not in self._seconds:
            self._advance()
            self._seconds[moment] = Second(moment)
        return self._seconds[moment]


def read_metrics(path: Path | None) -> dict[str, Any] | None:
    """The job's last snapshot of Beam's metrics, with its age in seconds; None where there is none."""
    if path is None:
        return None
    try:
        # A log line may have what is no character, which no event could carry.
        text = json.dumps(json.loads(path.read_bytes()), ensure_ascii=False).encode("utf-8", "replace")
        snapshot = json.loads(text)
        age_s = round(time.time() - snapshot["time"], 1)
        return {"counters": {}, "distributions": {}, **snapshot, "age_s": age_s}
    except (OSError, ValueError, KeyError, TypeError):
        return None
