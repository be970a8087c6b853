"""What the cost grows with: backlog, message size, windows, and the bounds of a micro-batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import measure
from benchmarks.workloads import model, texts


def run(progress: Callable[..., Any], quick: bool, deepest: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Each figure's series: ours with the null model, but for the batches, which are the model's business."""
    backlogs = [1_000, 20_000] if quick else [100, 1_000, 10_000, 100_000]
    if deepest:
        backlogs.append(deepest)
    series: dict[str, list[dict[str, Any]]] = {
        "backlog": [{"x": count, **progress(backlog, count)} for count in backlogs],
    }
    if not quick:
        series["message_bytes"] = [{"x": size, **progress(sized, size)} for size in (100, 1_000, 10_000, 100_000)]
        series["windows"] = [{"x": count, **progress(windowed, count)} for count in (1, 100, 10_000)]
        sizes, tokens = (1, 8, 32, 512), (128, 512, 1_024, 4_096)
        series["max_batch_size"] = [{"x": most, **progress(batched, "max_batch_size", most)} for most in sizes]
        series["max_batch_tokens"] = [{"x": most, **progress(batched, "max_batch_tokens", most)} for most in tokens]
    return series


def backlog(count: int) -> dict[str, Any]:
    """A backlog of ``count`` messages."""
    return measure.throughput("ours", "null", texts("short", count), timeout=max(300, count / 1_000))


def sized(size: int) -> dict[str, Any]:
    """Messages of ``size`` bytes."""
    return measure.throughput("ours", "null", ["x" * size] * min(5_000, 100_000_000 // size))


def windowed(count: int) -> dict[str, Any]:
    """Messages whose event times lie in ``count`` windows, in no order."""
    messages, now = 10_000, int(time.time())
    times = [{"at": str(1000 * (now - 60 * (number * 7919 % count)))} for number in range(messages)]
    flags = ["--window=fixed:60", "--timestamp_attribute=at"]
    return measure.throughput("ours", "null", texts("short", messages), flags=flags, attributes=times)


def batched(flag: str, most: int) -> dict[str, Any]:
    """The 6-layer model with ``--flag=most``."""
    return measure.throughput("ours", model("6x384"), texts("mixed", 900), flags=[f"--{flag}={most}"])
