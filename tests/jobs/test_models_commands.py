"""``models check`` and ``models status``, and the page that says how: what they print, and their exit codes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from streams import ROOT

from pipeline.cli import main
from pipeline.models import status
from transforms.models.fleet.file import parse

PAGE = (ROOT / "docs" / "rollout.md").read_text("utf-8")
FILES = [block.replace("\n   ", "\n") for block in re.findall(r"```yaml\n\s*(models:.*?)```", PAGE, re.S)]
GOOD = "models:\n  a: {model: org/a}\n  b: {model: org/b}\nserve: [{split: {a: 1, b: 1}}]\n"


def test_every_file_of_the_page_is_sound() -> None:
    """The example and the steps' files are read as they stand."""
    assert len(FILES) == 4
    for text in FILES:
        parse(text.encode(), "models.yaml")


def test_a_sound_file_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name alone or as a flag, checks beside it included."""
    file = tmp_path / "models.yaml"
    file.write_text(GOOD + "checks: {b: {file: b.ndjson}}\n")
    (tmp_path / "b.ndjson").write_text(
        '{"inputs": "x", "prediction": "refund", "message_id": "as a result has it"}\n\n'
    )
    assert main(["models", "check", str(file)]) == 0
    assert "2 models, 1 rule\n" in capsys.readouterr().out
    assert main(["models", "check", f"--file={file}"]) == 0


@pytest.mark.parametrize(
    ("text", "checks", "words"),
    [
        (GOOD.replace("b: 1", "c: 1"), "", "models.yaml:4: serve.0.split: no model is named 'c'"),
        (GOOD + "checks: {b: {file: b.ndjson}}\n", None, "b.ndjson: cannot be read"),
        (GOOD + "checks: {b: {file: b.ndjson}}\n", '{"inputs": 1}\n', "b.ndjson:1: not a check"),
        (GOOD + "checks: {b: {file: b.ndjson}}\n", "", "has no checks"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, checks: str | None, words: str
) -> None:
    """Each fault on a line of its own, with the file and the line in it."""
    file = tmp_path / "models.yaml"
    file.write_text(text)
    if checks is not None:
        (tmp_path / "b.ndjson").write_text(checks)
    assert main(["models", "check", str(file)]) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is no file at all, and a metrics file that says nothing of models."""
    assert main(["models", "check", str(tmp_path / "none.yaml")]) == 2
    assert main(["models", "check"]) == 2
    metrics = tmp_path / "metrics.json"
    assert main(["models", "status", f"--metrics_file={metrics}"]) == 2
    metrics.write_text("{}")
    assert main(["models", "status", f"--metrics_file={metrics}"]) == 2
    assert main(["models", "status"]) == 2
    assert capsys.readouterr().err.count("error: ") == 5


def told(**more: Any) -> dict[str, Any]:
    """What a job's metrics file has of two models."""
    stable = {"model": "org/a", "revision": "c" * 40, "share": 0.9, "messages": 90, "failures": 1, "loaded": True}
    other = {"model": "org/b", "shadow": 0.2, "agreed": 3, "disagreed": 1, "checks": 0.97, "loaded": False}
    found = {
        "file": "models.yaml",
        "models_version": "aaaaaaaa-bbbbbb",
        "since": 1.9e9,
        "memory": {"bytes": 1000, "most": 5000, "models": 1},
        "serve": [],
        "models": {"stable": stable, "next": other},
        "rule_errors": {"ceil(body)": {"errors": 7, "error": "ceil() takes number, and got string"}},
        "refused": None,
    }
    return {"time": time.time(), "models": found | more}


def test_the_status_of_a_job_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What serves since when, shares, errors, agreement and checks; what is refused is exit code 1."""
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(told()))
    assert main(["models", "status", f"--metrics_file={file}"]) == 0
    lines = capsys.readouterr().out
    for words in (
        "models.yaml version aaaaaaaa-bbbbbb since 2030-03-17T",
        "stable: org/a at cccccccccccccc, 90.0% of what no rule takes before, 90 messages, 1 failed",
        "shadow of 20.0%, 0 messages, 0 failed, agrees on 75.0% of 4, 97.0% of its checks hold, not in memory",
        "'ceil(body)' raised on 7 messages and found nothing: ceil() takes number, and got string",
    ):
        assert words in lines, lines
    file.write_text(json.dumps(told(refused={"since": 1.9e9, "why": "models.yaml:1: is not UTF-8"})))
    assert main(["models", "status", f"--metrics_file={file}", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["refused"]["why"].startswith("models.yaml:1")


def test_every_flag_of_the_status_is_used_on_the_page() -> None:
    """But the form for machines, which help shows."""
    for flag in status.STATUS_FLAGS:
        assert f"--{flag.name}" in PAGE or flag.name == "json"


def test_the_doctor_reads_the_file_and_what_the_job_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults by their lines; a sound file whose endpoints answer later; what a running job refuses."""
    from pipeline.checks import model
    from pipeline.options import parse as parse_flags

    file, metrics = tmp_path / "models.yaml", tmp_path / "metrics.json"
    flags = [
        "--input_subscription=projects/my-project/subscriptions/inbox",
        "--output_topic=projects/my-project/topics/results",
        "--dead_letter_topic=projects/my-project/topics/dead",
        f"--models={file}",
        f"--metrics_file={metrics}",
    ]
    settings, _ = parse_flags(flags)
    file.write_text(GOOD.replace("b: 1", "c: 1"))
    metrics.write_text(json.dumps(told(refused={"since": 1.9e9, "why": "a check fails"})))
    found = [(finding.ok, finding.found) for finding in model.check(settings)]
    assert found[0][0] is False and "models.yaml:4: serve.0.split" in found[0][1]
    assert found[1] == (False, "the running job goes on with version aaaaaaaa-bbbbbb: a check fails")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("--model=org/a", "--model 'org/a': with --models it stands in the file; leave it out"),
        ("--endpoint=https://models.example", "with --models it stands in the file"),
        ("--task=text-classification", "with --models it stands in the file"),
        ('--inference_params={"top_k": 1}', "--inference_params: with --models it stands in the file, as `parameters`"),
        ("--model_copies=2", "models of --models have one copy a worker"),
        ("--models_memory=0", "use a whole number from 1"),
        ("--models_refresh_s=0", "use seconds"),
        ("--runner=DataflowRunner", "workers do not see this machine's files; put it into gs://"),
    ],
)
def test_flags_that_do_not_go_with_a_models_file(extra: str, words: str) -> None:
    """Each is one line before the job starts."""
    from pipeline.flags import UsageError
    from pipeline.options import parse as parse_flags

    flags = [
        "--input_subscription=projects/my-project/subscriptions/inbox",
        "--output_topic=projects/my-project/topics/results",
        "--dead_letter_topic=projects/my-project/topics/dead",
        "--models=models.yaml",
        extra,
    ]
    with pytest.raises(UsageError) as raised:
        parse_flags(flags)
    assert words in str(raised.value)
