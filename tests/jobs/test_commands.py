"""Commands as a user types them: every runner's spelling runs the job, and the others stop and fail as they should."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_job import fake_job
from streams import ROOT, collect, fresh, text_message

from pipeline import clients, publish, summary
from pipeline.emulators import create
from pipeline.emulators import publish as publish_command
from pipeline.emulators import pull as pull_command

FLAGS = (
    "--input_subscription=projects/my-project/subscriptions/inbox",
    "--output_topic=projects/my-project/topics/results",
    "--dead_letter_topic=projects/my-project/topics/dead",
)


@contextmanager
def command(*argv: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """``beam-hf-inference argv`` as a process; killed at the end if it has not ended."""
    code = "from pipeline.cli import script; script()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["directrunner", "Direct"])
def test_a_runner_in_any_spelling_runs(name, servers, tmp_path):
    """However DirectRunner is written, messages become results: it never ends having done nothing."""
    resources = fresh("spelling")
    publish.publish_all(resources.input_topic, [text_message(f"{n}") for n in range(30)])
    with fake_job([*resources.flags(), f"--runner={name}"], tmp_path / "log") as job:
        ledger = collect(resources, 30)
        assert job.drain() == 0, job.words()
    assert (len(ledger.results), len(ledger.dead_letters)) == (30, 0)


def test_emulators_serve_until_interrupted(tmp_path, capsys):
    """Both servers start and say what to export and to try; what is published is pulled; --state keeps it all."""
    flags = ("--pubsub_port=0", "--bigquery_port=0", f"--state={tmp_path / 'new' / 'kept'}", "--name=mine")
    with emulators(*flags) as (process, lines):
        assert any("--input_subscription=projects/my-project/subscriptions/mine-input" in line for line in lines)
        assert 'beam-hf-inference emulators publish "Where is my parcel?" --name=mine\n' in lines
        assert create.main(["--audit_table=my-project:mine.second"]) == 0
        assert publish_command.main(["Wo?", "--name=mine", "--attribute=customer=42"]) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with emulators(*flags):
        tables = clients.bigquery_client("my-project").list_tables("my-project.mine")
        assert {table.table_id for table in tables} >= {"audit", "second"}
        capsys.readouterr()
        source = "--subscription=projects/my-project/subscriptions/mine-input"
        assert pull_command.main([source, "--json", "--count=1"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["attributes"] == {"source": "shell", "customer": "42"} and found["body"] == '{"inputs": "Wo?"}'
        assert pull_command.main([source, "--wait_s=0.5"]) == 1
        assert "nothing came on" in capsys.readouterr().err


@contextmanager
def emulators(*flags: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``beam-hf-inference emulators`` once they are up, this process's clients pointed to them, and what they said."""
    before = {name: os.environ.get(name) for name in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")}
    with command("emulators", *flags) as process:
        assert process.stdout is not None
        lines = []
        while not lines or "Ctrl-C stops" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        assert lines[0].startswith("export PUBSUB_EMULATOR_HOST=127.0.0.1:")
        exported = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines[:2])
        try:
            os.environ.update(exported)
            clients.pubsub.cache_clear()
            clients.bigquery_client.cache_clear()
            yield process, lines
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            clients.pubsub.cache_clear()
            clients.bigquery_client.cache_clear()


def test_emulators_that_cannot_start_are_one_line(tmp_path):
    """A port that is taken, one port for both, a folder that cannot be made: one line, exit code 2."""
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, words in (
            ([f"--pubsub_port={port}"], f"--pubsub_port {port}: Address already in use; use another"),
            (["--pubsub_port=9", "--bigquery_port=9"], "--bigquery_port 9: it is also --pubsub_port"),
            (["--pubsub_port=0", "--bigquery_port=0", f"--state={tmp_path}/file/x"], "use a folder that you may"),
            (["--pubsub_port=65536"], "--pubsub_port '65536': use a whole number from 0 to 65535"),
        ):
            with command("emulators", *flags) as process:
                out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (2, ""), err
            assert err.startswith("error: ") and words in err and len(err.splitlines()) == 1, err


def test_a_recount_is_done_or_failed(servers, capsys):
    """A recount ends with 0; without the audit table with 1 and one line; what cannot be counted is refused with 2."""
    table = fresh("summed").audit_table
    name = f"{table.project}:{table.dataset}"
    flags = [f"--audit_table={name}.{table.table}", f"--summary_table={name}.summary", "--since=1h"]
    assert summary.main(flags) == 0
    assert capsys.readouterr().out.startswith("0 windows, written to ")
    assert summary.main([f"--audit_table={name}.nowhere", *flags[1:]]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: the windows were not counted: ") and len(err.splitlines()) == 1, err
    for wrong, words in (
        ([f"--summary_table={name}.{table.table}"], "it is also --audit_table"),
        (["--window=global"], "has no end to count to"),
        (["--until=2h"], "is not before --until"),
        (["--every=60"], "--every"),
    ):
        assert summary.main([*flags, *wrong]) == 2
        assert words in capsys.readouterr().err
