"""The embedded BigQuery through the unmodified ``google-cloud-bigquery`` client, Beam's sink and the ``bq`` command."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import requests
from apache_beam.internal.gcp import auth
from apache_beam.io.gcp.bigquery import WriteToBigQuery
from apache_beam.io.gcp.bigquery_tools import RetryStrategy
from apache_beam.testing.util import assert_that, equal_to
from bigquery_tables import (
    AUDIT_FIELDS,
    PROJECT,
    audit_row,
    connect,
    make_audit_table,
    make_dataset,
    make_table,
    rows_of,
)
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.emulators.process import Server, spawn
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD

UTC = dt.timezone.utc


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with spawn("pipeline.emulators.bigquery", "--port", "0") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> bigquery.Client:
    return connect(server)


@pytest.fixture
def dataset(client: bigquery.Client) -> str:
    """A fresh dataset's full name."""
    return make_dataset(client)


@pytest.fixture
def audit(client: bigquery.Client, dataset: str) -> str:
    """A fresh audit table's full name."""
    return make_audit_table(client, dataset)


# Datasets and tables


def test_dataset_lives_its_life(client: bigquery.Client) -> None:
    """A dataset is created once, listed, changed, and deleted only when empty or with its contents."""
    name = make_dataset(client)
    with pytest.raises(exceptions.Conflict, match="Already Exists: Dataset my-project:d"):
        client.create_dataset(name)
    client.create_dataset(name, exists_ok=True)
    assert name.split(".")[1] in {item.dataset_id for item in client.list_datasets()}
    found = client.get_dataset(name)
    found.labels, found.description = {"team": "ml"}, "audits"
    client.update_dataset(found, ["labels", "description"])
    assert client.get_dataset(name).labels == {"team": "ml"}
    make_table(client, name, "a:STRING")
    with pytest.raises(exceptions.BadRequest, match="is still in use"):
        client.delete_dataset(name)
    client.delete_dataset(name, delete_contents=True)
    with pytest.raises(exceptions.NotFound, match="Not found: Dataset my-project:d"):
        client.get_dataset(name)


def test_audit_table_comes_back_as_it_was_made(client: bigquery.Client, audit: str) -> None:
    """Schema with modes and descriptions, partitioning, clustering and description survive the round trip."""
    table = client.get_table(audit)
    assert table.schema == AUDIT_FIELDS
    assert table.time_partitioning.field == AUDIT_PARTITION_FIELD and table.time_partitioning.type_ == "DAY"
    assert table.clustering_fields == AUDIT_CLUSTERING
    assert (table.description, table.num_rows, table.table_type) == ("one row a message", 0, "TABLE")


def test_tables_are_listed_and_deleted(client: bigquery.Client, dataset: str) -> None:
    """Listing pages through all tables of the dataset only; a deleted one is gone."""
    names = [make_table(client, dataset, "a:STRING", name=name) for name in "abc"]
    assert [t.table_id for t in client.list_tables(dataset, page_size=2)] == ["a", "b", "c"]
    client.delete_table(names[0])
    assert [t.table_id for t in client.list_tables(dataset)] == ["b", "c"]
    with pytest.raises(exceptions.NotFound, match=r"Not found: Table my-project:\w+\.a"):
        client.delete_table(names[0])
    with pytest.raises(exceptions.Conflict, match="Already Exists: Table"):
        make_table(client, dataset, "a:STRING", name="b")


def test_schema_grows_and_relaxes_but_never_shrinks(client: bigquery.Client, dataset: str) -> None:
    """Columns are added and requirements dropped with the rows kept; removing or changing a column is refused."""
    name = make_table(client, dataset, "a:STRING:REQUIRED", "n:INTEGER")
    client.insert_rows_json(name, [{"a": "x", "n": 1}])
    table = client.get_table(name)
    table.schema = [
        bigquery.SchemaField("a", "STRING"),
        bigquery.SchemaField("n", "INTEGER"),
        bigquery.SchemaField("tags", "STRING", "REPEATED"),
        bigquery.SchemaField("extra", "JSON"),
    ]
    client.update_table(table, ["schema"])
    assert client.insert_rows_json(name, [{"n": 2, "tags": ["t"], "extra": "1"}]) == []
    rows = rows_of(client, f"SELECT a, n, tags, extra FROM `{name}` ORDER BY n")
    assert rows == [("x", 1, [], None), (None, 2, ["t"], 1)]
    table = client.get_table(name)
    for schema, why in (
        (table.schema[1:], "Field a is missing in new schema"),
        ([bigquery.SchemaField("a", "INTEGER"), *table.schema[1:]], "Field a has changed type from STRING to INTEGER"),
        ([*table.schema, bigquery.SchemaField("r", "STRING", "REQUIRED")], "Cannot add required fields"),
    ):
        table.schema = schema
        with pytest.raises(exceptions.BadRequest, match=why):
            client.update_table(table, ["schema"])


def test_outdated_update_is_refused(client: bigquery.Client, audit: str) -> None:
    """An update made from a table that has changed since fails its precondition."""
    first, second = client.get_table(audit), client.get_table(audit)
    first.description = "changed"
    client.update_table(first, ["description"])
    second.description = "lost"
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(second, ["description"])


def test_null_schema_in_a_patch_changes_nothing(client: bigquery.Client, audit: str) -> None:
    """``bq update`` sends a null schema along with what it changes; other nulls remove."""
    path = "/projects/{}/datasets/{}/tables/{}".format(*audit.split("."))
    body = {"schema": None, "friendlyName": "Audit", "description": None}
    client._call_api(None, method="PATCH", path=path, data=body)
    table = client.get_table(audit)
    assert (table.schema, table.friendly_name, table.description) == (AUDIT_FIELDS, "Audit", None)


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ({"schema": {"fields": [{"name": "a b", "type": "STRING"}]}}, 'Invalid field name "a b"'),
        ({"schema": {"fields": [{"name": "a", "type": "TEXT"}]}}, "TEXT is not a valid value"),
        ({"schema": {"fields": [{"name": "a", "type": "STRING"}, {"name": "A", "type": "DATE"}]}}, "already exists"),
        ({"schema": {"fields": [{"name": "r", "type": "RECORD"}]}}, "is type RECORD but has no schema"),
        ({"schema": {"fields": [{"name": "a", "type": "STRING"}]}, "clustering": {"fields": ["b"]}}, "clustering"),
        ({"schema": {"fields": [{"name": "a", "type": "STRING"}]}, "timePartitioning": {"field": "a"}}, "partition"),
        ({"schema": {"fields": "all"}}, "Invalid value at 'schema.fields': expected an array"),
    ],
)
def test_unsound_tables_are_refused(
    client: bigquery.Client, dataset: str, resource: dict[str, Any], message: str
) -> None:
    """A table that the service would not make is a 400 that names what is wrong with it."""
    project, name = dataset.split(".")
    path = f"{client._connection.API_BASE_URL}/bigquery/v2/projects/{project}/datasets/{name}/tables"
    answer = requests.post(path, json={"tableReference": {"tableId": "t"}, **resource}, timeout=10)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


# Streaming inserts


def test_audit_rows_come_back(client: bigquery.Client, audit: str) -> None:
    """500 rows inserted in one request are read back equal, by query and by listing."""
    rows = [audit_row(number) for number in range(500)]
    assert client.insert_rows_json(audit, rows) == []
    assert client.get_table(audit).num_rows == 500
    found = list(client.query_and_wait(f"SELECT * FROM `{audit}` ORDER BY input_bytes"))
    assert [row["message_id"] for row in found] == [row["message_id"] for row in rows]
    first = dict(found[1])
    assert first["processed_time"] == dt.datetime(2024, 1, 2, 3, 4, 1, 500_000, UTC)
    assert first["prediction"] == {"label": "pos", "score": 0.5}
    assert (first["inference_ms"], first["truncated"], first["error"]) == (0.5, False, None)
    assert [dict(row) for row in client.list_rows(audit, page_size=64)] == [dict(row) for row in found]


def test_every_type_round_trips(client: bigquery.Client, dataset: str) -> None:
    """A value of every column type, plain, repeated and in a record, comes back as the client's own Python value."""
    values: dict[str, Any] = {
        "STRING": "naïve \0 \U0001f600",
        "BYTES": b"\x00\xff",
        "INTEGER": -(2**63),
        "FLOAT": 1.5,
        "NUMERIC": decimal.Decimal("12345678901234567890.123456789"),
        "BIGNUMERIC": decimal.Decimal("0.000000000000000001"),
        "BOOLEAN": False,
        "TIMESTAMP": dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        "DATE": dt.date(1, 1, 1),
        "TIME": dt.time(23, 59, 59, 1),
        "DATETIME": dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),
        "JSON": {"a": [1, None, "é"]},
        "GEOGRAPHY": "POINT(1 2)",
    }
    plain = [bigquery.SchemaField(f"c_{kind}", kind) for kind in values]
    repeated = [bigquery.SchemaField(f"r_{kind}", kind, "REPEATED") for kind in values]
    record = bigquery.SchemaField("record", "RECORD", "NULLABLE", fields=plain)
    records = bigquery.SchemaField("records", "RECORD", "REPEATED", fields=plain)
    table = client.create_table(bigquery.Table(f"{dataset}.t", [*plain, *repeated, record, records]))
    row = {f"c_{kind}": value for kind, value in values.items()}
    whole = {**row, **{f"r_{kind}": [value, value] for kind, value in values.items()}, "record": row, "records": [row]}
    assert client.insert_rows(table, [whole, {}]) == []
    found = [dict(row) for row in client.list_rows(table)]
    empty = {field.name: [] if field.mode == "REPEATED" else None for field in table.schema}
    assert found == [whole, empty]
    assert [dict(row) for row in client.query_and_wait(f"SELECT * FROM `{dataset}.t`")] == found


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-31T12:00:00.123456Z", dt.datetime(2024, 1, 31, 12, 0, 0, 123456, UTC)),
        ("2024-01-31T12:00:00Z", dt.datetime(2024, 1, 31, 12, tzinfo=UTC)),
        ("2024-01-31 12:00:00.5 UTC", dt.datetime(2024, 1, 31, 12, 0, 0, 500_000, UTC)),
        ("2024-01-31 12:00+02:00", dt.datetime(2024, 1, 31, 10, tzinfo=UTC)),
        ("2024/1/31 12:00:00-0130", dt.datetime(2024, 1, 31, 13, 30, tzinfo=UTC)),
        ("2024-01-31", dt.datetime(2024, 1, 31, tzinfo=UTC)),
        ("1706702400.25", dt.datetime(2024, 1, 31, 12, 0, 0, 250_000, UTC)),
        (1706702400, dt.datetime(2024, 1, 31, 12, tzinfo=UTC)),
        (1706702400.000001, dt.datetime(2024, 1, 31, 12, 0, 0, 1, UTC)),
    ],
)
def test_timestamps_are_read_in_every_form(
    client: bigquery.Client, dataset: str, text: Any, moment: dt.datetime
) -> None:
    """RFC 3339 and its variants, text or epoch seconds, all mean the same moment."""
    table = make_table(client, dataset, "ts:TIMESTAMP")
    assert client.insert_rows_json(table, [{"ts": text}]) == []
    assert rows_of(client, f"SELECT ts FROM `{table}`") == [(moment,)]


@pytest.mark.parametrize(
    ("row", "location", "message"),
    [
        ({"nope": 1}, "nope", "no such field: nope."),
        ({"s": None}, "", "Missing required field: Msg_0_CLOUD_QUERY_TABLE.s."),
        ({"i": "medium"}, "i", "Cannot convert value to integer (bad value): medium"),
        ({"i": 1.5}, "i", "Cannot convert value to integer (bad value): 1.5"),
        ({"i": 2**63}, "i", "Cannot convert value to integer (bad value): 9223372036854775808"),
        ({"f": "SPY"}, "f", "Cannot convert value to floating point (bad value): SPY"),
        ({"b": "maybe"}, "b", "Cannot convert value to boolean (bad value): maybe"),
        ({"s": True}, "s", "Conversion from bool to std::string is unsupported."),
        ({"s": ["a"]}, "s", "Array specified for non-repeated field: s."),
        ({"s": {"a": 1}}, "s", "This field: s is not a record."),
        ({"j": {"a": 1}}, "j", "This field: j is not a record."),
        ({"r": {"x": "y"}}, "r.x", "Cannot convert value to integer (bad value): y"),
        ({"r": {"z": 1}}, "r.z", "no such field: r.z."),
        ({"r": 5}, "r", "This field: r is not a record."),
        ({"a": "one"}, "a", "Repeated value added outside of an array, field: a."),
        ({"a": ["one", None]}, "a", "Only optional fields can be set to NULL. Field: a; Value: NULL"),
        (
            {"ts": "soon"},
            "ts",
            "Could not parse 'soon' as a timestamp. Required format is YYYY-MM-DD HH:MM[:SS[.SSSSSS]] or "
            "YYYY/MM/DD HH:MM[:SS[.SSSSSS]]",
        ),
        ({"ts": 1e300}, "ts", "Timestamp is out of supported range: 1e+300"),
        ({"d": "2024-02-30"}, "d", "Invalid date: '2024-02-30'"),
        ({"y": "abcde"}, "y", "Could not decode base64 string to bytes."),
        ({"y": "*"}, "y", "Could not decode base64 string to bytes."),
        ({"n": "1e"}, "n", "Invalid NUMERIC value: 1e"),
    ],
)
def test_rejected_rows_say_why_in_the_services_words(
    client: bigquery.Client, dataset: str, row: dict[str, Any], location: str, message: str
) -> None:
    """A row that does not fit is told why, in the service's format; its neighbours stop, and nothing is stored."""
    columns = ("s:STRING:REQUIRED", "i:INTEGER", "f:FLOAT", "b:BOOLEAN", "j:JSON", "ts:TIMESTAMP", "d:DATE", "y:BYTES")
    fields = [bigquery.SchemaField(*column.split(":")) for column in (*columns, "n:NUMERIC", "a:STRING:REPEATED")]
    fields.append(bigquery.SchemaField("r", "RECORD", fields=[bigquery.SchemaField("x", "INTEGER")]))
    table = client.create_table(bigquery.Table(f"{dataset}.t", fields))
    errors = client.insert_rows_json(table, [{"s": "good"}, {"s": "bad", **row}])
    stopped = {"reason": "stopped", "location": "", "debugInfo": "", "message": ""}
    invalid = {"reason": "invalid", "location": location, "debugInfo": "", "message": message}
    assert errors == [{"index": 0, "errors": [stopped]}, {"index": 1, "errors": [invalid]}]
    assert client.get_table(table).num_rows == 0


def test_json_column_takes_json_text_only(client: bigquery.Client, audit: str) -> None:
    """Text that is not JSON is rejected at its row; the others go in when invalid rows are skipped."""
    rows = [audit_row(number, prediction=text) for number, text in enumerate(["{", "", "[1, 2]", "nul", "null"])]
    errors = client.insert_rows_json(audit, rows, skip_invalid_rows=True)
    assert [(error["index"], error["errors"][0]["location"]) for error in errors] == [
        (0, "prediction"),
        (1, "prediction"),
        (3, "prediction"),
    ]
    assert rows_of(client, f"SELECT message_id, prediction FROM `{audit}` ORDER BY 1") == [("2", [1, 2]), ("4", None)]


def test_unknown_values_can_be_ignored(client: bigquery.Client, audit: str) -> None:
    """With ``ignoreUnknownValues`` a row goes in without its unknown fields; names match whatever their case."""
    row = {**audit_row(1), "nope": {"a": 1}}
    row["STATUS"] = row.pop("status")
    assert client.insert_rows_json(audit, [row], ignore_unknown_values=True) == []
    assert rows_of(client, f"SELECT message_id, status FROM `{audit}`") == [("1", "ok")]


def test_repeated_insert_ids_are_stored_once(client: bigquery.Client, audit: str) -> None:
    """Rows sent again under their ``insertId`` are accepted and left out, in the same request too; others stay."""
    for number in range(2):
        rows = [audit_row(1), audit_row(1), audit_row(2), audit_row(3 + number)]
        assert client.insert_rows_json(audit, rows, row_ids=["a", "a", "b", None]) == []
    assert sorted(rows_of(client, f"SELECT message_id FROM `{audit}`")) == [("1",), ("2",), ("3",), ("4",)]


def test_rejected_rows_leave_their_insert_ids_free(client: bigquery.Client, audit: str) -> None:
    """A row that was refused is not taken for a repeat when it comes again, mended."""
    assert client.insert_rows_json(audit, [audit_row(1, tokens="many")], row_ids=["a"])
    assert client.insert_rows_json(audit, [audit_row(1)], row_ids=["a"]) == []
    assert client.get_table(audit).num_rows == 1


def test_insert_limits(client: bigquery.Client, audit: str) -> None:
    """Over 10 MB is a 413, over 50,000 rows, no rows and an unknown table are errors in the service's words."""
    with pytest.raises(exceptions.GoogleAPICallError, match="413 .*Request payload size exceeds the limit: 10485760"):
        client.insert_rows_json(audit, [audit_row(1, input="x" * 10_500_000)], retry=None)
    with pytest.raises(exceptions.BadRequest, match="too many rows present in the request, limit: 50000"):
        client.insert_rows_json(audit, [{}] * 50_001)
    with pytest.raises(exceptions.BadRequest, match="No rows present in the request."):
        client.insert_rows_json(audit, [])
    with pytest.raises(exceptions.NotFound, match=r"Not found: Table my-project:\w+\.nope"):
        client.insert_rows_json(audit.replace(".audit", ".nope"), [{}], retry=None)
    assert client.insert_rows_json(audit, [audit_row(1, input="x" * 10_000_000)]) == []


# Queries


def test_group_by_over_the_audit_table(client: bigquery.Client, audit: str) -> None:
    """The auditor's first question is answered, by full name, by dataset, and with a default dataset."""
    rows = [audit_row(n, status="dead_letter" if n % 5 == 0 else "ok") for n in range(20)]
    client.insert_rows_json(audit, rows)
    expected = [("dead_letter", "m", 4), ("ok", "m", 16)]
    config = bigquery.QueryJobConfig(default_dataset=audit.rsplit(".", 1)[0])
    for name in (f"`{audit}`", audit.split(".", 1)[1], "audit"):
        query = f"SELECT status, model, COUNT(*) FROM {name} GROUP BY status, model ORDER BY status"
        job = client.query(query, job_config=config)
        assert [tuple(row.values()) for row in job.result()] == expected
        assert [field.name for field in job.result().schema] == ["status", "model", "f0_"]


def test_view_shows_each_message_once(client: bigquery.Client, audit: str) -> None:
    """A view made through the API or by DDL can be queried, joined and described, and takes no rows."""
    client.insert_rows_json(audit, [audit_row(1), audit_row(1, status="dead_letter", processed_time=9e9), audit_row(2)])
    latest = (
        f"SELECT * FROM `{audit}` QUALIFY ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY processed_time DESC) = 1"
    )
    view = bigquery.Table(audit + "_latest")
    view.view_query = latest
    made = client.create_table(view)
    assert (made.table_type, [field.name for field in made.schema]) == ("VIEW", [field.name for field in AUDIT_FIELDS])
    client.query_and_wait(f"CREATE OR REPLACE VIEW `{audit}_again` AS SELECT message_id, status FROM `{view}`")
    query = f"SELECT l.message_id, l.status FROM `{view}` AS l JOIN `{audit}_again` USING (message_id) ORDER BY 1"
    assert rows_of(client, query) == [("1", "dead_letter"), ("2", "ok")]
    with pytest.raises(exceptions.BadRequest, match="VIEW"):
        client.insert_rows_json(view, [audit_row(3)])
    client.insert_rows_json(audit, [audit_row(3)])
    assert rows_of(client, f"SELECT COUNT(*) FROM `{view}`") == [(3,)]


def test_parameters(client: bigquery.Client) -> None:
    """Named, positional, array, struct and null parameters arrive with their types."""
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, 6, UTC)
    named = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ScalarQueryParameter("ts", "TIMESTAMP", moment),
            bigquery.ArrayQueryParameter("ids", "INT64", [1, 2]),
            bigquery.ScalarQueryParameter("none", "STRING", None),
            bigquery.ScalarQueryParameter("amount", "NUMERIC", decimal.Decimal("1.5")),
            bigquery.ScalarQueryParameter("raw", "BYTES", b"\xff"),
            bigquery.StructQueryParameter("s", bigquery.ScalarQueryParameter("x", "INT64", 7)),
        ]
    )
    query = "SELECT @ts, 2 IN UNNEST(@ids), @none, @amount, @raw, @s.x, @ts > TIMESTAMP '2024-01-01'"
    expected = [(moment, True, None, decimal.Decimal("1.5"), b"\xff", 7, True)]
    assert rows_of(client, query, job_config=named) == expected
    positional = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter(None, "STRING", x) for x in "abc"]
    )
    assert rows_of(client, "SELECT ?, '?', ? FROM (SELECT ?)", job_config=positional) == [("a", "?", "b")]
    odd = bigquery.QueryJobConfig(query_parameters=[bigquery.ScalarQueryParameter('a "very" odd name', "INT64", 3)])
    assert rows_of(client, 'SELECT @`a "very" odd name`', job_config=odd) == [(3,)]
    with pytest.raises(exceptions.BadRequest, match="Query parameter 'nope' not found"):
        rows_of(client, "SELECT @nope")
    seconds = bigquery.QueryJobConfig(query_parameters=[bigquery.ScalarQueryParameter("ts", "TIMESTAMP", 1.4e9)])
    with pytest.raises(exceptions.BadRequest, match="as a timestamp"):
        rows_of(client, "SELECT @ts", job_config=seconds)


def test_results_come_in_pages(client: bigquery.Client) -> None:
    """A result larger than a page arrives whole and in order, however small the pages."""
    query = "SELECT n FROM UNNEST(GENERATE_ARRAY(1, 25000)) AS n ORDER BY n"
    assert [row.n for row in client.query(query).result()] == list(range(1, 25_001))
    pages = client.query(query).result(page_size=10_000).pages
    assert [page.num_items for page in pages] == [10_000, 10_000, 5_000]


def test_dry_run_checks_and_runs_nothing(client: bigquery.Client, audit: str) -> None:
    """A dry run gives the schema, or the error, and changes nothing."""
    config = bigquery.QueryJobConfig(dry_run=True)
    job = client.query(f"SELECT status, COUNT(*) AS n FROM `{audit}` GROUP BY 1", job_config=config)
    assert [(field.name, field.field_type) for field in job.schema] == [("status", "STRING"), ("n", "INTEGER")]
    client.query(f"DROP TABLE `{audit}`", job_config=config)
    client.query(f"DELETE FROM `{audit}` WHERE TRUE", job_config=config)
    assert client.get_table(audit).num_rows == 0
    with pytest.raises(exceptions.BadRequest, match="nope"):
        client.query(f"SELECT nope FROM `{audit}`", job_config=config)


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (
            "SELECT * FROM DATASET.nope",
            exceptions.NotFound,
            r"Not found: Table my-project:\w+\.nope was not found in location US",
        ),
        ("SELECT * FROM nope.t", exceptions.NotFound, "Not found: Dataset my-project:nope was not found in location"),
        (
            "SELECT * FROM t",
            exceptions.BadRequest,
            r'Table "t" must be qualified with a dataset \(e.g. dataset.table\)',
        ),
        ("SELECT nope FROM DATASET.audit", exceptions.BadRequest, 'column "nope" not found'),
        ("SELEC 1", exceptions.BadRequest, r"Syntax error: .* at \[1:\d+\]"),
        ("SELECT 1 AS a, 2 AS A", exceptions.BadRequest, r"Found duplicate\(s\): a\b"),
        ("invalid syntax;", exceptions.BadRequest, "Syntax error: Unexpected expression"),
        ("f(1)", exceptions.BadRequest, "Syntax error: Unexpected expression"),
        ("SELECT 1; SELECT 2", exceptions.MethodNotImplemented, "scripts are not supported"),
        ("SELECT ST_GEOGPOINT(1, 2)", exceptions.MethodNotImplemented, "ST_GEOGPOINT is not supported"),
        ("SELECT NOPE(1)", exceptions.BadRequest, "Function not found: NOPE"),
        ("SELECT CAST('x' AS INT64)", exceptions.BadRequest, "Bad int64 value: x"),
        ("SELECT 1 / 0", exceptions.BadRequest, "division by zero"),
        ("SELECT * FROM read_csv('/etc/passwd')", exceptions.BadRequest, "disabled by configuration"),
        ("GRANT SELECT ON DATASET.audit TO x", exceptions.MethodNotImplemented, "GRANT"),
        (f"SELECT {'(' * 3000}1{')' * 3000}", exceptions.BadRequest, "recursion|nested"),
    ],
)
def test_query_errors(client: bigquery.Client, audit: str, query: str, error: type[Exception], message: str) -> None:
    """What is wrong with a query is told with the service's status, and its words where it has any."""
    query = query.replace("DATASET", audit.split(".")[1])
    with pytest.raises(error, match=message):
        client.query(query).result(retry=None)
    with pytest.raises(error, match=message):
        client.query_and_wait(query, retry=None, job_retry=None)


def test_statements_that_change_data(client: bigquery.Client, dataset: str) -> None:
    """DDL makes and drops tables, DML tells how many rows it changed."""
    name = f"`{dataset}.t`"
    client.query_and_wait(
        f"CREATE TABLE {name} (id INT64 NOT NULL, tags ARRAY<STRING>, ts TIMESTAMP) "
        "PARTITION BY TIMESTAMP_TRUNC(ts, HOUR) CLUSTER BY id OPTIONS (description = 'made by DDL')"
    )
    table = client.get_table(f"{dataset}.t")
    assert [(f.name, f.field_type, f.mode) for f in table.schema] == [
        ("id", "INTEGER", "REQUIRED"),
        ("tags", "STRING", "REPEATED"),
        ("ts", "TIMESTAMP", "NULLABLE"),
    ]
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("HOUR", "ts")
    assert (table.clustering_fields, table.description) == (["id"], "made by DDL")
    for statement, affected in (
        (f"INSERT INTO {name} (id, tags) VALUES (1, ['a']), (2, [])", 2),
        (f"UPDATE {name} SET ts = CURRENT_TIMESTAMP() WHERE id = 1", 1),
        (
            f"MERGE {name} t USING (SELECT 2 AS id UNION ALL SELECT 3) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET tags = ['m'] WHEN NOT MATCHED THEN INSERT (id) VALUES (id)",
            2,
        ),
        (f"DELETE FROM {name} WHERE id = 1", 1),
    ):
        job = client.query(statement)
        job.result()
        assert job.num_dml_affected_rows == affected
    client.query_and_wait(f"CREATE TABLE `{dataset}.copy` AS SELECT id, tags FROM {name}")
    assert rows_of(client, f"SELECT * FROM `{dataset}.copy` ORDER BY id") == [(2, ["m"]), (3, [])]
    client.query_and_wait(f"CREATE OR REPLACE TABLE `{dataset}.copy` AS SELECT id FROM `{dataset}.copy` WHERE id > 2")
    assert rows_of(client, f"SELECT * FROM `{dataset}.copy`") == [(3,)]
    client.query_and_wait(f"TRUNCATE TABLE {name}")
    assert client.get_table(f"{dataset}.t").num_rows == 0
    client.query_and_wait(f"DROP TABLE {name}")
    client.query_and_wait(f"DROP TABLE IF EXISTS {name}")
    with pytest.raises(exceptions.NotFound):
        client.get_table(f"{dataset}.t")


def test_jobs_are_remembered(client: bigquery.Client) -> None:
    """A query job can be found again with its answer, listed and cancelled; its id cannot be used twice."""
    job = client.query("SELECT 1 AS one", job_id=f"job-{uuid.uuid4().hex}")
    again = client.get_job(job.job_id)
    assert again.done() and [row.one for row in again.result()] == [1]
    assert job.job_id in {item.job_id for item in client.list_jobs()}
    assert again.cancel() is not None
    with pytest.raises(exceptions.Conflict, match="Already Exists: Job"):
        client._call_api(None, method="POST", path=f"/projects/{PROJECT}/jobs", data=job.to_api_repr())
    with pytest.raises(exceptions.NotFound, match="Not found: Job"):
        client.get_job("nope")


def test_other_jobs_are_refused_clearly(client: bigquery.Client, dataset: str) -> None:
    """A copy job, which the embedded server does not have, says so."""
    with pytest.raises(exceptions.MethodNotImplemented, match="query and load jobs only"):
        client.copy_table(f"{dataset}.a", f"{dataset}.b", retry=None)


# Beam and bq


def test_beams_sink_writes_rows_and_gives_back_bad_ones(
    server: Server, client: bigquery.Client, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``WriteToBigQuery`` streams good rows in and returns each bad one with the service's error."""
    monkeypatch.setenv(server.name, server.address)
    # Its client takes the machine's credentials, and the old one that it also builds looks half a minute for them.
    monkeypatch.setattr("google.auth.default", lambda *_, **__: (AnonymousCredentials(), PROJECT))
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    table = make_table(client, dataset, "a:INTEGER", "b:STRING:REQUIRED")
    bad = [{"a": "bad", "b": "x"}, {"a": 1}]
    with beam.Pipeline("FnApiRunner") as pipeline:
        rows = pipeline | beam.Create([{"a": number, "b": "x"} for number in range(20)] + bad)
        written = rows | WriteToBigQuery(
            table.replace(".", ":", 1),
            method=WriteToBigQuery.Method.STREAMING_INSERTS,
            create_disposition="CREATE_NEVER",
            insert_retry_strategy=RetryStrategy.RETRY_NEVER,
        )
        failed = written.failed_rows_with_errors | beam.MapTuple(lambda _, row, errors: (row, errors[0]["message"]))
        messages = (
            "Cannot convert value to integer (bad value): bad",
            "Missing required field: Msg_0_CLOUD_QUERY_TABLE.b.",
        )
        assert_that(failed, equal_to(list(zip(bad, messages, strict=True))))
    assert sorted(rows_of(client, f"SELECT a FROM `{table}`")) == [(number,) for number in range(20)]


@pytest.mark.skipif(shutil.which("bq") is None, reason="needs the bq command of the Google Cloud CLI")
def test_bq_command_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``bq --api`` makes a partitioned table, inserts, queries, rejects and shows, with no account."""
    # Any access token will do in place of an account: nobody looks at it.
    (tmp_path / "token").write_text("none")
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))

    def bq(*arguments: str, stdin: str = "", code: int = 0) -> str:
        flags = ("--api", server.address, f"--project_id={PROJECT}", "--bigqueryrc=", "--headless", "--quiet")
        done = subprocess.run(["bq", *flags, *arguments], input=stdin, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    dataset = f"bq{uuid.uuid4().hex}"
    bq("mk", "--dataset", dataset)
    schema = "message_id:STRING,processed_time:TIMESTAMP,status:STRING,model:STRING,input_bytes:INTEGER"
    layout = ("--time_partitioning_field=processed_time", "--clustering_fields=model,status")
    bq("mk", "--table", *layout, f"{dataset}.audit", schema)
    rows = [{"message_id": str(n), "status": "ok", "model": "m", "processed_time": 0} for n in range(3)]
    bq("insert", f"{dataset}.audit", stdin="\n".join(map(json.dumps, rows)))
    query = f"SELECT status, model, COUNT(*) AS n FROM {dataset}.audit GROUP BY status, model"
    answer = bq("--format=json", "query", "--nouse_legacy_sql", query)
    assert json.loads(answer) == [{"status": "ok", "model": "m", "n": "3"}]
    rejected = bq("insert", f"{dataset}.audit", stdin='{"input_bytes": "many"}', code=1)
    assert "Cannot convert value to integer (bad value): many" in rejected
    shown = json.loads(bq("--format=json", "show", f"{dataset}.audit"))
    assert (shown["numRows"], shown["timePartitioning"]["field"]) == ("3", "processed_time")


def test_concurrent_writers_and_readers(server: Server, client: bigquery.Client, audit: str) -> None:
    """Inserts and queries from several threads at once lose nothing and disturb nobody."""

    def write(writer: int) -> list[Any]:
        own = connect(server)
        errors: list[Any] = []
        for batch in range(5):
            start = (writer * 5 + batch) * 20
            errors += own.insert_rows_json(audit, [audit_row(n) for n in range(start, start + 20)])
            assert rows_of(own, f"SELECT COUNT(*) FROM `{audit}`")[0][0] >= 20
        return errors

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(write, range(6))) == [[]] * 6
    assert rows_of(client, f"SELECT COUNT(*), COUNT(DISTINCT message_id) FROM `{audit}`") == [(600, 600)]
