"""The benchmark's arithmetic: what it reports follows from what it measured."""

from __future__ import annotations

import pytest

from benchmarks import report, workloads


def row(system: str, rates: list[float]) -> dict[str, object]:
    return {
        "system": system,
        "messages": 100,
        "rate": sorted(rates)[len(rates) // 2],
        "rates": rates,
        "cpu_s_per_1000": 1.0,
        "peak_mib": 100.0,
        "model_loads": 1,
    }


def test_a_ratio_is_the_median_of_the_turns() -> None:
    """A machine that slows down for one turn slows both systems in it, and does not move the ratio."""
    rows = [row("raw", [100.0, 50.0, 100.0]), row("ours", [90.0, 45.0, 99.0])]
    assert report.ratio(rows, "ours", "raw") == pytest.approx(0.9)
    assert report.ratios(rows) == "ours / raw = 0.90"
    assert "| ours | 100 | 90 | 0.90 |" in report.table(rows)


def test_texts_are_the_same_for_everyone() -> None:
    """A system that takes the first hundred messages takes those that every other takes first."""
    assert workloads.texts("mixed", 300)[:100] == workloads.texts("mixed", 100)
    words = [len(text.split()) for text in workloads.texts("mixed", 5000)]
    assert 21 < sum(words) / len(words) < 27 and max(words) <= 200
