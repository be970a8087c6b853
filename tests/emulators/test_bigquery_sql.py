"""GoogleSQL on the embedded BigQuery: what auditors write means what the service says it means."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from pipeline.emulators.bigquery.query import Answer, Statement, execute
from pipeline.emulators.bigquery.refs import DatasetRef, TableRef
from pipeline.emulators.bigquery.rows import check_rows, to_arrow
from pipeline.emulators.bigquery.store import Store
from transforms.records import AUDIT_SCHEMA

UTC = dt.timezone.utc
PREDICTION = {
    "label": "pos",
    "score": 0.5,
    "none": None,
    "all": [{"label": "pos"}, {"label": "neg"}],
    "n": 7,
    "t": True,
}
MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678_901, UTC)


@pytest.fixture(scope="module")
def store() -> Store:
    """Audit rows of 2024-01-02 to 2024-01-05: message 0 failed first and succeeded when it was replayed."""
    store = Store()
    store.create_dataset(DatasetRef("p", "ds"), {})
    store.create_table(TableRef("p", "ds", "audit"), {"schema": {"fields": AUDIT_SCHEMA}})
    rows = [
        {
            "message_id": str(day % 3),
            "publish_time": (MOMENT + dt.timedelta(days=day)).isoformat(),
            "processed_time": (MOMENT + dt.timedelta(days=day, milliseconds=1500)).isoformat(),
            "status": "dead_letter" if day == 0 else "ok",
            "model": None if day == 0 else "minilm",
            "prediction": None if day == 0 else json.dumps(PREDICTION),
            "attributes": json.dumps({"tags": ["a", "b"]}),
            "input_bytes": day * 10,
            "inference_ms": float(day),
        }
        for day in range(4)
    ]
    insert(store, "audit", rows)
    nested = [
        {"name": "id", "type": "INTEGER"},
        {"name": "d", "type": "DATE"},
        {"name": "tags", "type": "STRING", "mode": "REPEATED"},
        {
            "name": "items",
            "type": "RECORD",
            "mode": "REPEATED",
            "fields": [{"name": "k", "type": "STRING"}, {"name": "v", "type": "FLOAT"}],
        },
    ]
    store.create_table(TableRef("p", "ds", "nested"), {"schema": {"fields": nested}})
    items = [{"k": "k1", "v": 1.0}, {"k": "k2", "v": 2.0}]
    insert(store, "nested", [{"id": 1, "d": "2024-01-31", "tags": ["u", "v"], "items": items}, {"id": 2}])
    return store


def insert(store: Store, table: str, rows: list[dict[str, Any]]) -> None:
    ref = TableRef("p", "ds", table)
    columns, errors = check_rows(store.table(ref).fields, rows)
    assert not errors
    store.append(ref, to_arrow(store.table(ref).fields, columns), [None] * len(rows))


def run(store: Store, query: str) -> Answer:
    return execute(store, Statement(query, "p", "ds"))


def rows_of(store: Store, query: str) -> list[tuple[Any, ...]]:
    table = run(store, query).rows
    assert table is not None
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "SELECT TIMESTAMP_TRUNC(processed_time, DAY) AS day, COUNT(*), COUNTIF(status = 'dead_letter') FROM audit "
            "GROUP BY day ORDER BY day LIMIT 2",
            [
                (dt.datetime(2024, 1, 2, tzinfo=UTC), 1, 1),
                (dt.datetime(2024, 1, 3, tzinfo=UTC), 1, 0),
            ],
        ),
        ("SELECT SAFE_DIVIDE(COUNTIF(status = 'dead_letter'), COUNT(*)) FROM audit", [(0.25,)]),
        ("SELECT APPROX_QUANTILES(inference_ms, 100)[OFFSET(95)] FROM audit", [(3.0,)]),
        ("SELECT APPROX_QUANTILES(status, 2) FROM audit", [(["dead_letter", "ok", "ok"],)]),
        (
            "SELECT message_id, status FROM audit "
            "QUALIFY ROW_NUMBER() OVER (PARTITION BY message_id ORDER BY processed_time DESC) = 1 ORDER BY 1",
            [("0", "ok"), ("1", "ok"), ("2", "ok")],
        ),
        (
            "SELECT message_id, ARRAY_AGG(status ORDER BY processed_time DESC LIMIT 1)[OFFSET(0)] FROM `p.ds.audit` "
            "GROUP BY message_id ORDER BY 1",
            [("0", "ok"), ("1", "ok"), ("2", "ok")],
        ),
        (
            "SELECT latest.status FROM (SELECT ARRAY_AGG(a ORDER BY processed_time DESC LIMIT 1)[OFFSET(0)] AS latest "
            "FROM ds.audit AS a GROUP BY message_id) ORDER BY latest.message_id",
            [("ok",)] * 3,
        ),
        (
            "SELECT model, STRING_AGG(message_id, '+' ORDER BY processed_time) FROM audit GROUP BY model ORDER BY 1",
            [(None, "0"), ("minilm", "1+2+0")],
        ),
        ("SELECT ARRAY_AGG(model IGNORE NULLS ORDER BY input_bytes DESC LIMIT 2) FROM audit", [(["minilm"] * 2,)]),
        ("SELECT STRING_AGG(status, ',' ORDER BY input_bytes LIMIT 2) FROM audit", [("dead_letter,ok",)]),
        ("SELECT ANY_VALUE(status HAVING MIN processed_time) FROM audit", [("dead_letter",)]),
        ("SELECT COUNTIF(model = 'x') FROM audit WHERE model IS NULL", [(0,)]),
        (
            "SELECT AVG(TIMESTAMP_DIFF(processed_time, publish_time, MILLISECOND)), "
            "MAX(TIMESTAMP_DIFF(processed_time, publish_time, SECOND)) FROM audit",
            [(1500.0, 1)],
        ),
        (
            "SELECT COUNT(*) FROM audit "
            "WHERE processed_time BETWEEN TIMESTAMP '2024-01-03' AND TIMESTAMP('2024-01-05') "
            "AND processed_time < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY) "
            "AND DATE(processed_time) > '2024-01-02'",
            [(2,)],
        ),
        (
            "WITH hours AS (SELECT h FROM UNNEST(GENERATE_TIMESTAMP_ARRAY('2024-01-02', '2024-01-06', INTERVAL 1 DAY)) "
            "AS h) SELECT h FROM hours LEFT JOIN audit ON TIMESTAMP_TRUNC(processed_time, DAY) = h "
            "WHERE message_id IS NULL",
            [(dt.datetime(2024, 1, 6, tzinfo=UTC),)],
        ),
        (
            "SELECT input_bytes, LAG(input_bytes) OVER (ORDER BY processed_time) FROM audit ORDER BY 1 LIMIT 2",
            [(0, None), (10, 0)],
        ),
        ("SELECT PERCENTILE_CONT(inference_ms, 0.5) OVER () FROM audit LIMIT 1", [(1.5,)]),
        ("SELECT audit.status, ds.audit.model FROM ds.audit WHERE audit.input_bytes = 0", [("dead_letter", None)]),
        (
            "SELECT * EXCEPT (n) FROM (SELECT model, COUNT(*) AS n FROM audit GROUP BY 1) ORDER BY 1",
            [(None,), ("minilm",)],
        ),
        ("SELECT 1 AS x UNION ALL SELECT 2 ORDER BY x", [(1,), (2,)]),
    ],
)
def test_questions_about_the_audit_table(store: Store, query: str, expected: list[tuple[Any, ...]]) -> None:
    """Error rates, percentiles, latest rows, gaps in time and the like come out as on the service."""
    assert rows_of(store, query) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("JSON_VALUE(prediction, '$.label')", "pos"),
        ("JSON_VALUE(prediction, '$.all[1].label')", "neg"),
        ("JSON_VALUE(prediction, '$.all')", None),
        ("JSON_VALUE(prediction, '$.none')", None),
        ("CAST(JSON_VALUE(prediction, '$.score') AS FLOAT64)", 0.5),
        ("JSON_QUERY(prediction, '$.all[0]')", '{"label":"pos"}'),
        ("JSON_QUERY(prediction, '$.nope')", None),
        ("JSON_EXTRACT_SCALAR(prediction, '$.label')", "pos"),
        ("JSON_VALUE_ARRAY(attributes, '$.tags')", ["a", "b"]),
        ("ARRAY_LENGTH(JSON_QUERY_ARRAY(prediction, '$.all'))", 2),
        ("prediction.label", '"pos"'),
        ("prediction.all[1].label", '"neg"'),
        ("(SELECT p.all[0].label FROM (SELECT prediction AS p))", '"pos"'),
        ("STRING(prediction.label)", "pos"),
        ("FLOAT64(prediction.score)", 0.5),
        ("INT64(prediction.n)", 7),
        ("BOOL(prediction.t)", True),
        ("LAX_INT64(prediction.label)", None),
        ("LAX_STRING(prediction.n)", "7"),
        ("JSON_TYPE(prediction.all)", "array"),
        ("PARSE_JSON('{\"a\": [1]}').a[0]", "1"),
        ("SAFE.PARSE_JSON('{')", None),
        ("TO_JSON_STRING(STRUCT(1 AS a, 'x' AS b))", '{"a":1,"b":"x"}'),
        ("JSON_VALUE('{\"a\": {\"b\": 1}}', '$.a.b')", "1"),
        (
            "(SELECT STRING_AGG(JSON_VALUE(x, '$.label')) FROM UNNEST(JSON_QUERY_ARRAY(prediction, '$.all')) AS x)",
            "pos,neg",
        ),
    ],
)
def test_json_functions(store: Store, expression: str, expected: Any) -> None:
    """A prediction is taken apart as on the service: scalars without quotes, nulls where nothing is."""
    assert rows_of(store, f"SELECT {expression} FROM audit WHERE input_bytes = 10") == [(expected,)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("TIMESTAMP_TRUNC(publish_time, HOUR)", dt.datetime(2024, 1, 2, 3, tzinfo=UTC)),
        ("TIMESTAMP_TRUNC(publish_time, WEEK)", dt.datetime(2023, 12, 31, tzinfo=UTC)),
        ("TIMESTAMP_TRUNC(publish_time, WEEK(MONDAY))", dt.datetime(2024, 1, 1, tzinfo=UTC)),
        ("TIMESTAMP_TRUNC(publish_time, DAY, 'America/New_York')", dt.datetime(2024, 1, 1, 5, tzinfo=UTC)),
        ("TIMESTAMP_ADD(publish_time, INTERVAL 90 MINUTE)", MOMENT + dt.timedelta(minutes=90)),
        ("publish_time - INTERVAL 1 DAY", MOMENT - dt.timedelta(days=1)),
        ("DATE(publish_time)", dt.date(2024, 1, 2)),
        ("DATE(publish_time, 'Pacific/Auckland')", dt.date(2024, 1, 2)),
        ("DATETIME(publish_time, 'Asia/Tokyo')", dt.datetime(2024, 1, 2, 12, 4, 5, 678_901)),
        ("TIME(publish_time)", dt.time(3, 4, 5, 678_901)),
        ("EXTRACT(HOUR FROM publish_time AT TIME ZONE 'Asia/Tokyo')", 12),
        ("EXTRACT(DATE FROM publish_time)", dt.date(2024, 1, 2)),
        ("EXTRACT(DAYOFWEEK FROM publish_time)", 3),
        ("EXTRACT(MILLISECOND FROM publish_time)", 678),
        ("EXTRACT(WEEK FROM DATE '2024-01-06')", 0),
        ("EXTRACT(ISOWEEK FROM DATE '2024-01-06')", 1),
        ("UNIX_SECONDS(publish_time)", 1704164645),
        ("UNIX_MILLIS(publish_time)", 1704164645678),
        ("TIMESTAMP_MILLIS(1704164645678)", MOMENT.replace(microsecond=678_000)),
        ("TIMESTAMP_DIFF('2024-01-01 11:01:00', TIMESTAMP '2024-01-01 10:59:00', HOUR)", 0),
        ("DATE_DIFF(DATE '2024-01-07', DATE '2024-01-06', WEEK)", 1),
        ("DATE_ADD(DATE '2024-01-31', INTERVAL 1 MONTH)", dt.date(2024, 2, 29)),
        ("DATE_TRUNC(DATE '2024-01-31', MONTH)", dt.date(2024, 1, 1)),
        ("FORMAT_TIMESTAMP('%Y-%m-%d %H:%M', publish_time)", "2024-01-02 03:04"),
        ("FORMAT_TIMESTAMP('%F %T', publish_time, 'Asia/Tokyo')", "2024-01-02 12:04:05"),
        ("FORMAT_TIMESTAMP('%FT%H:%M:%E3S%Ez', publish_time)", "2024-01-02T03:04:05.678+00:00"),
        ("PARSE_TIMESTAMP('%Y-%m-%d %H:%M:%S', '2024-01-02 03:04:05')", MOMENT.replace(microsecond=0)),
        ("PARSE_DATE('%Y%m%d', '20240102')", dt.date(2024, 1, 2)),
        ("STRING(TIMESTAMP '2024-01-02 03:04:05')", "2024-01-02 03:04:05+00"),
        ("CURRENT_DATETIME() > DATETIME '2024-01-01 00:00:00'", True),
        ("CURRENT_DATE() > DATE '2024-01-01'", True),
    ],
)
def test_time_functions(store: Store, expression: str, expected: Any) -> None:
    """Truncation, parts, differences, zones and formats of times are the service's."""
    assert rows_of(store, f"SELECT {expression} FROM audit WHERE input_bytes = 0") == [(expected,)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.5", 1.5),
        ("7 / 2", 3.5),
        ("DIV(7, 2)", 3),
        ("5 * DIV(7, 5)", 5),
        ("DIV(1 + 7, 1 + 3)", 2),
        ("DIV(-7, DIV(5, 2))", -3),
        ("10 * UNIX_SECONDS(TIMESTAMP '1970-01-01 00:00:01.900000+00')", 10),
        ("SAFE_DIVIDE(1, 0)", None),
        ("NUMERIC '1.5' + 1", Decimal("2.500000000")),
        ("IF(TRUE, 'a', 'b')", "a"),
        ("IFNULL(NULL, 'x')", "x"),
        ("SAFE_CAST('x' AS INT64)", None),
        ("CAST(1.0 AS STRING)", "1"),
        ("CAST(TRUE AS STRING)", "true"),
        ("FORMAT('%d %s %.2f %05d', 5, 'a', 1.234, 7)", "5 a 1.23 00007"),
        ("TO_HEX(SHA256('x'))", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ("REGEXP_EXTRACT('a12', r'(\\d+)')", "12"),
        ("REGEXP_CONTAINS('abc', r'^a.c$')", True),
        ("SPLIT('a,b', ',')", ["a", "b"]),
        ("BYTE_LENGTH('é')", 2),
        ("CHAR_LENGTH('é')", 1),
        ("[1, 2][SAFE_OFFSET(9)]", None),
        ("ARRAY(SELECT x * 2 FROM UNNEST([3, 1]) AS x ORDER BY x)", [2, 6]),
        ("STRUCT(1 AS a, [2] AS b)", {"a": 1, "b": [2]}),
        ("(SELECT SUM(position) FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS position)", 1),
    ],
)
def test_other_functions(store: Store, expression: str, expected: Any) -> None:
    """Arithmetic, casts, text, arrays and records are the service's."""
    assert rows_of(store, f"SELECT {expression}") == [(expected,)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT id, tag, o FROM nested, UNNEST(tags) AS tag WITH OFFSET AS o ORDER BY o", [(1, "u", 0), (1, "v", 1)]),
        ("SELECT id, i.k, i.v FROM nested, UNNEST(items) AS i ORDER BY i.k", [(1, "k1", 1.0), (1, "k2", 2.0)]),
        ("SELECT id, SUM(v) FROM nested, UNNEST(items) GROUP BY id", [(1, 3.0)]),
        (
            "SELECT id, tag, o FROM nested LEFT JOIN UNNEST(tags) AS tag WITH OFFSET AS o ORDER BY id, o",
            [(1, "u", 0), (1, "v", 1), (2, None, None)],
        ),
        ("SELECT id FROM nested WHERE 'u' IN UNNEST(tags)", [(1,)]),
        ("SELECT (SELECT MAX(v) FROM UNNEST(items)) FROM nested ORDER BY id", [(2.0,), (None,)]),
    ],
)
def test_repeated_columns(store: Store, query: str, expected: list[tuple[Any, ...]]) -> None:
    """Repeated columns are unnested with and without alias, offset and rows that have none."""
    assert rows_of(store, query) == expected


def test_result_columns_have_bigquery_names_and_types(store: Store) -> None:
    """Unnamed columns count from ``f0_``, paths take their last name, and every type is BigQuery's."""
    query = (
        "SELECT COUNT(*), SUM(input_bytes), 1.5, NUMERIC '1', STRING(prediction.label) AS label, "
        "ANY_VALUE(prediction), [DATE '2024-01-01'], "
        "STRUCT(CURRENT_TIMESTAMP() AS a), b'x', TRUE, 's', CURRENT_DATETIME(), TIME(1, 2, 3) FROM audit GROUP BY 5"
    )
    fields = run(store, query).fields
    assert [(field.name, field.type, field.mode) for field in fields] == [
        ("f0_", "INTEGER", "NULLABLE"),
        ("f1_", "INTEGER", "NULLABLE"),
        ("f2_", "FLOAT", "NULLABLE"),
        ("f3_", "NUMERIC", "NULLABLE"),
        ("label", "STRING", "NULLABLE"),
        ("f4_", "JSON", "NULLABLE"),
        ("f5_", "DATE", "REPEATED"),
        ("f6_", "RECORD", "NULLABLE"),
        ("f7_", "BYTES", "NULLABLE"),
        ("f8_", "BOOLEAN", "NULLABLE"),
        ("f9_", "STRING", "NULLABLE"),
        ("f10_", "DATETIME", "NULLABLE"),
        ("f11_", "TIME", "NULLABLE"),
    ]
    assert fields[7].fields[0].type == "TIMESTAMP"
    assert [field.name for field in run(store, "SELECT prediction.all[0].label, audit.status FROM audit").fields] == [
        "label",
        "status",
    ]
