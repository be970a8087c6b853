"""docs/audit.md: every ready query runs against the embedded BigQuery and gives what it says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import datetime, timezone

import pytest
from fakes import INFO
from google.cloud import bigquery
from streams import ROOT, fresh

from pipeline import audit_sink, clients
from pipeline.emulators.setup import latest_query
from pipeline.matchers import TableName
from transforms.audit_row import AuditContext, row, row_id, to_json
from transforms.encode import encode
from transforms.records import AuditRow, Failure, Message, Prediction, Request
from transforms.windowing import Windowing

DOCS = (ROOT / "docs" / "audit.md").read_text("utf-8")
QUERIES = dict(re.findall(r"\n([^\n]+)[:.]\n\n```sql\n(.*?)```", DOCS, re.DOTALL))
CONTEXT = AuditContext(Windowing("fixed", 60.0), "job", "0.1.0")
T0 = 1_900_000_800.0  # the beginning of an hour
PARAMETERS = {
    "since": datetime.fromtimestamp(T0 - 3600, timezone.utc),
    "until": datetime.fromtimestamp(T0 + 7200, timezone.utc),
    "message_id": "3",
    "input_sha256": hashlib.sha256(b"body 4").hexdigest(),
    "customer": "c-1",
    "job": "job",
    "price_read": "0.5",
    "price_written": "2",
}


def result(n: int, **attributes: str):
    message = Message(b"body %d" % n, {"n": str(n), **attributes}, str(n), T0 + n, T0 + n, taken=T0 + n + 0.25)
    return encode(Prediction(Request("x", {}, message), [n], INFO, 3, False, 8, 2.5, T0), clients.LIMITS)


def failure(n: int, stage: str = "decode", **attributes: str) -> Failure:
    message = Message(b"body %d" % n, {"n": str(n), **attributes}, str(n), T0 + n, T0 + n, taken=T0 + n)
    return Failure(message, stage, "InvalidBody", "the body is empty", T0)


@pytest.fixture(scope="module")
def table(servers):
    """Ten messages over two hours: 3 with two rows, 5 and 8 dead, 5 replayed as 20 and 21; 6 and 7 were never seen."""
    resources = fresh("audit")
    records = [
        *[(result(n, customer=f"c-{n % 2}"), 1 + n) for n in (0, 1, 2, 3, 4)],
        (result(3, customer="c-1"), 60),
        (failure(5), 10),
        (failure(8, "predict"), 3700),
        (result(9), 3701),
    ]
    # 5 dies once more as 20 and is a result as 21; 9 has the very body of both, and was never replayed.
    twin = dataclasses.replace(result(9).prediction.request.message, data=b"body 5")
    records[-1] = (encode(Prediction(Request("x", {}, twin), [9], INFO, 3, False, 8, 2.5, T0), clients.LIMITS), 3701)
    kept = {"dead_letter_first_message_id": "5"}
    once = dataclasses.replace(failure(5, dead_letter_attempt="1", **kept).message, message_id="20")
    records.append((Failure(once, "decode", "InvalidBody", "the body is empty", T0), 3750))
    twice = dataclasses.replace(failure(5, dead_letter_attempt="2", **kept).message, message_id="21")
    records.append((encode(Prediction(Request("x", {}, twice), [5], INFO, 3, False, 8, 2.5, T0), clients.LIMITS), 3800))
    sink = audit_sink.BigQuerySink(resources.audit_table)
    for record, after in records:
        row_ids = [f"{row_id(record, CONTEXT)}/{after}"]  # a repeat after the service has forgotten the first
        assert sink.insert([to_json(row(record, CONTEXT, T0 + after))], row_ids) == {}
    client = clients.bigquery_client("my-project")
    inputs = f"my-project.{resources.audit_table.dataset}.inputs"
    columns = [bigquery.SchemaField("message_id", "STRING"), bigquery.SchemaField("publish_time", "TIMESTAMP")]
    client.create_table(bigquery.Table(inputs, columns))
    sent = [{"message_id": str(n), "publish_time": PARAMETERS["since"].isoformat()} for n in (*range(10), 20, 21)]
    assert client.insert_rows_json(inputs, sent) == []
    return f"my-project.{resources.audit_table.dataset}"


def ask(table: str, title: str) -> list[dict]:
    """The rows of the query under ``title`` in the documentation."""
    (text,) = (query for name, query in QUERIES.items() if name.startswith(title))
    used = set(re.findall(r"@(\w+)", text))
    kinds = {name: "TIMESTAMP" if name in ("since", "until") else "STRING" for name in used}
    parameters = [bigquery.ScalarQueryParameter(name, kinds[name], PARAMETERS[name]) for name in used]
    config = bigquery.QueryJobConfig(query_parameters=parameters)
    query = text.replace("my-project.inference", table)
    return [dict(each) for each in clients.bigquery_client("my-project").query(query, config).result()]


def test_all_queries_of_the_page_are_tested():
    """Every SQL block of the page has a title and a test below."""
    assert len(QUERIES) == DOCS.count("```sql") == 16
    source = (ROOT / "tests" / "emulators" / "test_audit_queries.py").read_text("utf-8")
    for title in QUERIES:
        assert any(f'"{title[:length]}"' in source for length in range(5, len(title) + 1)), title


def test_error_rate(table):
    """Two hours, with their counts."""
    found = [(each["messages"], each["dead_letters"], each["percent"]) for each in ask(table, "Error rate by hour")]
    assert found == [(6, 1, 16.67), (4, 2, 50.0)]


def test_what_failed(table):
    """Each kind of failure, with an example."""
    found = {each["stage"]: (each["messages"], each["example"]) for each in ask(table, "What failed, most frequent")}
    assert found == {"decode": (2, "20"), "predict": (1, "8")}


def test_latency(table):
    """Exact quantiles of this small table."""
    first, second = ask(table, "Latency percentiles")
    assert first["p50"] == 1000.0 and first["p99"] == 57_000.0
    assert second["p50"] in (3_692_000.0, 3_795_000.0)


def test_why_it_grew(table):
    """The slowest of each hour, and where its time went: waiting, batch, forward and sink are the whole."""
    first, second = ask(table, "Why the 95th percentile")
    assert (first["messages"], first["p95"]) == (1, 57_000.0)
    assert (first["waiting"], first["batch"], first["forward"], first["sink"]) == (250, 0, 3, 56_750)
    assert second["p95"] == second["waiting"] + second["sink"] == 3_795_000.0


def test_one_message(table):
    """Both rows of the message that came twice, with every column."""
    found = ask(table, "Everything about one message")
    assert len(found) == 2 and {each["message_id"] for each in found} == {"3"}
    assert set(found[0]) == {field.name for field in dataclasses.fields(AuditRow)}


def test_one_input(table):
    """By its hash."""
    assert [each["message_id"] for each in ask(table, "Whether this very input")] == ["4"]


def test_one_customer(table):
    """By an attribute, each message once."""
    assert [each["message_id"] for each in ask(table, "Everything about one customer")] == ["1", "3"]


def test_models(table):
    """The one model, and how many it answered."""
    (found,) = ask(table, "Which model and revision")
    assert (found["model"], found["model_revision"], found["messages"]) == ("fake", "0" * 40, 7)


def test_repeats(table):
    """The message that has two rows."""
    assert [(each["message_id"], each["times"]) for each in ask(table, "Repeats after a crash")] == [("3", 2)]


def test_replays(table):
    """The dead letter that was replayed and each of its replays, once; not the other messages with the same body."""
    found = ask(table, "`dead_letter_first_message_id` is the id under")
    assert [(each["message_id"], each["replayed_as"], each["attempt"], each["status"]) for each in found] == [
        ("5", "20", "1", "dead_letter"),
        ("5", "21", "2", "ok"),
    ]


def test_missing_against_a_record_of_inputs(table):
    """The two messages that were sent and have no row."""
    assert {each["message_id"] for each in ask(table, "By hand, the messages published")} == {"6", "7"}


def test_gaps_in_numbers(table):
    """The same two, by the publisher's numbers."""
    found = ask(table, "Gaps in the numbers")
    assert [(each["missing_from"], each["missing_to"]) for each in found] == [(6, 7)]


def test_the_view_shows_each_message_once(table):
    """The latest row of each message, and all columns of the table."""
    client = clients.bigquery_client("my-project")
    found = [dict(each) for each in client.query(f"SELECT * FROM `{table}.audit_latest` ORDER BY message_id").result()]
    assert [each["message_id"] for each in found] == ["0", "1", "2", "20", "21", "3", "4", "5", "8", "9"]
    (third,) = (each for each in found if each["message_id"] == "3")
    assert third["processed_time"].timestamp() == T0 + 60
    assert [field.name for field in client.get_table(f"{table}.audit_latest").schema] == list(found[0])
    prediction = third["prediction"]
    assert (json.loads(prediction) if isinstance(prediction, str) else prediction) == [3]


def test_the_view_is_the_file():
    """What is created is pipeline/audit_latest.sql with the table's name in it."""
    assert "FROM `my-project.inference.audit`" in latest_query(TableName("my-project", "inference", "audit"))


def test_a_long_job_name_leaves_the_row_id_within_its_quota():
    """An insertId has at most 128 characters; the identity stays one of job and message."""
    long = dataclasses.replace(CONTEXT, job="j" * 255)
    ids = {
        row_id(failure(1), long),
        row_id(failure(2), long),
        row_id(failure(1), dataclasses.replace(long, job="i" * 255)),
    }
    assert len(ids) == 3 and all(len(each) <= 128 for each in ids)
    assert row_id(failure(1), long) == row_id(failure(1), long)


@pytest.fixture(scope="module")
def shadowed(servers):
    """Four messages of two variants, one of them dead, two with what a shadow said and one on which it failed."""
    resources = fresh("shadows")
    sink = audit_sink.BigQuerySink(resources.audit_table)

    def answered(n: int, variant: str, label: str, shadow: dict | None):
        message = Message(b"body %d" % n, {}, str(n), T0 + n, T0 + n)
        info = dataclasses.replace(INFO, variant=variant, models_version="aaaaaaaa-bbbbbb")
        made = Prediction(Request("x", {}, message), [{"label": label}], info, 3, inference_ms=2.5, shadow=shadow)
        return encode(made, clients.LIMITS)

    note = {"variant": "next", "revision": "r", "inference_ms": 4.0}
    records = [
        answered(1, "stable", "a", {**note, "prediction": '[{"label":"a"}]', "agrees": True}),
        answered(2, "stable", "a", {**note, "prediction": '[{"label":"b"}]', "agrees": False}),
        answered(3, "next", "b", {"variant": "next", "revision": "r", "error_type": "ModelError"}),
    ]
    dead = dataclasses.replace(failure(4, "predict"), model=records[0].prediction.model)
    for record in (*records, dead):
        assert sink.insert([to_json(row(record, CONTEXT, T0 + 5))], [row_id(record, CONTEXT)]) == {}
    return f"my-project.{resources.audit_table.dataset}"


def test_agreement_by_label(shadowed):
    """Half of the label's messages; what the shadow failed on counts as none of both."""
    found = {
        each["label"]: (each["messages"], each["agreed"], each["percent"]) for each in ask(shadowed, "How far a shadow")
    }
    assert found == {"a": (2, 1, 50.0), "b": (1, 0, 0.0)}


def test_disagreements(shadowed):
    """The one message on which the two differ, with both labels."""
    found = ask(shadowed, "Disagreements to look at")
    assert [(each["message_id"], each["served"], each["would_have_said"]) for each in found] == [("2", "a", "b")]


def test_variants_and_their_shadows(shadowed):
    """Messages, dead letters and the latency of both, by variant and version."""
    found = {each["variant"]: each for each in ask(shadowed, "Each variant's messages")}
    assert (found["stable"]["messages"], found["stable"]["dead_letters"], found["stable"]["p50"]) == (3, 1, 2.5)
    assert found["stable"]["shadow_p50"] == 4.0 and found["next"]["messages"] == 1


def test_a_row_holds_of_a_shadow_what_its_owner_allows():
    """Without the prediction where predictions are not kept, or where the row would grow too large by it."""
    prediction = Prediction(
        Request("x", {}, Message(b"", {}, "1")), [1], INFO, shadow={"agrees": True, "prediction": "[1]"}
    )
    record = encode(prediction, clients.LIMITS)
    assert json.loads(row(record, CONTEXT, T0).shadow) == {"agrees": True, "prediction": [1]}
    without = dataclasses.replace(CONTEXT, audit_prediction="none")
    assert json.loads(row(record, without, T0).shadow) == {"agrees": True}
    large = dataclasses.replace(prediction, shadow={"agrees": True, "prediction": json.dumps("x" * 2_000_000)})
    assert json.loads(row(encode(large, clients.LIMITS), CONTEXT, T0).shadow) == {
        "agrees": True,
        "prediction": None,
        "cut": True,
    }


def test_tokens_and_cost(table):
    """Each day's results with their tokens and what these cost; a message with two rows counts once."""
    (found,) = ask(table, "Tokens and their cost")
    assert found["tokens_read"] == 3 * found["messages"] and found["tokens_written"] is None
    assert found["cost"] == pytest.approx(found["tokens_read"] * 0.5 / 1e6, abs=1e-4)
