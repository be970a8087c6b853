"""Commands as a user types them: every runner's spelling runs the job, and the others stop and fail as they should."""

from __future__ import annotations

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

from pipeline import publish, summary

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


def test_emulators_serve_until_interrupted(tmp_path):
    """The console script starts both servers, prints the lines to export, and Ctrl-C ends it with exit code 0."""
    flags = ("--pubsub_port=0", "--bigquery_port=0", f"--data={tmp_path / 'new' / 'tables.duckdb'}", "--name=mine")
    with command("emulators", *flags) as process:
        assert process.stdout is not None
        lines = []
        while not lines or "Ctrl-C stops" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        assert lines[0].startswith("export PUBSUB_EMULATOR_HOST=127.0.0.1:")
        assert any("--input_subscription=projects/my-project/subscriptions/mine-input" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_emulators_that_cannot_start_are_one_line(tmp_path):
    """A port that is taken, one port for both, a folder that cannot be made: one line, exit code 2."""
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, words in (
            ([f"--pubsub_port={port}"], f"--pubsub_port {port}: Address already in use; use another"),
            (["--pubsub_port=9", "--bigquery_port=9"], "--bigquery_port 9: it is also --pubsub_port"),
            (["--pubsub_port=0", "--bigquery_port=0", f"--data={tmp_path}/file/x"], "use a file in a folder that"),
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
