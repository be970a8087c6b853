"""Every system under three conditions, in turns: a quiet machine, slow services, and a neighbour that takes a core."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import slow
from benchmarks.measure import Run

CONDITIONS = ("quiet", "slow services", "busy core")


def run(counts: Mapping[str, int], model: str, texts: Sequence[str], turns: int) -> list[dict[str, Any]]:
    """Rates of every system of ``counts``, so many messages a turn and condition."""
    rows = []
    for system, count in counts.items():
        rates: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
        with Run.start(system, model) as one:
            one.warm_up(texts[:20])
            for turn in range(turns):
                for condition in CONDITIONS:
                    one.process.send_signal(slow.ON if condition == "slow services" else slow.OFF)
                    with slow.busy_core() if condition == "busy core" else contextlib.nullcontext():
                        rates[condition].append(one.turn(texts[turn * count : (turn + 1) * count])[0])
        rows.append({"system": system, "rates": rates})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rates, and the medians of the turns' ratios to the quiet machine."""
    lines = [
        "| system | quiet, msg/s | inserts 300 ms, publishes 30 ms | to quiet | one core busy | to quiet |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        quiet, *others = (row["rates"][condition] for condition in CONDITIONS)
        cells = [f"{statistics.median(quiet):.0f}"]
        for rates in others:
            ratio = statistics.median(one / at_rest for one, at_rest in zip(rates, quiet, strict=True))
            cells += [f"{statistics.median(rates):.0f}", f"{ratio:.2f}"]
        lines.append(f"| {row['system']} | {' | '.join(cells)} |")
    return "\n".join(lines)
