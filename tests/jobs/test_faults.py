"""The sinks against faults of every kind: what is transient is waited for, what is bad is told apart."""

from __future__ import annotations

import itertools
import threading
import time

import grpc
import pytest
from faults import Answer, DropHalf, GrpcProxy, Hang, HttpProxy, RejectRows, TcpProxy
from streams import fresh, pull, use_pubsub

from pipeline import audit_sink, clients, io, publish
from transforms.audit import AuditContext, row, to_json
from transforms.records import Failure, Message
from transforms.window import Windowing

CONTEXT = AuditContext(Windowing("global"), "job", "0.1.0")


def rows(count: int, **fields) -> tuple[list[dict], list[str]]:
    """Audit rows of ``count`` messages, and their ids."""
    failures = [Failure(Message(b"x", message_id=str(n)), "decode", "InvalidBody", "no", 0.0) for n in range(count)]
    return [{**to_json(row(failure, CONTEXT, 0.0)), **fields} for failure in failures], [str(n) for n in range(count)]


def stored(resources) -> list[str]:
    found = clients.bigquery_client("my-project").query(f"SELECT message_id FROM `{resources.audit_table}`").result()
    return sorted((each["message_id"] for each in found), key=int)


@pytest.fixture
def bigquery(servers, monkeypatch):
    """A proxy in front of BigQuery, and a table that is reached through it."""
    resources = fresh("faults")
    with HttpProxy(servers.bigquery.address) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.address)
        clients.bigquery_client.cache_clear()
        yield proxy, resources
    monkeypatch.undo()
    clients.bigquery_client.cache_clear()


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, "internalError"),
        Answer(502, "badGateway"),
        Answer(503, "backendError"),
        Answer(504, "timeout"),
        Answer(429, "rateLimitExceeded"),
        Answer(403, "rateLimitExceeded"),
        Answer(403, "quotaExceeded"),
        DropHalf(),
        Hang(0.0),
        Hang(0.0, forwarded=True),
        Hang(2.5),
    ],
    ids=str,
)
def test_the_audit_sink_waits_for_bigquery(bigquery, fault, monkeypatch):
    """Every transient fault, three times over, is tried again until the rows are in, each once."""
    proxy, resources = bigquery
    monkeypatch.setattr(io, "ATTEMPT_S", 0.5)
    faults = iter([fault] * 3)
    proxy.fault = lambda method, path: next(faults, None)
    assert audit_sink.BigQuerySink(resources.audit_table).insert(*rows(3)) == {}
    proxy.fault = lambda method, path: None
    assert (proxy.faults, stored(resources)) == (3, ["0", "1", "2"])


def test_the_audit_sink_waits_for_refused_connections(servers, monkeypatch):
    """A BigQuery that is not there is waited for too."""
    resources = fresh("faults")
    proxy = TcpProxy(servers.bigquery.address.rpartition("/")[2])
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://{proxy.address}")
    clients.bigquery_client.cache_clear()
    proxy.down()
    started = time.monotonic()
    threading.Timer(1.5, proxy.up).start()
    assert audit_sink.BigQuerySink(resources.audit_table).insert(*rows(2)) == {}
    assert time.monotonic() - started > 1.5
    assert stored(resources) == ["0", "1"]
    proxy.down()
    monkeypatch.undo()
    clients.bigquery_client.cache_clear()


def test_a_rejected_row_is_told_apart(bigquery):
    """Of a hundred rows the one that the service rejects is named with its words; the others are in."""
    proxy, resources = bigquery
    proxy.fault = lambda method, path: RejectRows(lambda row: row["message_id"] == "42")
    assert audit_sink.BigQuerySink(resources.audit_table).insert(*rows(100)) == {42: "prediction: scripted rejection"}
    assert stored(resources) == [str(n) for n in range(100) if n != 42]


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_request_is_halved_until_the_culprit_is_alone(bigquery, monkeypatch, status):
    """A service that refuses whole requests because of two rows costs those two rows alone."""
    _, resources = bigquery
    client, bad = clients.bigquery_client("my-project"), {"3", "17"}
    insert = client.insert_rows_json

    def refusing(table, rows, **options):
        if bad & {row["message_id"] for row in rows}:
            raise io.api.from_http_status(status, "no such rows")
        return insert(table, rows, **options)

    monkeypatch.setattr(client, "insert_rows_json", refusing)
    rejected = audit_sink.BigQuerySink(resources.audit_table).insert(*rows(20))
    assert sorted(rejected) == [3, 17]
    assert stored(resources) == [str(n) for n in range(20) if str(n) not in bad]


def test_requests_stay_under_the_limit_and_a_row_over_it_is_rejected(bigquery):
    """Rows of 60 MB together go in several requests, and one that no request can hold is rejected unsent."""
    _, resources = bigquery
    large, ids = rows(8, input="ü" * 1_200_000)
    large[5] = {**large[5], "input": "x" * 10_000_000}
    rejected = audit_sink.BigQuerySink(resources.audit_table).insert(large, ids)
    assert list(rejected) == [5] and "--audit_input" in rejected[5]
    assert stored(resources) == ["0", "1", "2", "3", "4", "6", "7"]


def test_what_waiting_cannot_mend_is_raised_at_once(bigquery):
    """No right to the table, or no table, fails the bundle; healthy messages are not dead-lettered for it."""
    proxy, resources = bigquery
    proxy.fault = lambda method, path: Answer(403, "accessDenied")
    with pytest.raises(io.api.Forbidden):
        audit_sink.BigQuerySink(resources.audit_table).insert(*rows(1))
    proxy.fault = lambda method, path: Answer(404, "notFound")
    with pytest.raises(io.api.NotFound):
        audit_sink.BigQuerySink(resources.audit_table).insert(*rows(1))


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "UNKNOWN"]
)
def test_publishing_waits_for_pubsub(servers, code):
    """A publish that fails with any transient status is tried again, in the order of its key, until it is safe."""
    resources = fresh("faults")
    with GrpcProxy(servers.pubsub.address) as proxy:
        use_pubsub(proxy.address)
        failing = itertools.cycle([getattr(grpc.StatusCode, code), getattr(grpc.StatusCode, code), None])
        proxy.fault = lambda method, request: next(failing) if method == "Publish" else None
        for n in range(3):
            publish.publish_all(resources.output_topic, [Message(b"%d" % n, ordering_key="k")])
        use_pubsub(servers.pubsub.address)
        assert proxy.faults == 6
    assert [message.data for message in pull(resources.output_subscription, 3, 60)] == [b"0", b"1", b"2"]


def test_publishing_waits_for_refused_and_cut_connections(servers):
    """A Pub/Sub that hangs up and then is not there for a while is waited for."""
    resources = fresh("faults")
    proxy = TcpProxy(servers.pubsub.address)
    use_pubsub(proxy.address)
    publish.publish_all(resources.output_topic, [Message(b"before")])
    proxy.down()
    threading.Timer(1.5, proxy.up).start()
    publish.publish_all(resources.output_topic, [Message(b"after")])
    use_pubsub(servers.pubsub.address)
    proxy.down()
    assert {message.data for message in pull(resources.output_subscription, 2, 60)} == {b"before", b"after"}
