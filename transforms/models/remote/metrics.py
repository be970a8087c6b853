"""The metrics of an endpoint's batches, told to Beam while they run; docs/metrics.md describes every name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from apache_beam.metrics import Metrics

from transforms.models.remote.caller import RequestCounts
from transforms.models.remote.endpoint import Endpoint

NAMESPACE = "EndpointModelHandler"

COUNTERS = {
    name: Metrics.counter(NAMESPACE, name)
    for name in (
        "predictions",
        "failures",
        "requests",
        "retries",
        "bisections",
        "tokens_read",
        "tokens_generated",
        "hedged",
        "cache_hits",
        "cache_misses",
        "throttled_ms",
        "breaker_opened",
        # Dataflow's autoscaler knows it by this name, and adds no workers for what only waits.
        "cumulativeThrottlingSeconds",
    )
}
_BREAKER_OPEN = Metrics.gauge(NAMESPACE, "breaker_open")
_CONCURRENCY = Metrics.gauge(NAMESPACE, "concurrency")
BATCH_MS = Metrics.distribution(NAMESPACE, "batch_ms")


def tell(counts: RequestCounts, outcomes: Mapping[str, int], elapsed_ms: float) -> None:
    """Updates the metrics with what a batch cost that has ended; ``outcomes`` are its predictions and failures."""
    for each in dataclasses.fields(counts):
        if each.name in COUNTERS:
            COUNTERS[each.name].inc(getattr(counts, each.name))
    COUNTERS["throttled_ms"].inc(int(counts.throttled_s * 1000))
    for name, number in outcomes.items():
        COUNTERS[name].inc(number)
    BATCH_MS.update(int(elapsed_ms))


class Report:
    """Adds what a running batch has cost since the last update; Beam counts in the bundle's own thread only."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._breaker = endpoint.caller.breaker
        self._most = endpoint.spec.concurrency
        self._told: dict[str, int] = {"breaker_opened": self._breaker.opened}

    def update(self, counts: RequestCounts, elapsed_s: float) -> None:
        values = {
            "requests": counts.requests,
            "retries": counts.retries,
            "bisections": counts.bisections,
            "tokens_read": counts.tokens_read,
            "tokens_generated": counts.tokens_generated,
            "hedged": counts.hedged,
            "cache_hits": counts.cache_hits,
            "cache_misses": counts.cache_misses,
            "throttled_ms": int(counts.throttled_s * 1000),
            "breaker_opened": self._breaker.opened,
            # This thread's share: requests wait side by side, and a second of theirs is not one of it.
            "cumulativeThrottlingSeconds": int(min(elapsed_s, counts.throttled_s / self._most)),
        }
        for name, value in values.items():
            if value != self._told.get(name, 0):
                COUNTERS[name].inc(value - self._told.get(name, 0))
                self._told[name] = value
        _BREAKER_OPEN.set(int(self._breaker.is_open))
        _CONCURRENCY.set(int(self._breaker.limit))
