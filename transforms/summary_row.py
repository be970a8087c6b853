"""The summary row: what a window held, and how far it is from the windows before it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.records import column
from transforms.travel import travels

#: Windows before one that it is compared with, pooled.
BASELINE_WINDOWS = 10
#: Messages that both sides need: of fewer, chance alone looks like a shift.
LEAST = 30


@travels
@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One row a pane of a window, job and variant; a field's metadata is its BigQuery column.

    JSON columns are JSON text. Panes accumulate: the newest of a run holds what the ones before it held.
    """

    job: str = column("STRING", "name of the job", required=True)
    variant: str | None = column("STRING", "which of the job's models answered, where it has several")
    run: str = column(
        "STRING", "the run that counted: a job ended and started again counts a window anew", required=True
    )
    window_start: str = column("TIMESTAMP", "start of the window", required=True)
    window_end: str = column("TIMESTAMP", "its end, exclusive", required=True)
    pane: str = column("STRING", "early, on_time or late, or recount", required=True)
    pane_index: int = column("INTEGER", "how many panes of the window the run wrote before", required=True)
    computed_time: str = column("TIMESTAMP", "when the pane was counted", required=True)
    messages: int = column("INTEGER", "messages", required=True)
    ok: int = column("INTEGER", "of them, results", required=True)
    dead_letters: int = column("INTEGER", "of them, dead letters", required=True)
    truncated: int = column("INTEGER", "of them, cut to the model's maximum", required=True)
    tokens: int | None = column("INTEGER", "tokens that the model read")
    tokens_generated: int | None = column("INTEGER", "tokens that it wrote")
    stages: str = column("JSON", "dead letters by stage")
    labels: str = column("JSON", "results by first label; beyond a thousand labels, the rest as (others)")
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
    psi_label: float | None = column(
        "FLOAT", "population stability index of the labels against the ten windows before", default=None
    )
    psi_score: float | None = column("FLOAT", "that of the score bins", default=None)
    psi_input_bytes: float | None = column("FLOAT", "that of the length bins", default=None)
    shifted: bool | None = column(
        "BOOLEAN", "whether one of them is over 0.25, and over what chance gives of so many messages", default=None
    )


#: The summary table's columns as the BigQuery API writes them, and its partitioning.
SUMMARY_SCHEMA: list[dict[str, str]] = [{"name": f.name, **f.metadata} for f in dataclasses.fields(SummaryRow)]
SUMMARY_PARTITION_FIELD = "window_start"

#: A distribution's column, and the column of its index.
COMPARED = {"labels": "psi_label", "score_bins": "psi_score", "input_bytes_bins": "psi_input_bytes"}

#: An index that is commonly read as shifted.
SHIFTED = 0.25
#: Of a normal distribution: one in a thousand is beyond.
_RARE = 3.09


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


def chance(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The index that one in a thousand windows of an unchanged stream has, by chance alone.

    It is ``(1/n + 1/m)`` times a chi-squared variable of as many degrees of freedom as there are names, less one
    (Yurdakul, 2018), whose quantile is Wilson and Hilferty's.
    """
    freedom = max(1, len({*now, *before}) - 1)
    quantile = freedom * (1 - 2 / (9 * freedom) + _RARE * math.sqrt(2 / (9 * freedom))) ** 3
    return quantile * (1 / max(1, sum(now.values())) + 1 / max(1, sum(before.values())))


def compare(
    row: SummaryRow, counts: Mapping[str, Mapping[str, int]], before: Sequence[Mapping[str, Mapping[str, int]]]
) -> SummaryRow:
    """``row`` with the indices of its ``counts`` against those of the windows ``before`` it, pooled."""
    indices: dict[str, Any] = {}
    shifted: bool | None = None
    for name, column_name in COMPARED.items():
        pooled: Counter[str] = Counter()
        for each in before:
            pooled.update(each[name])
        index = indices[column_name] = stability_index(counts[name], pooled)
        if index is not None:
            shifted = bool(shifted) or index > max(SHIFTED, chance(counts[name], pooled))
    return dataclasses.replace(row, shifted=shifted, **indices)


if __name__ == "__main__":
    import json

    print(json.dumps(SUMMARY_SCHEMA, indent=2))
