"""The embedded BigQuery when the fault is its own, and when a web page asks: no row is blamed, no door is open."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest
import requests
from bigquery_tables import audit_row, connect, make_audit_table, make_dataset, rows_of

from pipeline.emulators.bigquery.api import Api
from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.server import BigQueryServer
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.process import Server, spawn

_FAULTS = [duckdb.IOException, duckdb.TransactionException, duckdb.FatalException, duckdb.OutOfMemoryException]
_FAULTS += [duckdb.InternalException, duckdb.SerializationException, duckdb.ConstraintException, duckdb.Error]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with spawn("pipeline.emulators.bigquery", "--port", "0") as started:
        yield started


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("taken", [22_000_000, 3_000_000], ids=["full in the log", "full at a checkpoint"])
def test_full_disk_is_503_and_over_when_there_is_room(disk: Path, taken: int) -> None:
    """On a full disk every write is a 503; with room again the same server stores, and no answered row is lost."""
    stored = 0

    def insert(rows: int) -> int:
        body = {"rows": [{"json": audit_row(n, input=os.urandom(30_000).hex())} for n in range(rows)]}
        return requests.post(f"{base}/datasets/{dataset}/tables/audit/insertAll", json=body, timeout=30).status_code

    def query(text: str, **options: Any) -> int:
        body = {"configuration": {"query": {"query": text, "useLegacySql": False, **options}}}
        return requests.post(f"{base}/jobs", json=body, timeout=30).status_code

    with spawn("pipeline.emulators.bigquery", "--port", "0", "--data", str(disk / "data.duckdb")) as server:
        base = f"{server.address}/bigquery/v2/projects/my-project"
        client = connect(server)
        audit = make_audit_table(client, make_dataset(client))
        dataset = audit.split(".")[1]
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(taken))
        for _ in range(60):
            status = insert(10)
            if status != 200:
                break
            stored += 10
        assert (status, insert(100)) == (503, 503)
        uuids = "SELECT STRING_AGG(GENERATE_UUID()) FROM UNNEST(GENERATE_ARRAY(1, 200000))"
        columns, values = "message_id, status, processed_time, input", "'1', 'ok', CURRENT_TIMESTAMP()"
        assert query(f"INSERT `{audit}` ({columns}) SELECT {values}, ({uuids})") == 503
        assert insert(100) == 503
        target = {"projectId": "my-project", "datasetId": dataset, "tableId": "audit"}
        replace = {"destinationTable": target, "writeDisposition": "WRITE_TRUNCATE"}
        assert query(f"SELECT ({uuids}) AS input", **replace) == 503  # and what it would have replaced is still there
        (disk / "filler").unlink()
        assert insert(1) == 200
        assert rows_of(client, f"SELECT COUNT(*) FROM `{audit}`") == [(stored + 1,)]
    assert server.process.returncode == 0
    with spawn("pipeline.emulators.bigquery", "--port", "0", "--data", str(disk / "data.duckdb")) as server:
        assert rows_of(connect(server), f"SELECT COUNT(*) FROM `{audit}`") == [(stored + 1,)]


_ROW = {"rows": [{"json": {"a": "x"}}]}
_SCHEMA = {"fields": [{"name": "a", "type": "STRING"}]}
_WRITES: list[tuple[str, dict[str, Any]]] = [
    ("tabledata.insertAll", _ROW),
    ("datasets.insert", {"datasetReference": {"datasetId": "e"}}),
    ("datasets.patch", {"description": "d"}),
    ("datasets.delete", {}),
    ("tables.insert", {"tableReference": {"tableId": "u"}, "schema": _SCHEMA}),
    ("tables.patch", {"description": "d"}),
    ("tables.delete", {}),
    ("tables.get", {}),
    ("tabledata.list", {}),
]


@pytest.mark.parametrize("method, body", _WRITES, ids=[method for method, _ in _WRITES])
@pytest.mark.parametrize("fault", _FAULTS, ids=[fault.__name__ for fault in _FAULTS])
def test_any_storage_failure_is_503(
    method: str, body: dict[str, Any], fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the database raises under a method that runs no client's SQL is a 503 with a reason that is retried."""
    store = Store()
    api = Api(store)
    path = {"projectId": "p", "datasetId": "d", "tableId": "t"}
    api.call("datasets.insert", Request(path, {}, {"datasetReference": {"datasetId": "d"}}))
    api.call("tables.insert", Request(path, {}, {"tableReference": {"tableId": "t"}, "schema": _SCHEMA}))

    def fail(_: Store) -> Any:
        raise fault("No space left on device")

    monkeypatch.setattr(Store, "cursor", property(fail))
    monkeypatch.setattr(Store, "writing", fail)
    query = {"deleteContents": "true"}
    with pytest.raises(BigQueryError, match="No space left on device") as raised:
        api.call(method, Request(path, query, body))
    assert (raised.value.code, raised.value.reason) == (503, "backendError")


def test_a_bug_is_a_500_in_the_apis_shape(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody thought of is answered as ``internalError``, and the connection lives on."""

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    server = BigQueryServer(Api(Store()))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        with requests.Session() as session:
            monkeypatch.setattr(Api, "call", fail)
            answer = session.get(f"{server.url}/bigquery/v2/projects", timeout=10)
            assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (500, "internalError")
            monkeypatch.setattr(Api, "call", lambda *_: {"not JSON": object()})
            assert session.get(f"{server.url}/bigquery/v2/projects", timeout=10).status_code == 500
            monkeypatch.undo()
            assert session.get(f"{server.url}/bigquery/v2/projects", timeout=10).status_code == 200
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:1234"}, 200),
        ({"Host": "[::1]:9050"}, 200),
        ({"Host": "rebound.example.com"}, 403),
        ({"Host": "127.0.0.1.example.com"}, 403),
        ({"Host": "localhost.example.com:9050"}, 403),
        ({"Host": "example.com@127.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
    ids=str,
)
def test_web_pages_are_refused(server: Server, headers: dict[str, str], status: int) -> None:
    """A page can neither read nor drop the audit table: by a name that resolves here, or by a request across sites."""
    client = connect(server)
    audit = make_audit_table(client, make_dataset(client))
    path = "/bigquery/v2/projects/{}/datasets/{}/tables/{}".format(*audit.split("."))
    read = requests.get(server.address + path, headers=headers, timeout=10)
    assert read.status_code == status
    drop = {"query": f"DROP TABLE `{audit}`", "useLegacySql": False}
    queries = f"{server.address}/bigquery/v2/projects/p/queries"
    for call in (
        lambda: requests.post(queries, json=drop, headers=headers, timeout=10),
        lambda: requests.delete(server.address + path, headers=headers, timeout=10),
    ):
        if status != 200:
            answer = call()
            assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
            assert client.get_table(audit).num_rows == 0


@pytest.mark.parametrize(
    "sent", [b"FETCH / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET " + b"/" * 70_000 + b"\r\n\r\n"], ids=range(3)
)
def test_what_is_not_http_is_told_so_in_json(server: Server, sent: bytes) -> None:
    """An unknown verb, a line that is no request and one without end get the API's error, not a page of HTML."""
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port or 0), 10) as connection:
        connection.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionError):  # what was not read of a line without end
            while part := connection.recv(65536):
                answer += part
    assert b'"error":{' in answer and b"<html" not in answer.lower()
