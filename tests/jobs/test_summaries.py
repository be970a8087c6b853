"""Window summaries of a real job: rows and messages, a slow model, a table that is away, and the recount beside."""

from __future__ import annotations

import json
import time
import uuid

from fake_job import Behaviour, fake_job
from google.pubsub_v1 import PublisherClient, SubscriberClient
from streams import PATIENCE_S, audit_rows, collect, fresh, pull, text_message

from pipeline import clients, publish, summary
from pipeline.console import summaries
from pipeline.matchers import TableName
from transforms.encode import rfc3339
from transforms.windowing import Windowing


def table_of(resources) -> TableName:
    return TableName(resources.audit_table.project, resources.audit_table.dataset, "summary")


def flags_of(resources, *more: str) -> list[str]:
    table = table_of(resources)
    return [*resources.flags(), f"--summary_table={table.project}:{table.dataset}.{table.table}", *more]


def rows_of(table: TableName) -> list[dict]:
    sql = f"SELECT * FROM `{table}` ORDER BY window_start, computed_time"
    return [dict(row) for row in clients.bigquery_client(table.project).query(sql).result()]


def new_topic() -> tuple[str, str]:
    name = f"summaries-{uuid.uuid4().hex[:8]}"
    topic, subscription = f"projects/my-project/topics/{name}", f"projects/my-project/subscriptions/{name}"
    clients.pubsub(PublisherClient).create_topic(name=topic)
    clients.pubsub(SubscriberClient).create_subscription(name=subscription, topic=topic)
    return topic, subscription


def until(done, timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def test_a_window_is_a_row_and_a_message_and_so_says_the_recount(servers, tmp_path):
    """Rows come while the job runs, each as a message too; at the drain the rest; a recount of the rows agrees."""
    resources = fresh("summaries")
    topic, subscription = new_topic()
    flags = flags_of(resources, "--window=fixed:1", f"--summary_topic={topic}")
    with fake_job(flags, tmp_path / "log") as job:
        job.until_running()
        since = time.time()
        publish.publish_all(resources.input_topic, [text_message(f"number {n}") for n in range(40)])
        until(lambda: rows_of(table_of(resources)))
        assert all(row["pane"] == "on_time" for row in rows_of(table_of(resources))), "before the end"
        publish.publish_all(resources.input_topic, [text_message(json.dumps(n)) for n in range(20)])
        ledger = collect(resources, 60)
        assert job.drain() == 0, job.words()
    rows = rows_of(table_of(resources))
    assert len(ledger.ended()) == 60 and sum(row["messages"] for row in rows) == 60
    assert len({row["run"] for row in rows}) == 1
    assert all(row["labels"] == ({"TEXT": row["ok"]} if row["ok"] else {}) for row in rows)
    messages = pull(subscription, len(rows), PATIENCE_S)
    assert sorted(json.loads(each.data)["messages"] for each in messages) == sorted(row["messages"] for row in rows)
    assert all(each.attributes["shifted"] == "false" and each.attributes["pane"] == "on_time" for each in messages)
    counted = summary.recount(resources.audit_table, Windowing.parse("fixed:1"), int(since) - 5, time.time() + 60)
    assert {(row.window_start[:19], row.messages) for row in counted} == {
        (row["window_start"].isoformat()[:19], row["messages"]) for row in rows
    }


def test_a_slow_model_holds_the_watermark(servers, tmp_path):
    """Messages that are still in the model long after their window's end are in its pane on time, and none is late."""
    resources = fresh("slow")
    with fake_job(flags_of(resources, "--window=fixed:1"), tmp_path / "log", Behaviour(delay_ms=500)) as job:
        job.until_running()
        publish.publish_all(resources.input_topic, [text_message(f"number {n}") for n in range(16)])
        collect(resources, 16)
        assert job.drain() == 0, job.words()
    rows = rows_of(table_of(resources))
    assert sum(row["messages"] for row in rows) == 16
    assert {row["pane"] for row in rows} == {"on_time"} and len(rows) <= 2


def test_no_message_waits_for_its_window(servers, tmp_path):
    """Within a window of a day every message is answered and acknowledged; its row comes with the drain."""
    resources = fresh("day")
    with fake_job(flags_of(resources, "--window=fixed:86400"), tmp_path / "log") as job:
        job.until_running()
        publish.publish_all(resources.input_topic, [text_message(f"number {n}") for n in range(30)])
        assert len(collect(resources, 30).ended()) == 30
        assert rows_of(table_of(resources)) == []
        job.process.terminate()
        assert job.wait(120) == 0, job.words()
    with fake_job(resources.flags(), tmp_path / "log2") as job:
        job.until_running()
        publish.publish_all(resources.input_topic, [text_message("one more")])
        ledger = collect(resources, 1)
        assert job.drain() == 0 and len(ledger.results) == 1, "what the first job answered does not come again"
    assert sum(row["messages"] for row in rows_of(table_of(resources))) == 30


def test_a_summary_table_that_goes_away_holds_nothing_up(servers, tmp_path):
    """With its summary table dropped under it, the job answers all messages and drains; the log says what was lost."""
    resources = fresh("gone")
    with fake_job(flags_of(resources, "--window=fixed:1"), tmp_path / "log") as job:
        job.until_running()
        clients.bigquery_client("my-project").delete_table(str(table_of(resources)))
        publish.publish_all(resources.input_topic, [text_message(f"number {n}") for n in range(30)])
        assert len(collect(resources, 30).ended()) == 30
        assert job.drain() == 0, job.words()
        assert "summar" in job.words()


def test_a_kill_costs_the_open_window_and_the_recount_has_all(servers, tmp_path):
    """Killed within a window: closed ones stand, what it had of the open one is gone, and the recount is exact."""
    resources, per_window = fresh("killed"), 20
    table, began = table_of(resources), int(time.time()) // 60 * 60 - 3600
    flags = flags_of(resources, "--window=fixed:60", "--timestamp_attribute=at")

    def send(window: int, count: int) -> None:
        times = [rfc3339(began + 60 * window + n) for n in range(count)]
        publish.publish_all(resources.input_topic, [text_message("hello", at=at) for at in times])
        assert len(pull(resources.output_subscription, count, PATIENCE_S)) == count

    with fake_job(flags, tmp_path / "log", Behaviour(lease_s=10)) as job:
        job.until_running()
        send(0, per_window)
        send(1, per_window // 2)
        until(lambda: rows_of(table))
        job.kill()
    before = len(audit_rows(resources))
    with fake_job(flags, tmp_path / "log2", Behaviour(lease_s=10)) as job:
        job.until_running()
        send(1, per_window // 2)
        send(2, per_window)
        assert job.drain() == 0, job.words()
    rows, after = rows_of(table), audit_rows(resources)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    assert len(runs) == 2
    newest = {(row["run"], row["window_start"]): row["messages"] for row in rows}
    counted = [sum(count for (each, _), count in newest.items() if each == run) for run in runs]
    # The first run's open window is lost; what it had not acknowledged when it died is counted again by the second.
    assert counted == [per_window, len(after) - before] and len({row["message_id"] for row in after}) == 3 * per_window
    tables = [flag for flag in flags if "_table=" in flag]
    assert summary.main([*tables, f"--since={rfc3339(began)}", "--window=fixed:60"]) == 0
    exact_rows = [row for row in rows_of(table) if row["pane"] == "recount"]
    recounted = {row["window_start"].timestamp() - began: row["messages"] for row in exact_rows}
    assert recounted == {0.0: per_window, 60.0: per_window, 120.0: per_window}
    assert [window["messages"] for window in summaries.read(table)] == [per_window] * 3, "the console shows the recount"
