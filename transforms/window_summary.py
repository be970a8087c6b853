"""Summary: what a window held, and how far it is from the windows before it.

The rows are made from the audit table, which has every message with its window: a crash, a repeat or a late message
changes the audit rows, and the window is counted again from them. Nothing here is on a message's way.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.records import column

#: Windows before one that it is compared with, pooled.
BASELINE_WINDOWS = 10
#: Messages that both sides need: of fewer, chance alone looks like a shift.
LEAST = 30


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One row a window and job; a field's metadata is its BigQuery column. JSON columns are JSON text."""

    job: str = column("STRING", "name of the job", required=True)
    window_start: str = column("TIMESTAMP", "start of the window", required=True)
    window_end: str = column("TIMESTAMP", "its end, exclusive", required=True)
    computed_time: str = column("TIMESTAMP", "when it was counted last", required=True)
    messages: int = column("INTEGER", "messages, each counted once", required=True)
    ok: int = column("INTEGER", "of them, results", required=True)
    dead_letters: int = column("INTEGER", "of them, dead letters", required=True)
    truncated: int = column("INTEGER", "of them, cut to the model's maximum", required=True)
    labels: str = column("JSON", "results by first label")
    score_p10: float | None = column("FLOAT", "score of the first label, 10 % quantile")
    score_p50: float | None = column("FLOAT", "its median")
    score_p90: float | None = column("FLOAT", "its 90 % quantile")
    score_bins: str = column("JSON", "results by tenth of the score: 0 is [0, 0.1)")
    latency_p50_ms: float | None = column("FLOAT", "publish to processed, median")
    latency_p95_ms: float | None = column("FLOAT", "its 95 % quantile")
    latency_p99_ms: float | None = column("FLOAT", "its 99 % quantile")
    input_bytes_p50: int | None = column("INTEGER", "length of the input, median")
    input_bytes_p95: int | None = column("INTEGER", "its 95 % quantile")
    input_bytes_bins: str = column("JSON", "messages by half powers of two of the length: 10 is [2^5, 2^5.5) bytes")
    psi_label: float | None = column("FLOAT", "population stability index of the labels against the ten windows before")
    psi_score: float | None = column("FLOAT", "that of the score bins")
    psi_input_bytes: float | None = column("FLOAT", "that of the length bins")


#: The summary table's columns as the BigQuery API writes them, and its partitioning.
SUMMARY_SCHEMA: list[dict[str, str]] = [{"name": f.name, **f.metadata} for f in dataclasses.fields(SummaryRow)]
SUMMARY_PARTITION_FIELD = "window_start"

#: A distribution's column, and the column of its index.
DISTRIBUTIONS = {"labels": "psi_label", "score_bins": "psi_score", "input_bytes_bins": "psi_input_bytes"}


def stability_index(now: Mapping[str, int], before: Mapping[str, int]) -> float | None:
    """Population stability index: the sum of ``(p - q) ln(p / q)`` over what is counted, ``p`` now and ``q`` before.

    Under 0.1 is commonly read as stable and over 0.25 as shifted. Half a count is added everywhere, so that what is new
    or gone gives a finite figure. None where either side has fewer than 30.
    """
    names = sorted({*now, *before})
    sizes = sum(now.values()), sum(before.values())
    if min(sizes) < LEAST:
        return None
    total = 0.0
    for name in names:
        p = (now.get(name, 0) + 0.5) / (sizes[0] + 0.5 * len(names))
        q = (before.get(name, 0) + 0.5) / (sizes[1] + 0.5 * len(names))
        total += (p - q) * math.log(p / q)
    return round(total, 6)


def compare(
    window: Mapping[str, Mapping[str, int]], before: Sequence[Mapping[str, Mapping[str, int]]]
) -> dict[str, Any]:
    """The indices of a window's distributions against those of the windows ``before`` it, the nearest last."""
    indices = {}
    for name, index in DISTRIBUTIONS.items():
        pooled: Counter[str] = Counter()
        for each in before[-BASELINE_WINDOWS:]:
            pooled.update(each[name])
        indices[index] = stability_index(window[name], pooled)
    return indices
