"""The page's roll-out, walked: shadow, canary, promote, roll back, each by a file that is copied, under one job."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
from models_desk import retrain
from streams import ROOT, collect, drain, fresh, job, text_message, waited

from pipeline.cli import main
from pipeline.publish import publish_all as publish

PAGE = (ROOT / "docs" / "rollout.md").read_text("utf-8")
#: Shadow, canary, promote, as the page has them.
STEPS = [block.replace("\n   ", "\n") for block in re.findall(r"```yaml\n   (models:.*?)```", PAGE, re.S)]


@pytest.mark.slow
def test_the_pages_rollout(servers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At each step the rows, and ``models status`` from both sides, say what the page says that they will."""
    stable = str(shutil.copytree(tiny.sentiment(), tmp_path / "stable"))
    other = str(shutil.copytree(tiny.sentiment(), tmp_path / "other"))
    retrain(other)
    steps = [
        step.replace("my-org/tickets, revision: 3f1c9a7", stable).replace("my-org/tickets, revision: 8d20f5f", other)
        for step in STEPS
    ]
    live, metrics = tmp_path / "live.yaml", tmp_path / "metrics.json"
    (tmp_path / "checks").mkdir()
    checks = tmp_path / "checks" / "tickets.ndjson"
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.records import Prediction, Request

    handler = HuggingFaceModelHandler(other, "text-classification", dtype="float32", engine="torch")
    (known,) = handler.run_inference([Request("my order was late")], handler.load_model())
    assert isinstance(known, Prediction)
    checks.write_text(json.dumps({"inputs": "my order was late", "prediction": known.prediction}) + "\n")
    resources = fresh("rollout")
    sent = [text_message("my order was late", customer=f"c{n}") for n in range(60)]

    def version() -> str:
        try:
            return str(json.loads(metrics.read_text())["models"]["models_version"])
        except (OSError, ValueError, KeyError):
            return ""

    def step(text: str, already: int) -> Counter[str]:
        """Copies ``text``, waits until it is in force, sends the messages, and counts who answered."""
        before = version()
        (tmp_path / "next.yaml").write_text(text)
        assert main(["models", "check", str(tmp_path / "next.yaml")]) == 0
        shutil.copy(tmp_path / "next.yaml", live)
        assert waited(lambda: version() not in ("", before)), (tmp_path / "log").read_text()[-3000:]
        publish(resources.input_topic, sent)
        ledger = collect(resources, len(sent), timeout=400)
        assert main(["models", "status", f"--metrics_file={metrics}"]) == 0
        rows.extend(row for row in ledger.rows if row["models_version"] == version())
        assert len(ledger.rows) == already + len(sent)
        return Counter(message.attributes["variant"] for message in ledger.results)

    rows: list[dict[str, Any]] = []
    shutil.copy(ROOT / "CHANGELOG.md", live)  # anything that is no models file is refused at the launch
    flags = (f"--models={live}", "--models_refresh_s=0.2", f"--metrics_file={metrics}", "--dtype=float32")
    with job(resources, *flags, log=tmp_path / "refused") as process:
        assert process.wait(400) == 2 and "live.yaml:" in (tmp_path / "refused").read_text()
    live.write_text(f"models: {{stable: {{model: {stable}, task: text-classification}}}}\n")
    with job(resources, *flags, log=tmp_path / "log") as process:
        assert waited(lambda: version() != ""), (tmp_path / "log").read_text()[-3000:]
        assert step(steps[0], 0) == {"stable": 60}
        shadowed = [row for row in rows if row["shadow"] is not None]
        assert 0 < len(shadowed) < 60
        canary = step(steps[1], 60)
        assert 0 < canary["next"] < 30 and canary["next"] + canary["stable"] == 60
        assert step(steps[2], 120) == {"next": 60}
        assert step(steps[1] + "# back\n", 180) == canary
        assert drain(process, timeout=400) == 0
    assert main(["models", "status", f"--audit_table={resources.audit_table}", "--since=1h"]) == 0
    said = capsys.readouterr().out
    assert "shadow of 20.0%" in said and "agrees on" in said and re.search(r"next: 60 messages, 0 failed", said), said
