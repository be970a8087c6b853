"""The benchmark's figures as plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import NullFormatter  # noqa: E402

_COLOURS = {
    "raw": "#8d99ae",
    "raw, OpenVINO": "#6c757d",
    "ours": "#2a9d8f",
    "ours, torch": "#76c7bd",
    "planned subscriber": "#e9c46a",
    "sentence-transformers": "#f2cc8f",
    "subscriber": "#f4a261",
    "stock": "#e76f51",
}


def draw(results: dict[str, Any], out: Path) -> None:
    """Writes throughput.png, latency.png and growth.png into ``out``."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130})
    _throughput(results, out / "throughput.png")
    _latency(results, out / "latency.png")
    _growth(results, out / "growth.png")


def _throughput(results: dict[str, Any], path: Path) -> None:
    panels = {**results["throughput"], "null model": results["null"]}
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.4), squeeze=False)
    for axis, (name, rows) in zip(axes[0], panels.items(), strict=True):
        names = [row["system"] for row in rows]
        rates = [row["rate"] for row in rows]
        bars = axis.barh(names, rates, color=[_COLOURS[each] for each in names])
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=9)
        axis.set(title=name, xlim=(0, max(rates) * 1.25))
        axis.invert_yaxis()
        axis.xaxis.set_visible(False)
        axis.spines["bottom"].set_visible(False)
        axis.tick_params(left=False)
    figure.suptitle("Messages a second, result published and audit row written", fontsize=11)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _latency(results: dict[str, Any], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    for system in dict.fromkeys(row["system"] for row in results["latency"]):
        rows = sorted((row for row in results["latency"] if row["system"] == system), key=lambda row: row["rate"])
        rates = [row["rate"] for row in rows]
        axis.plot(rates, [row["p50"] for row in rows], "o-", color=_COLOURS[system], label=f"{system}, p50")
        axis.plot(rates, [row["p99"] for row in rows], "o:", color=_COLOURS[system], label=f"{system}, p99")
    axis.set(xlabel="messages a second", ylabel="ms from publish to result", yscale="log", title="Latency under load")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


_SERIES = {
    "backlog": "messages that wait",
    "message_bytes": "bytes a message",
    "windows": "windows that 10,000 messages lie in",
    "max_batch_size": "--max_batch_size (6x384)",
    "max_batch_tokens": "--max_batch_tokens (6x384)",
}


def _growth(results: dict[str, Any], path: Path) -> None:
    series = results["growth"]
    figure, axes = plt.subplots(2, len(series), figsize=(3.1 * len(series), 4.6), squeeze=False, sharex="col")
    figures = (("cpu_s_per_1000", "CPU s per 1,000 messages", "ours"), ("peak_mib", "peak memory, MiB", "stock"))
    for column, (name, rows) in zip(axes.T, series.items(), strict=True):
        x = [row["x"] for row in rows]
        for axis, (key, _, colour) in zip(column, figures, strict=True):
            values = [row[key] for row in rows]
            axis.plot(x, values, "o-", color=_COLOURS[colour])
            axis.set(xscale="log", ylim=(0, 1.15 * max(values)))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.25)
        if name.startswith("max_batch"):
            column[1].set_xticks(x, [f"{each:,}" for each in x])
        column[1].set_xlabel(_SERIES[name])
    for axis, (_, words, _) in zip(axes[:, 0], figures, strict=True):
        axis.set_ylabel(words)
    figure.suptitle("What the cost grows with: the null model's, and two bounds of a micro-batch", fontsize=11)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
