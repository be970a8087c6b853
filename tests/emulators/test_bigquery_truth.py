"""The embedded BigQuery does not answer wrongly: it does what it accepts, and refuses the rest with 501."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import requests
from bigquery_tables import PROJECT, connect, make_dataset, make_table, rows_of
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.emulators.process import Server, spawn


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with spawn("pipeline.emulators.bigquery", "--port", "0") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> bigquery.Client:
    return connect(server)


@pytest.fixture
def dataset(client: bigquery.Client) -> str:
    return make_dataset(client)


# Types and shapes


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("CAST(0.98765 AS NUMERIC)", "NUMERIC", Decimal("0.98765")),
        ("NUMERIC '0.123456789'", "NUMERIC", Decimal("0.123456789")),
        ("CAST('1234567890123456789.123456789' AS NUMERIC)", "NUMERIC", Decimal("1234567890123456789.123456789")),
        ("SAFE_CAST('1.00001' AS NUMERIC)", "NUMERIC", Decimal("1.00001")),
        ("SAFE_CAST('x' AS NUMERIC)", "NUMERIC", None),
        ("PARSE_NUMERIC('1.00001')", "NUMERIC", Decimal("1.00001")),
        ("BIGNUMERIC '0.123456789012345678'", "BIGNUMERIC", Decimal("0.123456789012345678")),
        ("CAST('0.0000001' AS BIGNUMERIC)", "BIGNUMERIC", Decimal("0.0000001")),
        ("PARSE_BIGNUMERIC('0.0000000001')", "BIGNUMERIC", Decimal("0.0000000001")),
        ("CAST(1.256 AS NUMERIC(10, 2))", "NUMERIC", Decimal("1.26")),
        ("SUM(x) FROM UNNEST([NUMERIC '0.00001', NUMERIC '0.00002']) AS x", "NUMERIC", Decimal("0.00003")),
    ],
)
def test_decimals_keep_their_places(client: bigquery.Client, expression: str, kind: str, value: Any) -> None:
    """NUMERIC has nine places and BIGNUMERIC here eighteen, wherever they come from, and results say which it is."""
    answer = client.query_and_wait(f"SELECT {expression}".replace(" FROM", " AS v FROM"))
    assert [tuple(row) for row in answer] == [(value,)]
    assert answer.schema[0].field_type == kind


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("CAST(2.5 AS INT64), CAST(-1.5 AS INT64), CAST(NUMERIC '2.5' AS INT64), CAST(TRUE AS INT64)", (3, -2, 3, 1)),
        ("SAFE_CAST('1.5' AS INT64), SAFE_CAST(' 7 ' AS INT64), CAST('0x1F' AS INT64)", (None, 7, 31)),
        (
            "CAST('TRUE' AS BOOL), SAFE_CAST('1' AS BOOL), SAFE_CAST('t' AS BOOL), CAST(2 AS BOOL)",
            (True, None, None, True),
        ),
        (
            "CAST(1.5 AS STRING), CAST(2.0 AS STRING), CAST(1e-7 AS STRING), CAST(1/3 AS STRING)",
            ("1.5", "2", "1e-07", "0.33333333333333331"),
        ),
        (
            "CAST(NUMERIC '2.50' AS STRING), CAST(BIGNUMERIC '1.123456789012345678' AS STRING)",
            ("2.5", "1.123456789012345678"),
        ),
        (
            "CAST(SUM(x) AS STRING), CAST(AVG(x) AS STRING), CAST(SUM(x) AS INT64) FROM UNNEST([1, 3]) x",
            ("4", "2", 4),
        ),
        (
            "CAST('é' AS BYTES), CAST(b'ab' AS STRING), CAST('é' AS STRING), SAFE_CAST(b'\\xff' AS STRING)",
            ("é".encode(), "ab", "é", None),
        ),
        (
            "SAFE_CAST('999-01-01' AS DATE), SAFE_CAST('2020/01/02' AS DATE), CAST('0999-1-2' AS DATE)",
            (None, None, datetime.date(999, 1, 2)),
        ),
        ("SAFE_CAST('24:00:00' AS TIME), TIME '23:59:59.5'", (None, datetime.time(23, 59, 59, 500_000))),
        (
            "CAST(TIMESTAMP '2020-01-01 00:00:00.1' AS STRING), CAST(DATETIME '2020-01-01 00:00:00.12345' AS STRING)",
            ("2020-01-01 00:00:00.100+00", "2020-01-01 00:00:00.123450"),
        ),
        ("CAST(NULL AS STRING), CAST(NULL AS INT64), CAST(NULL AS DATE), CAST(NULL AS BYTES)", (None,) * 4),
    ],
)
def test_casts_are_the_service_s(client: bigquery.Client, expression: str, values: tuple[Any, ...]) -> None:
    """What a text may look like, how a half is rounded, and how numbers, bytes and times are as text."""
    (row,) = client.query_and_wait(f"SELECT {expression}")
    assert tuple(row) == values


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("CAST('1.5' AS INT64)", "Bad int64 value: 1.5"),
        ("CAST('1' AS BOOL)", "Bad bool value: 1"),
        ("DATE '999-01-01'", "Invalid date: 999-01-01"),
        ("TIMESTAMP '999-01-01 00:00:00'", "Invalid timestamp: 999"),
        ("TIME '24:00:00'", "Invalid time: 24:00:00"),
        ("CAST(b'\\xff' AS STRING)", "UTF8"),
        ("DATE_ADD(DATE '9999-12-31', INTERVAL 1 DAY)", "not within the years 1 to 9999"),
        ("STRUCT(TIMESTAMP_SUB(TIMESTAMP '0001-01-01', INTERVAL 1 SECOND) AS t)", "not within the years 1 to 9999"),
        ("[1, NULL]", "Array cannot have a null element"),
        ("[[1]]", "nested arrays are not supported"),
    ],
)
def test_values_that_the_service_has_not_are_errors_of_the_query(
    client: bigquery.Client, expression: str, words: str
) -> None:
    """A text that is none of its type, a time beyond the calendar, a null in an array and an array in one."""
    with pytest.raises(exceptions.BadRequest, match=words):
        client.query_and_wait(f"SELECT {expression} AS a", retry=None)


def test_a_job_tells_numbers_as_texts(client: bigquery.Client) -> None:
    """Parameters and 64-bit numbers of a configuration are texts when it is told again, however they were sent."""
    parameters = [
        bigquery.ScalarQueryParameter("f", "FLOAT64", 1.5),
        bigquery.ScalarQueryParameter("n", "INT64", None),
        bigquery.ArrayQueryParameter("a", "FLOAT64", [0.5]),
        bigquery.StructQueryParameter("s", bigquery.ScalarQueryParameter("x", "FLOAT64", 2.0)),
    ]
    config = bigquery.QueryJobConfig(query_parameters=parameters, maximum_bytes_billed=100)
    job = client.query("SELECT @f, @n, @a, @s", job_config=config)
    assert [tuple(row) for row in job.result()] == [(1.5, None, [0.5], {"x": 2.0})]
    again = client.get_job(job.job_id)
    assert again.query_parameters == parameters and again.maximum_bytes_billed == 100
    values = [each["parameterValue"] for each in again.to_api_repr()["configuration"]["query"]["queryParameters"]]
    assert [values[0], values[2], values[3]] == [
        {"value": "1.5"},
        {"arrayValues": [{"value": "0.5"}]},
        {"structValues": {"x": {"value": "2.0"}}},
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("STRUCT(1 AS a, 'x' AS b)", {"a": 1, "b": "x"}),
        ("STRUCT(1, 'x' AS b, 2)", {"_field_1": 1, "b": "x", "_field_3": 2}),
        ("(1, 'x')", {"_field_1": 1, "_field_2": "x"}),
        ("((1, 'x'), 2)", {"_field_1": {"_field_1": 1, "_field_2": "x"}, "_field_2": 2}),
        ("(t.x, x) FROM (SELECT 5 AS x) t", {"_field_1": 5, "_field_2": 5}),
        ("STRUCT<a INT64, b STRING>(1, 'x')", {"a": 1, "b": "x"}),
        ("[STRUCT(1 AS a), STRUCT(2 AS a)]", [{"a": 1}, {"a": 2}]),
        ("ARRAY<STRUCT<a INT64, b STRING>>[(1, 'x'), (2, 'y')]", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("STRUCT(t.x, STRUCT(x) AS inner_) FROM (SELECT 5 AS x) t", {"x": 5, "inner_": {"x": 5}}),
        ("ARRAY(SELECT AS STRUCT x, x + 1 AS y FROM UNNEST([1]) AS x)", [{"x": 1, "y": 2}]),
        ("(1, 2) IN ((1, 2), (3, 4))", True),
        (
            "APPROX_TOP_COUNT(x, 2) FROM UNNEST(['b', 'a', 'b', 'c', 'b', 'a']) AS x",
            [{"value": "b", "count": 3}, {"value": "a", "count": 2}],
        ),
    ],
)
def test_records_have_the_services_fields(client: bigquery.Client, expression: str, value: Any) -> None:
    """Structs, tuples and counted values come back as records with the names that the service gives their fields."""
    assert rows_of(client, f"SELECT {expression}") == [(value,)]


def test_select_as_struct_gives_columns(client: bigquery.Client) -> None:
    """At the top of a query, the fields of ``SELECT AS STRUCT`` are the result's columns."""
    answer = client.query_and_wait("SELECT AS STRUCT 1 AS a, 'x' AS b")
    assert [field.name for field in answer.schema] == ["a", "b"] and [tuple(row) for row in answer] == [(1, "x")]


# Resources


def test_labels_are_merged_on_patch_and_replaced_on_put(client: bigquery.Client, dataset: str) -> None:
    """PATCH keeps labels that it does not name and drops those that are null; PUT keeps only what it names."""
    table = make_table(client, dataset, "a:STRING")
    paths = [f"/projects/{PROJECT}/datasets/{dataset.split('.')[1]}"]
    paths.append(f"{paths[0]}/tables/{table.split('.')[2]}")
    for path in paths:

        def call(method: str, path: str = path, **body: Any) -> dict[str, Any]:
            return client._call_api(None, method=method, path=path, data=body or None)

        call("PATCH", labels={"a": "1", "b": "2"}, description="d")
        assert call("PATCH", labels={"b": "3", "c": "4"})["labels"] == {"a": "1", "b": "3", "c": "4"}
        assert call("PATCH", labels={"a": None})["labels"] == {"b": "3", "c": "4"}
        replaced = call("PUT", labels={"z": "5"})
        assert (replaced["labels"], "description" in replaced) == ({"z": "5"}, False)
        assert call("GET")["labels"] == {"z": "5"}
    assert [field.name for field in client.get_table(table).schema] == ["a"]


_FIELD = {"name": "a", "type": "STRING"}


@pytest.mark.parametrize(
    "resource",
    [
        {"schema": {"fields": [{**_FIELD, "defaultValueExpression": "'x'"}]}},
        {"schema": {"fields": [{**_FIELD, "maxLength": "10"}]}},
        {"schema": {"fields": [{"name": "n", "type": "NUMERIC", "precision": "10", "scale": "2"}]}},
        {"schema": {"fields": [{"name": "r", "type": "RECORD", "fields": [{**_FIELD, "maxLength": "10"}]}]}},
        {"schema": {"fields": [{"name": "i", "type": "INTERVAL"}]}},
        {"schema": {"fields": [{"name": "r", "type": "RANGE", "rangeElementType": {"type": "DATE"}}]}},
        {"schema": {"fields": [{"name": "p", "type": "TIMESTAMP", "timestampPrecision": "12"}]}},
        {"externalDataConfiguration": {"sourceFormat": "CSV", "sourceUris": ["gs://bucket/file"]}},
        {"materializedView": {"query": "SELECT 1"}},
        {"expirationTime": "4102444800000"},
        {"requirePartitionFilter": True},
        {"timePartitioning": {"type": "DAY", "expirationMs": "86400000"}},
        {"encryptionConfiguration": {"kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}},
    ],
    ids=lambda resource: str(resource)[:60],
)
def test_tables_that_ask_for_what_is_not_here_are_501(
    server: Server, client: bigquery.Client, dataset: str, resource: dict[str, Any]
) -> None:
    """A setting that would be kept and not heeded is refused by name, when a table is made and when it is changed."""
    base = f"{server.address}/bigquery/v2/projects/{PROJECT}/datasets/{dataset.split('.')[1]}/tables"
    make_table(client, dataset, "a:STRING", name="there")
    for answer in (
        requests.post(base, json={"tableReference": {"tableId": "t"}, **resource}, timeout=10),
        requests.patch(f"{base}/there", json=resource, timeout=10),
    ):
        assert answer.status_code == 501 and "is not supported by the embedded BigQuery" in answer.text
    assert [table.table_id for table in client.list_tables(dataset)] == ["there"]


@pytest.mark.parametrize("name", ["defaultTableExpirationMs", "defaultPartitionExpirationMs", "isCaseInsensitive"])
def test_datasets_that_ask_for_what_is_not_here_are_501(server: Server, name: str) -> None:
    """So is a dataset whose tables would have to expire or to be named in any case."""
    body = {"datasetReference": {"datasetId": "d"}, name: "3600000"}
    answer = requests.post(f"{server.address}/bigquery/v2/projects/other/datasets", json=body, timeout=10)
    assert answer.status_code == 501 and name in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        {"createSession": True},
        {"connectionProperties": [{"key": "session_id", "value": "x"}]},
        {"formatOptions": {"timestampOutputFormat": "ISO8601_STRING"}},
        {"userDefinedFunctionResources": [{"inlineCode": "x"}]},
        {"jobTimeoutMs": "1"},
        {"no_such_option": True},
    ],
    ids=str,
)
def test_queries_that_ask_for_what_is_not_here_are_501(server: Server, options: dict[str, Any]) -> None:
    """So are a session, which would be left out of account, and times in a form that is not here."""
    body = {"query": "SELECT CURRENT_TIMESTAMP() AS now", "useLegacySql": False, **options}
    answer = requests.post(f"{server.address}/bigquery/v2/projects/{PROJECT}/queries", json=body, timeout=10)
    assert answer.status_code == 501 and "is not supported by the embedded BigQuery" in answer.text


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE DATASET.t (a INT64 DEFAULT 5)",
        "CREATE TABLE DATASET.t (a STRING(10))",
        "CREATE TABLE DATASET.t (a NUMERIC(10, 2))",
        "CREATE TABLE DATASET.t (a INT64, PRIMARY KEY (a) NOT ENFORCED)",
        "CREATE TABLE DATASET.t (a INT64) OPTIONS (expiration_timestamp = TIMESTAMP '2030-01-01')",
        "CREATE TABLE DATASET.t (a DATE) PARTITION BY a OPTIONS (require_partition_filter = TRUE)",
        "CREATE TABLE DATASET.t (a DATE) PARTITION BY a OPTIONS (partition_expiration_days = 3)",
        "CREATE MATERIALIZED VIEW DATASET.t AS SELECT 1 AS a",
        "CREATE EXTERNAL TABLE DATASET.t (a INT64) OPTIONS (format = 'CSV', uris = ['gs://bucket/file'])",
        "CREATE TABLE DATASET.t (a INTERVAL)",
        "SELECT INTERVAL 1 DAY AS a",
        "SELECT RANGE(DATE '2020-01-01', DATE '2020-02-01') AS a",
        "SELECT CAST('2026-01-31' AS TIMESTAMP(12)) AS a",
        "CREATE TEMP TABLE t (a INT64)",
        "CREATE TABLE DATASET.t CLONE DATASET.there",
    ],
)
def test_statements_that_ask_for_what_is_not_here_are_501(
    client: bigquery.Client, dataset: str, statement: str
) -> None:
    """DDL is held to the same: nothing is made, and the answer names what is not supported."""
    make_table(client, dataset, "a:STRING", name="there")
    config = bigquery.QueryJobConfig(default_dataset=dataset)
    with pytest.raises(exceptions.MethodNotImplemented, match="is not supported by the embedded BigQuery"):
        client.query_and_wait(statement.replace("DATASET", dataset.split(".")[1]), job_config=config, retry=None)
    assert [table.table_id for table in client.list_tables(dataset)] == ["there"]


def test_options_that_are_done(client: bigquery.Client, dataset: str) -> None:
    """Descriptions, labels and friendly names given by DDL are there afterwards, on the table and on its columns."""
    client.query_and_wait(
        f"CREATE TABLE `{dataset}.t` (a INT64 NOT NULL OPTIONS (description = 'first')) "
        "OPTIONS (labels = [('team', 'ml')], friendly_name = 'T', description = 'd')"
    )
    table = client.get_table(f"{dataset}.t")
    assert (table.labels, table.friendly_name, table.description) == ({"team": "ml"}, "T", "d")
    assert (table.schema[0].mode, table.schema[0].description) == ("REQUIRED", "first")


# Rows out


def test_selected_fields(client: bigquery.Client, dataset: str) -> None:
    """``selectedFields`` picks columns and fields of records, in any case; a name that is none is refused."""
    nested = [bigquery.SchemaField("x", "INTEGER"), bigquery.SchemaField("y", "INTEGER")]
    fields = [bigquery.SchemaField(name, "STRING") for name in "ab"] + [
        bigquery.SchemaField("r", "RECORD", fields=nested)
    ]
    table = client.create_table(bigquery.Table(f"{dataset}.t", fields))
    client.insert_rows_json(table, [{"a": "1", "b": "2", "r": {"x": 3, "y": 4}}])
    path = f"{table.path}/data"

    def listed(names: str) -> Any:
        answer = client._call_api(None, method="GET", path=path, query_params={"selectedFields": names})
        return answer["rows"][0]["f"]

    assert listed("b") == [{"v": "2"}]
    assert listed("R.Y,A") == [{"v": "1"}, {"v": {"f": [{"v": "4"}]}}]
    assert listed("r,r.x") == [{"v": {"f": [{"v": "3"}, {"v": "4"}]}}]
    for wrong in ("nope", "r.nope", "a.x"):
        with pytest.raises(exceptions.BadRequest, match="No such field"):
            listed(wrong)
    assert [tuple(row) for row in client.list_rows(table, selected_fields=[fields[1]])] == [("2",)]


def test_destination_table(client: bigquery.Client, dataset: str) -> None:
    """A query's rows go to its destination table: made, added to, replaced or refused as the dispositions say."""
    target = f"{dataset}.out"

    def run(query: str, **config: Any) -> None:
        client.query(query, job_config=bigquery.QueryJobConfig(destination=target, **config)).result()

    with pytest.raises(exceptions.NotFound):
        run("SELECT 1 AS n", create_disposition="CREATE_NEVER")
    run("SELECT 1 AS n, 'x' AS s")
    with pytest.raises(exceptions.Conflict, match="Already Exists"):
        run("SELECT 2 AS n, 'y' AS s")
    run("SELECT 2 AS n, NULL AS s FROM UNNEST([1]) WHERE FALSE", write_disposition="WRITE_APPEND")
    run("SELECT 'y' AS s, 2 AS n", write_disposition="WRITE_APPEND")
    assert sorted(rows_of(client, f"SELECT n, s FROM `{target}`")) == [(1, "x"), (2, "y")]
    for query in ("SELECT 'text' AS n", "SELECT 1 AS other"):
        with pytest.raises(exceptions.BadRequest, match="does not match Table"):
            run(query, write_disposition="WRITE_APPEND")
    run("SELECT n + 1 AS m FROM UNNEST([1, 2]) AS n", write_disposition="WRITE_TRUNCATE")
    assert sorted(rows_of(client, f"SELECT * FROM `{target}`")) == [(2,), (3,)]
    with pytest.raises(exceptions.BadRequest, match="destination table"):
        run(f"DELETE FROM `{target}` WHERE TRUE")


def test_dml_statistics(client: bigquery.Client, dataset: str) -> None:
    """Jobs that change data say how many rows were inserted, updated and deleted, MERGE each of them."""
    table = f"`{dataset}.t`"
    client.query_and_wait(f"CREATE TABLE {table} (id INT64, v STRING)")
    for statement, expected in (
        (f"INSERT {table} (id) VALUES (1), (2), (3)", (3, 0, 0)),
        (f"UPDATE {table} SET v = 'x' WHERE id < 3", (0, 0, 2)),
        (
            f"MERGE {table} t USING (SELECT n FROM UNNEST([1, 2, 8, 9, 10]) AS n) s ON t.id = s.n "
            "WHEN MATCHED AND n = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'm' "
            "WHEN NOT MATCHED THEN INSERT (id) VALUES (n)",
            (3, 1, 1),
        ),
        (f"DELETE FROM {table} WHERE id > 8", (0, 2, 0)),
        (f"TRUNCATE TABLE {table}", (0, 3, 0)),
    ):
        job = client.query(statement)
        job.result()
        stats = job.dml_stats
        found = (stats.inserted_row_count, stats.deleted_row_count, stats.updated_row_count)
        assert (found, job.num_dml_affected_rows) == (expected, sum(expected)), statement


# Loads

_COLUMNS = [
    bigquery.SchemaField("n", "INTEGER"),
    bigquery.SchemaField("s", "STRING"),
    bigquery.SchemaField("j", "JSON"),
]


def test_json_loads(client: bigquery.Client, dataset: str) -> None:
    """``load_table_from_json`` appends rows to a table, or makes one with given or detected columns."""
    rows = [{"n": 1, "s": "naïve", "j": {"a": [1, None]}}, {"n": 2, "s": None, "j": [1]}]
    config = bigquery.LoadJobConfig(schema=_COLUMNS)
    job = client.load_table_from_json(rows, f"{dataset}.given", job_config=config)
    job.result()
    assert (job.output_rows, job.state) == (2, "DONE")
    client.load_table_from_json([{"n": 3}], f"{dataset}.given").result()
    found = rows_of(client, f"SELECT n, s, j FROM `{dataset}.given` ORDER BY n")
    assert found == [(1, "naïve", {"a": [1, None]}), (2, None, [1]), (3, None, None)]
    guessed = [
        {"i": 1, "f": 1.5, "b": True, "t": "2024-01-02T03:04:05Z", "s": "x", "l": [1, 2], "r": {"x": 1}},
        {"i": None},
    ]
    client.load_table_from_json(guessed, f"{dataset}.guessed").result()
    kinds = {f.name: (f.field_type, f.mode) for f in client.get_table(f"{dataset}.guessed").schema}
    assert kinds == {
        "i": ("INTEGER", "NULLABLE"),
        "f": ("FLOAT", "NULLABLE"),
        "b": ("BOOLEAN", "NULLABLE"),
        "t": ("TIMESTAMP", "NULLABLE"),
        "s": ("STRING", "NULLABLE"),
        "l": ("INTEGER", "REPEATED"),
        "r": ("RECORD", "NULLABLE"),
    }
    truncate = bigquery.LoadJobConfig(schema=_COLUMNS, write_disposition="WRITE_TRUNCATE")
    client.load_table_from_json([{"n": 9}], f"{dataset}.given", job_config=truncate).result()
    assert rows_of(client, f"SELECT n FROM `{dataset}.given`") == [(9,)]


def test_csv_spells_booleans_and_numbers(client: bigquery.Client, dataset: str) -> None:
    """CSV's ways to say yes and no are taken; a number that no FLOAT64 holds is none."""
    schema = [bigquery.SchemaField("b", "BOOL"), bigquery.SchemaField("f", "FLOAT64")]
    config = bigquery.LoadJobConfig(source_format="CSV", schema=schema, max_bad_records=1)
    file = io.BytesIO(b"t,1\nNo,inf\n1,2\n0,3\ntrue,1e400\n")
    assert client.load_table_from_file(file, f"{dataset}.t", job_config=config).result().output_rows == 4
    found = [tuple(row) for row in client.list_rows(f"{dataset}.t")]
    assert found == [(True, 1.0), (False, float("inf")), (True, 2.0), (False, 3.0)]


@pytest.mark.parametrize("sized", [True, False], ids=["multipart", "resumable"])
def test_csv_loads(client: bigquery.Client, dataset: str, sized: bool) -> None:
    """``load_table_from_file`` loads CSV with quotes, line ends within them and nulls, at once or in parts."""
    text = 'n,s,d\r\n1,"a, ""b""\nc",2024-01-02\r\n2,,\r\n-3,é,2024-01-03\r\n'
    many = text + "".join(f"{n},{'x' * 1000},\n" for n in range(1000))
    schema = [bigquery.SchemaField(*column) for column in (("n", "INTEGER"), ("s", "STRING"), ("d", "DATE"))]
    config = bigquery.LoadJobConfig(source_format="CSV", skip_leading_rows=1, schema=schema, allow_quoted_newlines=True)
    body = many.encode()
    target = f"{dataset}.t"
    job = client.load_table_from_file(io.BytesIO(body), target, size=len(body) if sized else None, job_config=config)
    job.result()
    assert job.output_rows == 1003
    found = [tuple(map(str, row)) for row in rows_of(client, f"SELECT n, s, d FROM `{target}` WHERE LENGTH(s) < 99")]
    assert sorted(found) == [("-3", "é", "2024-01-03"), ("1", 'a, "b"\nc', "2024-01-02"), ("2", "", "None")]
    detect = bigquery.LoadJobConfig(source_format="CSV", autodetect=True, allow_quoted_newlines=True)
    client.load_table_from_file(io.BytesIO(text.encode()), f"{dataset}.detected", job_config=detect).result()
    kinds = [(f.name, f.field_type) for f in client.get_table(f"{dataset}.detected").schema]
    assert kinds == [("n", "INTEGER"), ("s", "STRING"), ("d", "DATE")]


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (b"1,2\n3\n", {"source_format": "CSV"}, "line 2 has 1 columns, not 2"),
        (b'1,"2\n', {"source_format": "CSV"}, "not CSV"),
        (b"1,x\nn,y\n", {"source_format": "CSV"}, "row 2: n: Cannot convert value to integer"),
        (b"\xff", {"source_format": "CSV"}, "not UTF-8"),
        (b'{"n": 1}\n{', {"source_format": "NEWLINE_DELIMITED_JSON"}, "line 2 is not JSON"),
        (b"[1]", {"source_format": "NEWLINE_DELIMITED_JSON"}, "not a JSON object"),
        (b'{"z": 1}', {"source_format": "NEWLINE_DELIMITED_JSON"}, "no such field: z"),
    ],
)
def test_bad_files_are_refused_whole(
    client: bigquery.Client, dataset: str, body: bytes, options: dict[str, str], message: str
) -> None:
    """A file with a row that does not fit loads nothing, and the job's error says which row and why."""
    table = make_table(client, dataset, "n:INTEGER", "s:STRING")
    with pytest.raises(exceptions.BadRequest, match=message):
        client.load_table_from_file(io.BytesIO(body), table, job_config=bigquery.LoadJobConfig(**options)).result()
    assert client.get_table(table).num_rows == 0


def test_bad_rows_can_be_left_out(client: bigquery.Client, dataset: str) -> None:
    """Up to ``maxBadRecords`` rows that do not fit are left out and counted."""
    table = make_table(client, dataset, "n:INTEGER")
    rows = [{"n": 1}, {"n": "x"}, {"n": 3}]
    config = bigquery.LoadJobConfig(max_bad_records=1, ignore_unknown_values=True)
    job = client.load_table_from_json(rows, table, job_config=config)
    job.result()
    assert (job.output_rows, job._job_statistics()["badRecords"]) == (2, "1")


@pytest.mark.parametrize("schema", [True, False], ids=["by schema", "by the file"])
def test_a_parquet_file_is_loaded(client: bigquery.Client, dataset: str, schema: bool) -> None:
    """What ``load_table_from_dataframe`` sends: every type comes back as it went, by the job's schema or the file's."""
    moment = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.timezone.utc)
    row = {
        "s": "Zürich",
        "i": -7,
        "f": 0.25,
        "b": True,
        "y": b"\xff",
        "t": moment,
        "d": moment.date(),
        "dt": moment.replace(tzinfo=None),
        "n": Decimal("0.987654321"),
        "r": {"a": 1, "b": ["x", "y"]},
        "l": [1, 2],
        "z": None,
    }
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, {**row, "s": None}]), written)
    lists = bigquery.ParquetOptions()
    lists.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", parquet_options=lists)
    if schema:
        nested = (bigquery.SchemaField("a", "INT64"), bigquery.SchemaField("b", "STRING", "REPEATED"))
        kinds = {"s": "STRING", "i": "INT64", "f": "FLOAT64", "b": "BOOL", "y": "BYTES", "t": "TIMESTAMP", "d": "DATE"}
        kinds |= {"dt": "DATETIME", "n": "NUMERIC", "z": "TIME"}
        config.schema = [
            *(bigquery.SchemaField(name, kind) for name, kind in kinds.items()),
            bigquery.SchemaField("r", "RECORD", fields=nested),
            bigquery.SchemaField("l", "INT64", "REPEATED"),
        ]
    job = client.load_table_from_file(io.BytesIO(written.getvalue()), f"{dataset}.p", job_config=config)
    assert job.result().output_rows == 2
    first, second = (dict(each) for each in client.list_rows(f"{dataset}.p"))
    assert first == row and second == {**row, "s": None}
    with pytest.raises(exceptions.BadRequest, match="no such field: s"):
        config.schema = [bigquery.SchemaField("i", "INT64")]
        client.load_table_from_file(io.BytesIO(written.getvalue()), f"{dataset}.q", job_config=config).result()
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    with pytest.raises(exceptions.MethodNotImplemented, match="enableListInference"):
        client.load_table_from_file(io.BytesIO(written.getvalue()), f"{dataset}.q", job_config=config, num_retries=0)
    with pytest.raises(exceptions.BadRequest, match="not Parquet"):
        client.load_table_from_file(io.BytesIO(b"PAR1"), f"{dataset}.q", job_config=config).result()


@pytest.mark.parametrize("source", ["AVRO", "ORC"])
def test_other_files_are_501(client: bigquery.Client, dataset: str, source: str) -> None:
    """Files of other formats, and files that lie in Cloud Storage, are not loaded, and the answer says so."""
    config = bigquery.LoadJobConfig(source_format=source)
    with pytest.raises(exceptions.MethodNotImplemented, match=source):
        client.load_table_from_file(io.BytesIO(b"x"), f"{dataset}.t", job_config=config, num_retries=0)
    with pytest.raises(exceptions.MethodNotImplemented, match="sourceUris"):
        client.load_table_from_uri("gs://bucket/file", f"{dataset}.t", retry=None)
    config = bigquery.LoadJobConfig(schema=[bigquery.SchemaField("a", "STRING", max_length=10)])
    with pytest.raises(exceptions.MethodNotImplemented, match="maxLength"):
        client.load_table_from_json([{"a": "b"}], f"{dataset}.t", job_config=config, num_retries=0)


def test_bytes_without_their_padding(client: bigquery.Client, dataset: str) -> None:
    """Base64 is read with and without its padding, as the service does."""
    table = make_table(client, dataset, "y:BYTES")
    assert client.insert_rows_json(table, [{"y": "abc"}, {"y": "abc="}, {"y": "YQ"}]) == []
    assert sorted(rows_of(client, f"SELECT y FROM `{table}`")) == [(b"a",), (b"i\xb7",), (b"i\xb7",)]


def test_a_method_that_is_not_here_is_no_missing_resource(server: Server, client: bigquery.Client) -> None:
    """Routines and the like are refused with 501, also to a client that would be glad of a 404."""
    with pytest.raises(exceptions.MethodNotImplemented, match="is not a method of the embedded BigQuery"):
        client.delete_routine(f"{PROJECT}.d.r", not_found_ok=True, retry=None)
    assert requests.get(f"{server.address}/nothing", timeout=10).status_code == 404


def test_what_would_be_left_out_of_account_is_refused(server: Server, client: bigquery.Client, dataset: str) -> None:
    """A listing by labels, rows for a table made from a template, any parameter that is not known: refused by name."""
    with pytest.raises(exceptions.MethodNotImplemented, match="filter"):
        list(client.list_datasets(filter="labels.color:green", retry=None))
    with pytest.raises(exceptions.MethodNotImplemented, match="templateSuffix"):
        client.insert_rows_json(make_table(client, dataset, "n:INTEGER"), [{"n": 1}], template_suffix="_x")
    base = f"{server.address}/bigquery/v2/projects/{PROJECT}"
    patch = {"updateMode": "UPDATE_ACL"}
    for verb, path, parameters in (
        ("GET", "jobs", {"orderBy": "x"}),
        ("PATCH", f"datasets/{dataset.split('.')[1]}", patch),
    ):
        answer = requests.request(verb, f"{base}/{path}", params=parameters, json={}, timeout=10)
        assert answer.status_code == 501 and next(iter(parameters)) in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "option", ["referenceFileSchemaUri", "dateFormat", "jsonExtension", "nullMarkers", "clustering"]
)
def test_loads_that_ask_for_what_is_not_here_are_501(server: Server, dataset: str, option: str) -> None:
    """A load job's options are all known to be heeded, or refused by name."""
    load = {"destinationTable": dict(zip(("projectId", "datasetId"), dataset.split("."), strict=True)), option: ["x"]}
    load["destinationTable"]["tableId"] = "t"
    url = f"{server.address}/bigquery/v2/projects/{PROJECT}/jobs"
    answer = requests.post(url, json={"configuration": {"load": load}}, timeout=10)
    assert answer.status_code == 501 and option in answer.json()["error"]["message"]


def test_a_value_over_two_lines_needs_its_flag(client: bigquery.Client, dataset: str) -> None:
    """A line end within quotes is a row's end in a file of CSV, unless the job says otherwise."""
    config = bigquery.LoadJobConfig(source_format="CSV", schema=[bigquery.SchemaField("a", "STRING")])
    with pytest.raises(exceptions.BadRequest, match="allowQuotedNewlines"):
        client.load_table_from_file(io.BytesIO(b'"x\ny"\n'), f"{dataset}.t", job_config=config, num_retries=0).result()


def test_jobs_are_listed_as_asked(server: Server) -> None:
    """By state, by time and by parent; a job is in the place that it was sent to, with its labels."""
    client = bigquery.Client("listing", AnonymousCredentials(), client_options={"api_endpoint": server.address})
    config = bigquery.QueryJobConfig(labels={"team": "search"})
    job = client.query("SELECT 1", job_id="of-tokyo", location="asia-northeast1", job_config=config)
    assert [row[0] for row in job.result()] == [1] and job.location == "asia-northeast1"
    quick = client.query_and_wait("SELECT 1", job_config=config)
    listed = {each.job_id: each.labels for each in client.list_jobs()}
    assert listed == {"of-tokyo": {"team": "search"}, quick.job_id: {"team": "search"}}
    assert [each.job_id for each in client.list_jobs(state_filter="done", max_results=1)] == [quick.job_id]
    assert list(client.list_jobs(state_filter="running")) == list(client.list_jobs(parent_job="of-tokyo")) == []
    moment = job.created + datetime.timedelta(days=1)
    assert list(client.list_jobs(min_creation_time=moment)) == []
    assert len(list(client.list_jobs(max_creation_time=moment))) == 2
    with pytest.raises(exceptions.NotFound):
        client.get_job("of-tokyo", location="EU")
    minimal = requests.get(f"{server.address}/bigquery/v2/projects/listing/jobs", timeout=10).json()["jobs"]
    assert len(minimal) == 2 and all("configuration" not in each for each in minimal)


def test_a_query_that_is_sent_again_runs_once(server: Server, client: bigquery.Client, dataset: str) -> None:
    """A request that names itself may be repeated, and is not done twice; many at once neither."""
    table = make_table(client, dataset, "n:INTEGER")
    url = f"{server.address}/bigquery/v2/projects/{PROJECT}/queries"
    body = {"query": f"INSERT INTO `{table}` VALUES (1)", "useLegacySql": False, "requestId": "once"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: requests.post(url, json=body, timeout=10).json(), range(4)))
    assert {each["jobReference"]["jobId"] for each in answers} == {answers[0]["jobReference"]["jobId"]}
    assert rows_of(client, f"SELECT COUNT(*) FROM `{table}`") == [(1,)]


def test_parts_of_a_resource(server: Server, client: bigquery.Client, dataset: str) -> None:
    """Fields by their path, a table without its counts, a dataset without its rights; hidden ones on request."""
    client.create_dataset("_hidden", exists_ok=True)
    assert "_hidden" not in [each.dataset_id for each in client.list_datasets()]
    assert "_hidden" in [each.dataset_id for each in client.list_datasets(include_all=True)]
    inner = [bigquery.SchemaField("b", "STRING"), bigquery.SchemaField("c", "STRING")]
    columns = [bigquery.SchemaField("a", "RECORD", fields=inner), bigquery.SchemaField("d", "STRING")]
    client.create_table(bigquery.Table(f"{dataset}.t", columns))
    base = f"{server.address}/bigquery/v2/projects/{PROJECT}/datasets/{dataset.split('.')[1]}"
    shown = requests.get(f"{base}/tables/t", params={"selectedFields": "A.b", "view": "BASIC"}, timeout=10).json()
    assert "numRows" not in shown
    assert [(each["name"], [f["name"] for f in each["fields"]]) for each in shown["schema"]["fields"]] == [("a", ["b"])]
    assert "access" not in requests.get(base, params={"datasetView": "METADATA"}, timeout=10).json()
    assert "labels" not in requests.get(base, params={"datasetView": "ACL"}, timeout=10).json()


def test_uploads_in_parts(server: Server, client: bigquery.Client, dataset: str) -> None:
    """A resumable upload takes its parts in order, tells how far it is, and refuses what does not follow."""
    table = make_table(client, dataset, "n:INTEGER")
    names = dict(zip(("projectId", "datasetId", "tableId"), table.split("."), strict=True))
    load = {"destinationTable": names, "sourceFormat": "NEWLINE_DELIMITED_JSON"}
    url = f"{server.address}/upload/bigquery/v2/projects/{PROJECT}/jobs?uploadType=resumable"
    session = requests.post(url, json={"configuration": {"load": load}}, timeout=10).headers["Location"]

    def put(body: bytes, range_: str) -> requests.Response:
        return requests.put(session, body, headers={"Content-Range": f"bytes {range_}"}, timeout=10)

    first = put(b'{"n": 1}\n', "0-8/*")
    assert (first.status_code, first.headers["Range"]) == (308, "bytes=0-8")
    assert put(b"x", "20-20/30").status_code == 400
    assert put(b"", "*/18").headers["Range"] == "bytes=0-8"
    done = put(b'{"n": 2}\n', "9-17/18")
    assert (done.status_code, done.json()["statistics"]["load"]["outputRows"]) == (200, "2")
    assert put(b"", "*/18").status_code == 404
    assert sorted(rows_of(client, f"SELECT n FROM `{table}`")) == [(1,), (2,)]
    whole = f"{server.address}/upload/bigquery/v2/projects/{PROJECT}/jobs?uploadType=multipart"
    assert requests.post(whole, b"nonsense", timeout=10).status_code == 400
    assert requests.post(whole.replace("multipart", "media"), b"nonsense", timeout=10).status_code == 501
    assert json.loads(requests.get(f"{server.address}/bigquery/v2/projects", timeout=10).text)["totalItems"] >= 1
