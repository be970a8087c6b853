"""A stream whose labels shift half way, with a late message: the summary table, the alert, and the console's view."""

from __future__ import annotations

import datetime
import json
import time
import uuid

from fake_job import Behaviour, fake_job
from google.pubsub_v1 import PublisherClient, SubscriberClient
from streams import PATIENCE_S, pull, text_message

from pipeline import clients, publish
from pipeline.console import summaries
from pipeline.console.window_filter import narrow
from pipeline.emulators import setup
from pipeline.matchers import TableName
from transforms.encode import rfc3339

#: Windows of a minute, the messages of each, and how many of those are calm before and after the shift.
WINDOWS, MESSAGES = 6, 40
CALM = (36, 36, 36, 4, 4, 4)
SHIFT = 3


def test_a_shift_of_labels_is_told_and_a_late_message_counted(servers, tmp_path):
    """Panes on time and late, an alert a shifted window by a filter alone, the console's rows; no table is asked."""
    # A project of its own: all that is asked of its tables is asked by the job.
    resources = setup.Resources.named(f"shift-{uuid.uuid4().hex[:8]}")
    setup.create(resources)
    project = resources.audit_table.project
    table = TableName(project, resources.audit_table.dataset, "summary")
    topic, alerts = f"projects/{project}/topics/summary", f"projects/{project}/subscriptions/alerts"
    clients.pubsub(PublisherClient).create_topic(name=topic)
    wanted = {"name": alerts, "topic": topic, "filter": 'attributes.shifted = "true"'}
    clients.pubsub(SubscriberClient).create_subscription(request=wanted)
    began = float(int(time.time()) // 60 * 60 - 3600)
    flags = [f"--summary_table={table.project}:{table.dataset}.summary", f"--summary_topic={topic}"]
    flags += ["--window=fixed:60", "--timestamp_attribute=at"]

    def send(window: int, texts: list[str]) -> None:
        times = [began + 60 * window + n for n in range(len(texts))]
        messages = [text_message(text, at=rfc3339(at)) for text, at in zip(texts, times, strict=True)]
        publish.publish_all(resources.input_topic, messages)
        assert len(pull(resources.output_subscription, len(texts), PATIENCE_S)) == len(texts)

    with fake_job([*resources.flags(), *flags], tmp_path / "log", Behaviour(labelled=True)) as job:
        job.until_running()
        for window, calm in enumerate(CALM):
            send(window, [f"{'calm' if n < calm else 'angry'} text" for n in range(MESSAGES)])
        send(1, ["calm and late"])
        assert job.drain() == 0, job.words()

    client = clients.bigquery_client(project)
    assert list(client.list_jobs()) == [], "the job asks no table anything"
    found = client.query(f"SELECT * FROM `{table}` ORDER BY window_start, pane_index").result()
    assert len(list(client.list_jobs())) == 1, "what is asked is seen"
    rows = [dict(row) for row in found]
    starts = [datetime.datetime.fromtimestamp(began + 60 * n, datetime.timezone.utc) for n in range(WINDOWS)]
    panes = {(starts.index(row["window_start"]), row["pane"]): row for row in rows}
    assert panes.keys() == {(n, "on_time") for n in range(WINDOWS)} | {(1, "late")} and len(rows) == WINDOWS + 1
    assert panes[1, "on_time"]["messages"] == MESSAGES and panes[1, "late"]["messages"] == MESSAGES + 1
    assert panes[1, "late"]["labels"] == {"calm": CALM[1] + 1, "angry": MESSAGES - CALM[1]}
    steady = {n: panes[n, "on_time"]["shifted"] for n in range(SHIFT)}
    assert steady == {0: None, 1: False, 2: False} and panes[2, "on_time"]["psi_label"] < 0.1
    assert panes[SHIFT, "on_time"]["shifted"] and panes[SHIFT, "on_time"]["psi_label"] > 1

    shifted = [row for row in rows if row["shifted"]]
    told = pull(alerts, len(shifted), PATIENCE_S)
    first = min(told, key=lambda each: each.attributes["window_start"])
    assert len(told) == len(shifted) and first.attributes["window_start"] == rfc3339(began + 60 * SHIFT)
    assert json.loads(first.data)["labels"] == {"calm": CALM[SHIFT], "angry": MESSAGES - CALM[SHIFT]}

    shown = narrow(summaries.read(table), "psi_label>0.25")
    seen = [datetime.datetime.fromisoformat(window["window_start"].replace("Z", "+00:00")) for window in shown]
    assert seen == [row["window_start"] for row in shifted]
