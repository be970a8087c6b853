"""What a job on this machine is doing, in figures: for a line a minute, and for whoever asks its health port."""

from __future__ import annotations

import collections
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline import outage
from transforms import metrics
from transforms.records import ModelInfo

#: Latencies of a minute that are kept for its percentile; of more, the latest.
_MOST = 100_000

#: Messages that have come and are not done with, and when the oldest was published (seconds since the epoch).
Backlog = Callable[[], tuple[int, float | None]]


class Pulse:
    """Hears how messages end, from when it is made until :meth:`close`."""

    def __init__(self, backlog: Backlog, info: ModelInfo | None) -> None:
        self._backlog = backlog
        self._info = info
        self._lock = threading.Lock()
        self._begin()
        metrics.listeners.append(self.hear)

    def close(self) -> None:
        metrics.listeners.remove(self.hear)

    def _begin(self) -> None:
        self._latencies: collections.deque[int] = collections.deque(maxlen=_MOST)
        self._results = 0
        self._dead: collections.Counter[str] = collections.Counter()
        self._since = time.monotonic()

    def hear(self, latencies: Sequence[int], stages: Mapping[str, int]) -> None:
        """A bundle ended: its results' latencies in milliseconds, its dead letters by stage."""
        with self._lock:
            self._results += len(latencies)
            self._latencies.extend(latencies)
            self._dead.update(stages)

    def beat(self) -> dict[str, Any]:
        """The figures since the last beat."""
        with self._lock:
            results, latencies, dead, since = self._results, self._latencies, self._dead, self._since
            self._begin()
        waiting, oldest = self._backlog()
        ended = results + dead.total()
        info = self._info
        return {
            "results": results,
            "dead_letters": dead.total(),
            "dead_letters_by_stage": dict(dead),
            "rate": round(ended / max(1e-3, time.monotonic() - since), 1),
            "p95_ms": round(statistics.quantiles(latencies, n=20)[-1])
            if len(latencies) > 1
            else next(iter(latencies), None),
            "backlog": waiting,
            "oldest_s": None if oldest is None else round(max(0.0, time.time() - oldest), 1),
            "model": None if info is None else f"{info.model}@{info.revision[:8]}",
            "away": {name: round(seconds) for name, seconds in outage.away().items()},
        }


def line(beat: Mapping[str, Any]) -> str:
    """``beat`` for a person."""
    stages = ", ".join(f"{count} {stage}" for stage, count in sorted(beat["dead_letters_by_stage"].items()))
    parts = [
        f"{beat['results']:,} results",
        f"{beat['dead_letters']:,} dead letters" + (f" ({stages})" if stages else ""),
        f"{beat['rate']:,}/s",
        "p95 -" if beat["p95_ms"] is None else f"p95 {beat['p95_ms']:,} ms",
        f"backlog {beat['backlog']:,}"
        + ("" if beat["oldest_s"] is None else f", the oldest {beat['oldest_s']:,.0f} s"),
        *([beat["model"]] if beat["model"] else []),
        *(f"{name} is away, {seconds} s" for name, seconds in beat["away"].items()),
    ]
    return "; ".join(parts)
