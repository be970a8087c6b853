"""A models file through the whole job: routes, splits and shadows, in results, rows and metrics; changed as it runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tiny_models as tiny
from streams import collect, drain, fresh, job, text_message

from pipeline.publish import publish_all as publish

FILE = """\
models:
  stable: {{model: {sentiment}, task: text-classification, parameters: {{top_k: 1}}}}
  next:   {{model: {topics}, task: text-classification, parameters: {{top_k: 1}}}}
serve:
  - {{when: "attributes.language == 'de'", use: next}}
  - {{when: "attributes.language == 'en'", split: {{stable: {stable}, next: {next}}}, by: attributes.customer}}
shadow:
  - {{model: next, share: 1}}
"""


def file(stable: int) -> str:
    return FILE.format(sentiment=tiny.sentiment(), topics=tiny.topics(), stable=stable, next=100 - stable)


def test_two_models_in_one_job_and_a_split_that_moves(servers: Any, tmp_path: Path) -> None:
    """Each message goes to its rule's model, keeps to it, and its row says which it was, under which version."""
    models, metrics = tmp_path / "models.yaml", tmp_path / "metrics.json"
    models.write_text(file(100))
    resources = fresh("models")
    flags = (f"--models={models}", "--models_refresh_s=0.2", f"--metrics_file={metrics}", "--dtype=float32")
    with job(resources, *flags, log=tmp_path / "log") as process:
        sent = [text_message("my order was late", language="en", customer=str(n % 7)) for n in range(20)]
        sent += [text_message("thank you", language="de"), text_message("thank you", language="fr")]
        publish(resources.input_topic, sent)
        first = collect(resources, 22, timeout=400)
        deadline = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        before = json.loads(metrics.read_text())["models"]["models_version"]
        models.write_text(file(0))
        deadline = time.monotonic() + 120
        while json.loads(metrics.read_text())["models"]["models_version"] == before and time.monotonic() < deadline:
            time.sleep(0.1)
        publish(resources.input_topic, sent[:20])
        second = collect(resources, 20, timeout=400)
        assert drain(process, timeout=400) == 0, (tmp_path / "log").read_text()[-2000:]
    log = (tmp_path / "log").read_text()[-2000:]
    assert Counter(m.attributes["variant"] for m in first.results) == {"stable": 20, "next": 1}, log
    assert [m.attributes["dead_letter_error_type"] for m in first.dead_letters] == ["NoRoute"]
    assert Counter(m.attributes["variant"] for m in second.results) == {"next": 20}, log
    rows = second.rows
    assert len(rows) == 42 and Counter(row["variant"] for row in rows) == {"stable": 20, "next": 21, None: 1}
    versions = {row["models_version"] for row in rows}
    assert before in versions and len(versions) == 2
    for row in rows:
        shadow = json.loads(row["shadow"]) if isinstance(row["shadow"], str) else row["shadow"]
        if row["variant"] == "stable":
            assert shadow["variant"] == "next" and shadow["agrees"] is False and shadow["prediction"][0]["label"]
        elif row["variant"] == "next":
            assert shadow is None
    told = json.loads(metrics.read_text())
    assert (
        told["counters"]["served_next"] == 21 and told["counters"]["swaps"] == 1 and told["counters"]["no_route"] == 1
    )
    assert told["job"]["models"] == str(models)
