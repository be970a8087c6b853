"""The embedded BigQuery as a process: what survives its end, what it survives, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from bigquery_tables import audit_row, connect, make_audit_table, make_dataset, rows_of
from google.cloud import bigquery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.emulators.bigquery.methods import METHODS
from pipeline.emulators.process import ROOT, Server, spawn


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with spawn("pipeline.emulators.bigquery", "--port", "0") as started:
        yield started


def start(data: Path) -> Server:
    return spawn("pipeline.emulators.bigquery", "--port", "0", "--data", str(data))


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Datasets, tables with their layout, views and rows are there after the server was stopped and started."""
    with start(tmp_path / "data.duckdb") as first:
        client = connect(first)
        audit = make_audit_table(client, make_dataset(client))
        client.insert_rows_json(audit, [audit_row(n) for n in range(100)])
        client.query_and_wait(f"CREATE VIEW `{audit}_ok` AS SELECT * FROM `{audit}` WHERE status = 'ok'")
        before = client.get_table(audit).to_api_repr()
    assert first.process.returncode == 0
    with start(tmp_path / "data.duckdb") as second:
        client = connect(second)
        assert client.get_table(audit).to_api_repr() == before
        assert rows_of(client, f"SELECT COUNT(*), SUM(input_bytes) FROM `{audit}_ok`") == [(100, 4950)]
        assert client.insert_rows_json(audit, [audit_row(100)]) == []


def test_acknowledged_rows_survive_sigkill(tmp_path: Path) -> None:
    """Every row whose insert was answered is there after the server was killed, three times in a row."""
    audit = ""
    for life in range(3):
        with start(tmp_path / "data.duckdb") as server:
            client = connect(server)
            if not audit:
                audit = make_audit_table(client, make_dataset(client))
            assert rows_of(client, f"SELECT COUNT(*) FROM `{audit}`") == [(life * 230,)]
            for batch in range(23):
                assert client.insert_rows_json(audit, [audit_row(n) for n in range(batch * 10, batch * 10 + 10)]) == []
            server.process.kill()


def test_ends_with_its_parent() -> None:
    """A parent killed outright leaves no server behind."""
    script = (
        "from pipeline.emulators.process import spawn; import sys, time\n"
        "server = spawn('pipeline.emulators.bigquery', '--port', '0')\n"
        "print(server.address, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().strip())
        parent.kill()
    with socket.socket() as connection:
        connection.settimeout(30)
        try:
            connection.connect((address.hostname, address.port))
            assert connection.recv(1) == b""  # the server goes, and this connection with it
        except ConnectionError:
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_quietly_when_told_to(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with code 0 and nothing on standard error, open connections or not."""
    command = [sys.executable, "-m", "pipeline.emulators.bigquery", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        name, address = process.stdout.readline().strip().split("=")
        assert name == "BIGQUERY_EMULATOR_HOST"
        with requests.Session() as connection:
            assert connection.get(f"{address}/bigquery/v2/projects", timeout=10).status_code == 200
            process.send_signal(number)
            assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_taken_port_and_bad_file_are_one_line(tmp_path: Path, server: Server) -> None:
    """A port in use and a file that is no database end it with code 2 and a line that names the flag."""
    (tmp_path / "notes.txt").write_text("not a database " * 1000)
    port = str(urlsplit(server.address).port)
    for flag, value in (("--port", port), ("--data", str(tmp_path / "notes.txt"))):
        command = [sys.executable, "-m", "pipeline.emulators.bigquery", "--port", "0", flag, value]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert done.returncode == 2 and done.stderr.startswith(
            f"error: {flag} {value if flag == '--port' else repr(value)}: "
        )
        assert len(done.stderr.splitlines()) == 1, done.stderr


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PATHS = {"projectId": "p", "datasetId": "d", "tableId": "t", "jobId": "j"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
#: Bodies that have the right names and anything in them.
BODIES = st.dictionaries(
    st.sampled_from(
        ["datasetReference", "tableReference", "schema", "timePartitioning", "clustering", "view", "rows", "query"]
        + ["configuration", "jobReference", "queryParameters", "formatOptions", "defaultDataset", "maxResults"]
    ),
    JSON
    | st.fixed_dictionaries({"fields": st.lists(JSON | st.fixed_dictionaries({"name": JSON, "type": JSON}))})
    | st.fixed_dictionaries({"query": JSON, "datasetId": JSON, "tableId": JSON, "jobId": JSON}),
    max_size=5,
)


def call(server: Server, method: str, **body: Any) -> requests.Response:
    verb, path, _ = METHODS[method]
    return requests.request(verb, f"{server.address}/bigquery/v2/{path.format(**PATHS)}", timeout=30, **body)


@QUICK
@given(method=st.sampled_from(sorted(METHODS)), data=st.binary(max_size=200))
def test_random_bytes_are_refused(server: Server, method: str, data: bytes) -> None:
    """Bytes that are no JSON are at worst refused, whatever the method."""
    assert call(server, method, data=data).status_code in (200, 400, 404, 501)


@QUICK
@given(method=st.sampled_from([m for m, (verb, _, _) in METHODS.items() if verb in ("POST", "PATCH")]), body=BODIES)
def test_random_bodies_are_refused(server: Server, method: str, body: dict[str, Any]) -> None:
    """JSON of any shape in the places where the API looks is answered, and never an internal error."""
    assert call(server, method, json=body).status_code in (200, 204, 400, 404, 409, 501)


@QUICK
@given(data=st.binary(min_size=1, max_size=300))
def test_random_connections_leave_the_server_up(server: Server, data: bytes) -> None:
    """Bytes that are not even HTTP end their connection, not the server."""
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port or 0), 10) as connection:
        connection.sendall(data)
    assert requests.get(f"{server.address}/bigquery/v2/projects", timeout=10).status_code == 200


@QUICK
@given(rows=st.lists(st.dictionaries(st.sampled_from(["s", "j", "n", "ts", "a", "r"]), JSON), min_size=1, max_size=5))
def test_random_rows_are_stored_or_rejected(server: Server, rows: list[dict[str, Any]]) -> None:
    """Every row of any content is either counted as stored or reported at its index."""
    client = connect(server)
    client.create_dataset(f"{client.project}.fuzz", exists_ok=True)
    fields = [
        bigquery.SchemaField("s", "STRING"),
        bigquery.SchemaField("j", "JSON"),
        bigquery.SchemaField("n", "NUMERIC"),
        bigquery.SchemaField("ts", "TIMESTAMP"),
        bigquery.SchemaField("a", "FLOAT", "REPEATED"),
        bigquery.SchemaField("r", "RECORD", fields=[bigquery.SchemaField("j", "JSON")]),
    ]
    table = client.create_table(bigquery.Table(f"{client.project}.fuzz.t", fields), exists_ok=True)
    texts = [{**row, "j": json.dumps(row["j"])} if "j" in row else row for row in rows]
    before = client.get_table(table).num_rows
    errors = client.insert_rows_json(table, texts, skip_invalid_rows=True)
    assert client.get_table(table).num_rows - before == len(rows) - len(errors)
    assert all(error["errors"][0]["reason"] == "invalid" for error in errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigquery", "pubsub"])
def test_a_server_whose_parent_is_gone_before_it_listens_ends(name: str) -> None:
    """It cannot say where it listens any more."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", f"pipeline.emulators.{name}", "--port", "0", "--exit_with_parent"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        assert process.wait(60) != 0
    finally:
        process.kill()


def test_a_query_without_an_end_does_not_keep_it(tmp_path: Path) -> None:
    """Told to stop, it waits for what is under way, but not for ever; what was committed is there."""
    with start(tmp_path / "data.duckdb") as server:
        client = connect(server)
        audit = make_audit_table(client, make_dataset(client))
        client.insert_rows_json(audit, [audit_row(1)])
        numbers = "UNNEST(GENERATE_ARRAY(1, 1000000))"
        query = f"SELECT SUM(a * b * c) FROM {numbers} AS a, {numbers} AS b, {numbers} AS c"
        with pytest.raises(requests.ReadTimeout):
            asked = {"query": query, "useLegacySql": False}
            requests.post(f"{server.address}/bigquery/v2/projects/my-project/queries", json=asked, timeout=3)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(120)
    with start(tmp_path / "data.duckdb") as again:
        assert rows_of(connect(again), f"SELECT COUNT(*) FROM `{audit}`") == [(1,)]
