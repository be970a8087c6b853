"""One manner in all commands: what lies outside of the code is one line, exit code 1; wrong usage 2; no traceback."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import streams
from streams import fresh
from test_commands import FLAGS as JOB
from test_commands import command

from pipeline import __version__, clients
from pipeline.cli import COMMANDS
from pipeline.command import command as command_of

TABLE = "--audit_table=my-project:nowhere.audit"
#: Each command that asks a table, with flags that are right.
ASKING = {
    "audit find": [TABLE, "customer=42"],
    "audit erase": [TABLE, "--where=TRUE"],
    "audit prove": [TABLE, "--inputs_table=my-project:nowhere.inputs", "--from=1h"],
    "summary recount": [TABLE, "--summary_table=my-project:nowhere.summary", "--since=1h"],
}
LETTERS = "--dead_letter_subscription=projects/my-project/subscriptions/nowhere"
#: Each that talks to Pub/Sub.
TALKING = {
    "run": [*JOB, "--endpoint=http://127.0.0.1:9/", "--task=feature-extraction", "--endpoint_timeout_s=1"],
    "replay": [LETTERS, "--topic=projects/my-project/topics/nowhere"],
    "emulators publish": ["x"],
    "emulators pull": ["--wait_s=1"],
    "emulators create": ["--output_topic=projects/my-project/topics/some"],
}


def run(name: str, flags: list[str], capsys: pytest.CaptureFixture) -> tuple[int, list[str]]:
    """The command's exit code and its lines on standard error, but for a log's."""
    (found,) = (each for each in COMMANDS if each.name == name)
    capsys.readouterr()
    code = importlib.import_module(found.module).main(flags)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, [line for line in err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def elsewhere(servers, monkeypatch) -> Iterator[pytest.MonkeyPatch]:
    """Clients anew, before and after, for other addresses and credentials."""
    monkeypatch.setattr(clients, "QUERY_PATIENCE_S", 0.5)
    clients.pubsub.cache_clear()
    clients.bigquery_client.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    streams.use_pubsub(servers.pubsub.address)
    clients.bigquery_client.cache_clear()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.parametrize("name", ASKING)
def test_a_missing_table_is_one_line(name, servers, capsys):
    """Exit code 1, and the table's name."""
    code, (line,) = run(name, ASKING[name], capsys)
    assert code == 1 and "nowhere" in line


@pytest.mark.parametrize("name", ASKING)
def test_an_absent_bigquery_is_one_line(name, elsewhere, capsys):
    """It is not waited for without a word: exit code 1."""
    elsewhere.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{closed_port()}")
    code, (line,) = run(name, ASKING[name], capsys)
    assert code == 1 and "cannot be reached" in line


@pytest.mark.parametrize("name", TALKING)
def test_an_absent_pubsub_is_one_line(name, elsewhere, capsys):
    """Exit code 1: nothing in the flags is wrong, and who restarts the command may do so."""
    elsewhere.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{closed_port()}")
    code, (line,) = run(name, TALKING[name], capsys)
    assert code == 1 and ("cannot be reached" in line or "nothing listens there" in line), line


@pytest.mark.parametrize("name", [*ASKING, "replay"])
def test_no_credentials_are_one_line(name, elsewhere, tmp_path, capsys):
    """On Google Cloud without a login: exit code 1, or 2 where it is looked at with the flags."""
    for variable in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        elsewhere.delenv(variable, raising=False)
    elsewhere.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    code, (line,) = run(name, {**ASKING, **TALKING}[name], capsys)
    assert code in (1, 2) and "credentials" in line, line


@pytest.mark.parametrize(
    ("name", "flag"), [("console", "port"), ("emulators", "pubsub_port"), ("emulators", "bigquery_port")]
)
def test_a_taken_port_is_one_line(name, flag, servers, capsys):
    """Which flag, which port, and what to do: exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        watched = ["--output_subscription=projects/my-project/subscriptions/some"] if name == "console" else []
        code, (line,) = run(name, [*watched, f"--{flag}={port}"], capsys)
    assert code == 2 and line.startswith(f"error: --{flag} {port}: Address already in use; use another")


@pytest.mark.parametrize("each", COMMANDS, ids=lambda each: each.name)
def test_every_command_has_a_version(each, capsys):
    """The package's."""
    assert importlib.import_module(each.module).main(["--version"]) == 0
    assert capsys.readouterr().out == f"beam-hf-inference {__version__}\n"


def test_every_command_is_on_the_page():
    """docs/commands.md has each with what its 0 means."""
    page = (streams.ROOT / "docs" / "commands.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z ]+)` \|", page, re.M) == [each.name for each in COMMANDS]


def test_counts_for_a_script(servers, capsys):
    """Where a script would want it, --json is one object on standard output."""
    ours = fresh("json")
    table = f"{ours.audit_table.project}:{ours.audit_table.dataset}.audit"
    letters = f"--dead_letter_subscription={ours.dead_letter_subscription}"
    for name, flags, key in (
        ("audit erase", [f"--audit_table={table}", "--where=TRUE"], "rows"),
        ("replay", [letters, f"--topic={ours.input_topic}", "--idle_s=0.2"], "replayed"),
        ("replay", [letters, "--discard", "--idle_s=0.2"], "discarded"),
    ):
        (found,) = (each for each in COMMANDS if each.name == name)
        assert importlib.import_module(found.module).main([*flags, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[key] == 0


def test_output_that_nobody_takes_is_no_traceback(monkeypatch, capfd):
    """A closed output, a terminal of another alphabet, a full disk, a reader that has gone: 0, or 1 with a line."""

    @command_of
    def prints(argv):
        print("✓")
        return 0

    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    for output, code in ((None, 0), (ascii_only, 0), (os.fdopen(full, "w"), 1), (os.fdopen(writer, "w"), 1)):
        monkeypatch.setattr(sys, "stdout", output)
        assert prints([]) == code
        if output is not None:
            output.flush()  # as the process does at its end
    assert capfd.readouterr().err == "error: [Errno 28] No space left on device\n"
    assert ascii_only.buffer.getvalue() == b"?\n"
    for given in ("| true", ">&-"):
        line = f"{sys.executable} -m pipeline.cli --help {given}"
        done = subprocess.run(["bash", "-c", line], cwd=streams.ROOT, capture_output=True, text=True, timeout=120)
        assert done.stderr == "", given


WAITING = {
    "emulators": ("Ctrl-C stops", 0),
    "console": ("Ctrl-C stops", 0),
    "replay": ("looking at", 1),
    "audit erase": ("waiting until", 1),
}


@pytest.mark.slow  # it measures
@pytest.mark.parametrize("name", WAITING)
def test_ctrl_c_ends_it_within_two_seconds(name, servers, tmp_path):
    """Whatever it waits for: with 0 what serves until then, with 1 what had not done its work."""
    from test_audit_commands import row

    from pipeline.audit_sink import BigQuerySink

    ours = fresh("stop")
    BigQuerySink(ours.audit_table).insert([row(1, "ada", 0)], ["1"])
    flags = {
        "emulators": ["--pubsub_port=0", "--bigquery_port=0"],
        "console": ["--port=0"],
        "replay": [f"--dead_letter_subscription={ours.dead_letter_subscription}", f"--topic={ours.input_topic}"],
        "audit erase": [f"--audit_table=my-project:{ours.audit_table.dataset}.audit", "--where=TRUE", "--yes"],
    }[name]
    said, code = WAITING[name]
    with command(*name.split(), *flags) as process, (tmp_path / "out").open("w") as out:
        pipe = process.stderr if name == "replay" else process.stdout
        assert pipe is not None
        for line in pipe:
            out.write(line)
            if said in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == code
        except subprocess.TimeoutExpired:
            pytest.fail("it goes on")
        took = time.monotonic() - started
    print(f"{name}: {took:.2f} s")
    assert took < 2
