"""The sinks against faults of every kind: what is transient is waited for, what is bad is told apart."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import requests
from faults import Answer, DropHalf, GrpcProxy, Hang, HttpProxy, RejectRows, TcpProxy
from google.cloud import bigquery as bigquery_api
from streams import fresh, pull, use_pubsub

from pipeline import audit_sink, clients, outage, publish
from pipeline.matchers import TableName
from transforms.audit_row import AuditContext, row, to_json
from transforms.errors import SinkUnavailable
from transforms.records import Failure, Message
from transforms.windowing import Windowing

CONTEXT = AuditContext(Windowing("global"), "job", "0.1.0")


def rows(count: int, **fields) -> tuple[list[dict], list[str]]:
    """Audit rows of ``count`` messages, and their ids."""
    failures = [Failure(Message(b"x", message_id=str(n)), "decode", "InvalidBody", "no", 0.0) for n in range(count)]
    return [{**to_json(row(failure, CONTEXT, 0.0)), **fields} for failure in failures], [str(n) for n in range(count)]


def stored(resources) -> list[str]:
    found = clients.bigquery_client("my-project").query(f"SELECT message_id FROM `{resources.audit_table}`").result()
    return sorted((each["message_id"] for each in found), key=int)


_UNREAD = {
    "a web page": requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0),
    "no errors in one": KeyError("errors"),
    "a row that was not sent": [{"index": 7, "errors": []}],
    "words alone": [{"index": 0, "errors": ["no"]}],
    "null": [{"index": 0, "errors": None}],
}


@pytest.mark.parametrize("answer", _UNREAD.values(), ids=_UNREAD)
def test_an_answer_that_cannot_be_read_blames_no_row(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy says in the table's place is waited out, and all rows are sent again."""
    answers, sent = iter([answer, []]), []

    def insert(table: str, rows: list[dict[str, Any]], **_: Any) -> Any:
        sent.append(len(rows))
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(clients, "bigquery_client", lambda project: SimpleNamespace(insert_rows_json=insert))
    assert audit_sink.BigQuerySink(TableName("p", "d", "t")).insert(*rows(2)) == {}
    assert sent == [2, 2]


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
    monkeypatch.setattr(clients, "ATTEMPT_S", 0.5)
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
            raise clients.api.from_http_status(status, "no such rows")
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
    with pytest.raises(SinkUnavailable, match="403"):
        audit_sink.BigQuerySink(resources.audit_table).insert(*rows(1))
    proxy.fault = lambda method, path: Answer(404, "notFound")
    with pytest.raises(SinkUnavailable, match="404"):
        audit_sink.BigQuerySink(resources.audit_table).insert(*rows(1))


@pytest.mark.parametrize("reason", ["timeout", "backendError", "stopped", "internalError"])
def test_a_rows_passing_error_is_no_fault_of_the_row(bigquery, reason):
    """A row that the service could not write just now is written the next time; no message is blamed."""
    proxy, resources = bigquery
    answers = iter([True, True, False])
    proxy.fault = lambda method, path: (
        RejectRows(lambda row: row.get("message_id") == "2", reason) if "/insertAll" in path and next(answers) else None
    )
    assert audit_sink.BigQuerySink(resources.audit_table).insert(*rows(4)) == {}
    assert stored(resources) == ["0", "1", "2", "3"]


def test_a_table_without_a_column_holds_the_work(bigquery, caplog, monkeypatch):
    """A column dropped from the table is the table's fault: rows wait, the log says why, and all get there."""
    _, resources = bigquery
    client = clients.bigquery_client("my-project")
    whole = client.get_table(str(resources.audit_table)).schema
    client.delete_table(str(resources.audit_table))
    client.create_table(bigquery_api.Table(str(resources.audit_table), [c for c in whole if c.name != "tokens"]))

    def mend():
        table = client.get_table(str(resources.audit_table))
        table.schema = [*table.schema, bigquery_api.SchemaField("tokens", "INTEGER")]
        client.update_table(table, ["schema"])

    monkeypatch.setattr(outage, "SAY_AFTER_S", 0.1)
    threading.Timer(1.0, mend).start()
    assert audit_sink.BigQuerySink(resources.audit_table).insert(*rows(3)) == {}
    assert stored(resources) == ["0", "1", "2"]
    assert "lacks the column tokens INTEGER" in caplog.text and "3 rows held" in caplog.text


def test_a_table_that_stays_wrong_fails_the_bundle(bigquery, monkeypatch):
    """After its patience the sink raises: the messages are delivered again, and none is a dead letter."""
    proxy, resources = bigquery
    monkeypatch.setattr(clients, "PATIENCE_S", 0.5)
    proxy.fault = lambda method, path: Answer(400, "invalid") if "/insertAll" in path else None
    with pytest.raises(SinkUnavailable, match="refuses any request"):
        audit_sink.BigQuerySink(resources.audit_table).insert(*rows(5))


def test_rows_that_are_all_bad_alike_are_still_the_rows_fault(bigquery):
    """Where the table is as it should be, even a request of bad rows alone is theirs: two messages stop no job."""
    proxy, resources = bigquery
    proxy.fault = lambda method, path: RejectRows(lambda row: True) if "/insertAll" in path else None
    assert sorted(audit_sink.BigQuerySink(resources.audit_table).insert(*rows(2))) == [0, 1]


def test_a_result_that_the_topic_refuses_is_alone(servers):
    """Of a hundred messages the one with an attribute that no topic takes is named; the others are published."""
    resources = fresh("refused")
    messages = [Message(b"%d" % n, {"goog" if n == 63 else "key": "value"}) for n in range(100)]
    ids, refused = publish.try_publish(resources.output_topic, messages)
    assert list(refused) == [63] and len(set(filter(None, ids))) == 99
    assert len(pull(resources.output_subscription, 99, 20)) == 99


@pytest.mark.parametrize("attributes", [{"n": 17}, {"s": "\ud800"}, {5: "x"}])
def test_what_cannot_be_made_into_a_request_is_alone(servers, attributes):
    """A record that protobuf cannot hold costs itself, whatever it raises."""
    resources = fresh("refused")
    messages = [Message(b"%d" % n, attributes if n == 1 else {}) for n in range(3)]
    ids, refused = publish.try_publish(resources.output_topic, messages)
    assert list(refused) == [1] and ids[0] and ids[2]


def test_other_keys_end_before_a_failed_one_raises(servers, monkeypatch):
    """When one key's publish fails for good, no other's is still under way: a repeat could not keep their order."""
    resources = fresh("order")
    ended = []

    def publish_slowly(topic, records, places, ids, refused):
        if records[places[0]].ordering_key == "a":
            raise SinkUnavailable("gone")
        time.sleep(0.3)
        ended.append(records[places[0]].ordering_key)

    monkeypatch.setattr(publish, "_publish", publish_slowly)
    with pytest.raises(SinkUnavailable):
        publish.try_publish(resources.output_topic, [Message(b"x", ordering_key=key) for key in "abc"])
    assert sorted(ended) == ["b", "c"]


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
