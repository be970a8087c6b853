"""Window summaries: one true row a window, whatever is repeated, late or restarted, and a shift that shows."""

from __future__ import annotations

import datetime
import json
import math
import random

import apache_beam as beam
import pytest
from fakes import FakeHandler
from streams import fresh

from pipeline import audit_sink, clients, graph
from pipeline.matchers import TableName
from pipeline.options import Settings
from pipeline.summary import Summaries, SummariseFn
from transforms.window_summary import stability_index

MINUTE = datetime.timedelta(minutes=1)
START = datetime.datetime.now(datetime.timezone.utc).replace(second=0, microsecond=0) - 30 * MINUTE


def audit_row(number: int, window: int, label: str | None, score: float = 0.9, size: int = 100, **more: object) -> dict:
    """An audit row of the ``window``-th minute; no label is a dead letter."""
    start = START + window * MINUTE
    prediction = None if label is None else json.dumps([{"label": label, "score": score}])
    return {
        "message_id": str(number),
        "processed_time": (start + MINUTE / 2).isoformat(),
        "window_start": start.isoformat(),
        "window_end": (start + MINUTE).isoformat(),
        "status": "dead_letter" if label is None else "ok",
        "prediction": prediction,
        "input_bytes": size,
        "total_ms": 20.0 + number % 10,
        "truncated": False,
        "job": "tickets",
        **more,
    }


@pytest.fixture
def tables(servers) -> tuple[TableName, TableName]:
    """A fresh audit table, and the name of its summary table."""
    audit = fresh("summary").audit_table
    return audit, TableName(audit.project, audit.dataset, "summary")


def insert(table: TableName, rows: list[dict]) -> None:
    for start in range(0, len(rows), 500):
        chunk = rows[start : start + 500]
        assert not audit_sink.BigQuerySink(table).insert(
            chunk, [f"{row['message_id']}/{random.random()}" for row in chunk]
        )


def read(table: TableName) -> list[dict]:
    rows = clients.bigquery_client(table.project).query(f"SELECT * FROM `{table}` ORDER BY window_start").result()
    return [dict(row) for row in rows]


def test_a_shift_in_the_labels_shows(tables):
    """Of eight minutes whose label mix shifts half way, the index is small before, and over 0.25 at the shift."""
    audit, summary = tables
    draw = random.Random(7)
    mixes = ({"billing": 0.7, "delivery": 0.2, "bug": 0.1}, {"billing": 0.1, "delivery": 0.2, "bug": 0.7})
    rows = []
    for window in range(8):
        mix = mixes[window >= 4]
        for _ in range(300):
            (label,) = draw.choices(list(mix), list(mix.values()))
            size = int(draw.lognormvariate(5, 0.4))
            rows.append(audit_row(len(rows), window, label, draw.uniform(0.6, 1), size))
    insert(audit, rows)
    assert Summaries(audit, summary).refresh() == 8
    found = read(summary)
    indices = [row["psi_label"] for row in found]
    print("psi_label by window:", indices)
    assert indices[0] is None and all(index < 0.1 for index in indices[1:4])
    assert indices[4] > 0.25
    assert all(row["psi_input_bytes"] < 0.1 and row["psi_score"] < 0.1 for row in found[1:])


def test_a_row_is_what_its_window_held(tables):
    """Counts by status and label, quantiles and bins are those of the rows; a repeat after a crash counts once."""
    audit, summary = tables
    rows = [audit_row(n, 0, "billing" if n % 4 else "bug", n / 100, 64) for n in range(100)]
    rows += [audit_row(100 + n, 0, None, size=9) for n in range(5)]
    insert(audit, [*rows, *rows[:10]])
    Summaries(audit, summary).refresh()
    (row,) = read(summary)
    assert (row["messages"], row["ok"], row["dead_letters"], row["truncated"]) == (105, 100, 5, 0)
    assert row["labels"] == {"billing": 75, "bug": 25}
    assert row["score_p50"] == pytest.approx(0.5, abs=0.02) and row["latency_p99_ms"] == pytest.approx(29, abs=1)
    assert row["score_bins"] == {str(n): 10 for n in range(10)}
    assert row["input_bytes_bins"] == {"12": 100, "6": 5}
    assert row["input_bytes_p50"] == 64


def test_late_rows_and_restarts_give_the_same_row(tables):
    """Rows that come after a window was summed up change its row, and a new process writes no second one."""
    audit, summary = tables
    insert(audit, [audit_row(n, 0, "billing") for n in range(40)])
    first = Summaries(audit, summary)
    assert first.refresh() == 1
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    insert(audit, [audit_row(n, 0, "bug", processed_time=now) for n in range(40, 50)])
    assert first.refresh() == 1
    assert Summaries(audit, summary).refresh() == 1
    (row,) = read(summary)
    assert row["messages"] == 50 and row["labels"] == {"billing": 40, "bug": 10}


def test_a_window_is_not_summed_up_before_it_ends(tables):
    """A window that is still open has no row."""
    audit, summary = tables
    insert(audit, [audit_row(n, 40, "billing") for n in range(3)])
    assert Summaries(audit, summary).refresh() == 0
    assert read(summary) == []


def test_the_index_is_the_textbook_one():
    """Equal mixes give about 0, the worked example its sum, what is new stays finite, and few messages give none."""
    assert stability_index({"a": 500, "b": 500}, {"a": 5000, "b": 5000}) == pytest.approx(0, abs=1e-6)
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert stability_index({"a": 60_000, "b": 40_000}, {"a": 50_000, "b": 50_000}) == pytest.approx(expected, rel=1e-3)
    assert 1 < stability_index({"new": 100}, {"old": 100}) < math.inf
    assert stability_index({"a": 29}, {"a": 1000}) is None


def test_on_a_service_a_timer_sums_up(tables):
    """A job on a service has the step beside its messages; it writes the rows, and a table away fails nothing."""
    audit, summary = tables
    topic = "projects/my-project/topics/any"
    names = ("projects/my-project/subscriptions/any", topic, topic)
    settings = Settings(*names, audit_table=audit, summary_table=summary, local=False)
    pipeline = beam.Pipeline()
    graph.build(pipeline, settings, FakeHandler())
    assert "Summarise/Refresh" in pipeline.applied_labels
    insert(audit, [audit_row(n, 0, "billing") for n in range(3)])
    step = SummariseFn(audit, summary)
    step.process(None)
    assert [row["messages"] for row in read(summary)] == [3]
    SummariseFn(TableName("my-project", "nowhere", "audit"), TableName("my-project", "nowhere", "summary")).process(
        None
    )
