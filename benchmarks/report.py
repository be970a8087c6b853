"""The benchmark's figures as tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam
import torch
import transformers

from benchmarks import conditions

_BEGIN, _END = "<!-- benchmarks: written by make bench -->\n", "<!-- end of benchmarks -->\n"


def machine() -> str:
    """What the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    versions = (
        f"apache-beam {apache_beam.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    )
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}; Python {platform.python_version()}, {versions}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One workload's systems, with ratios to the raw model."""
    raw = any(row["system"] == "raw" for row in rows)
    lines = [
        "| system | messages | msg/s | to raw | CPU s per 1,000 | peak MiB | model loads | first result |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        to_raw = f"{ratio(rows, row['system'], 'raw'):.2f}" if raw else ""
        first = f"{row['first_result_s']:.1f} s" if "first_result_s" in row else ""
        lines.append(
            f"| {row['system']} | {row['messages']} | {row['rate']:.0f} | {to_raw} | {row['cpu_s_per_1000']:.2f} "
            f"| {row['peak_mib']:.0f} | {row['model_loads']} | {first} |"
        )
    return "\n".join(lines)


def ratios(rows: Sequence[dict[str, Any]]) -> str:
    """Ours beside each other system."""
    others = [row["system"] for row in rows if row["system"] != "ours"]
    return ", ".join(f"ours / {name} = {ratio(rows, 'ours', name):.2f}" for name in others)


def ratio(rows: Sequence[dict[str, Any]], system: str, other: str) -> float:
    """``system``'s rate beside ``other``'s: the median of the turns' ratios."""
    rates = {row["system"]: row["rates"] for row in rows}
    return statistics.median(ours / theirs for ours, theirs in zip(rates[system], rates[other], strict=True))


def _latency(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| system | load | msg/s | p50 ms | p95 ms | p99 ms |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        share = f"{row['share']:.0%} of capacity" if row["share"] else "light"
        lines.append(
            f"| {row['system']} | {share} | {row['rate']:.0f} "
            f"| {row['p50']:.0f} | {row['p95']:.0f} | {row['p99']:.0f} |"
        )
    return "\n".join(lines)


def _growth(series: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["| grows | to | msg/s | CPU s per 1,000 | peak MiB |", "|---|---:|---:|---:|---:|"]
    for name, rows in series.items():
        lines += [
            f"| {name} | {row['x']} | {row['rate']:.0f} | {row['cpu_s_per_1000']:.2f} | {row['peak_mib']:.0f} |"
            for row in rows
        ]
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> str:
    """Everything measured, as Markdown."""
    parts = [f"Measured on {results['machine']}{' (quick run)' if results['quick'] else ''}.\n"]
    for name, rows in results["throughput"].items():
        parts.append(f"**{name}**: {ratios(rows)}\n\n{table(rows)}\n")
    parts.append(f"**null model**: {ratios(results['null'])}\n\n{table(results['null'])}\n")
    single = results["throughput"]["6x384 mixed"][0]["single_ms"]
    parts.append(
        f"**Latency**, mixed, 6x384 (one message alone, raw: {single:.0f} ms)\n\n{_latency(results['latency'])}\n"
    )
    parts.append(f"**Growth**, ours, null model (micro-batches: 6x384)\n\n{_growth(results['growth'])}\n")
    if "conditions" in results:
        parts.append(f"**Conditions**, mixed, 6x384\n\n{conditions.table(results['conditions'])}\n")
    if "google_emulator" in results:
        rows = results["google_emulator"]
        parts.append(f"**Over Google's Pub/Sub emulator**, 6x384 mixed: {ratios(rows)}\n\n{table(rows)}\n")
    return "\n".join(parts)


def write(results: dict[str, Any], page: Path) -> None:
    """Puts the figures between the markers of ``page``."""
    text = page.read_text("utf-8")
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    page.write_text(head + _BEGIN + "\n" + summary(results) + "\n" + _END + tail, "utf-8")
