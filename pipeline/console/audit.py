"""Audit: the ready queries of ``queries/``, one message's rows, and one's own SQL, which may only read."""

from __future__ import annotations

import datetime
import decimal
import importlib.resources
import itertools
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import sqlglot
from google.api_core.retry import Retry
from google.cloud import bigquery
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pipeline import clients
from pipeline.console.actions import Refused
from pipeline.matchers import TableName

#: Package data: an installed package has no docs folder.
_QUERIES = importlib.resources.files("pipeline.console") / "queries"

#: Rows a page shows, seconds a query may take, and bytes that one may bill on a real project.
ROWS = 1_000
PATIENCE_S = 30.0
MOST_BYTES_BILLED = 10 << 30
#: A person waits: what fails is told, not tried again.
_ONCE = Retry(predicate=lambda error: False)


@dataclass(frozen=True, slots=True)
class ReadyQuery:
    """A query: the sentence that says what it tells, whose beginning is its name, its SQL and its parameters."""

    name: str
    about: str
    sql: str
    parameters: tuple[str, ...]


def ready_queries(table: TableName) -> list[ReadyQuery]:
    """The ready queries on ``table``, in the order of docs/audit.md, which shows the same."""
    files = (each for each in _QUERIES.iterdir() if each.name.endswith(".sql"))
    return [_ready(each.read_text("utf-8"), table) for each in sorted(files, key=lambda each: each.name)]


def _ready(text: str, table: TableName) -> ReadyQuery:
    """A file of ``queries/``: lines of comment that say what it tells, and the SQL, on the documentation's table."""
    lines = text.splitlines()
    above = list(itertools.takewhile(lambda line: line.startswith("-- "), lines))
    block = "\n".join(lines[len(above) :])
    sql = re.sub(r"`my-project\.inference\.audit(_latest)?`", lambda m: f"`{table}{m[1] or ''}`", block).strip()
    about = " ".join(line.removeprefix("-- ") for line in above).replace("`", "").rstrip(":.")
    parameters = tuple(dict.fromkeys(re.findall(r"(?<!@)@(\w+)", sql)))
    return ReadyQuery(re.split(r"[,:;(.]", about)[0].strip(), about, sql, parameters)


def check(sql: str) -> None:
    """Lets one reading statement through.

    Raises:
        Refused: it is not GoogleSQL, more than one statement, or anything but a SELECT.
    """
    try:
        statements = [each for each in sqlglot.parse(sql, read="bigquery") if each is not None]
    except (SqlglotError, RecursionError) as error:
        detail = (getattr(error, "errors", None) or [{}])[0]
        raise Refused(f"not SQL that can be read: {detail.get('description') or str(error)[:200]}") from None
    if len(statements) != 1:
        raise Refused(f"{len(statements)} statements; one SELECT is run at a time")
    writes = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Drop, exp.Alter, exp.Merge, exp.TruncateTable)
    (statement,) = statements
    if not isinstance(statement, exp.Query) or any(
        isinstance(node, writes) and not isinstance(node, exp.Query) for node in statement.walk()
    ):
        raise Refused("only a SELECT (or WITH … SELECT) is run here: the console reads and does not write")


def run(table: TableName, sql: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs one reading statement in ``table``'s dataset; columns, rows as JSON values, and what it cost in bytes.

    Raises:
        Refused: it is no reading statement, or the service refused it.
    """
    check(sql)
    config = bigquery.QueryJobConfig(
        default_dataset=f"{table.project}.{table.dataset}",
        query_parameters=[_parameter(name, value) for name, value in (parameters or {}).items()],
    )
    if "BIGQUERY_EMULATOR_HOST" not in os.environ:
        config.maximum_bytes_billed = MOST_BYTES_BILLED
    try:
        job = clients.bigquery_client(table.project).query(
            sql, job_config=config, retry=_ONCE, job_retry=None, timeout=PATIENCE_S
        )
        result = job.result(max_results=ROWS, retry=_ONCE, job_retry=None, timeout=PATIENCE_S)
        rows = [[plain(value) for value in row.values()] for row in result]
    except Exception as error:  # any of the client's: the person who asked reads it
        raise Refused(clients.words(error, most=600)) from None
    columns = [{"name": field.name, "type": field.field_type} for field in result.schema]
    return {"columns": columns, "rows": rows, "total": result.total_rows, "bytes": job.total_bytes_processed}


def message_rows(table: TableName, message_id: str) -> list[dict[str, Any]]:
    """The audit rows of one message, newest first."""
    sql = f"SELECT * FROM `{table}` WHERE message_id = @message_id ORDER BY processed_time DESC LIMIT 10"
    answer = run(table, sql, {"message_id": message_id})
    return [dict(zip((c["name"] for c in answer["columns"]), row, strict=True)) for row in answer["rows"]]


def _parameter(name: str, value: str) -> bigquery.ScalarQueryParameter:
    """A parameter by its name: ``…_time``, ``since`` and ``until`` are timestamps, ``hours`` and ``limit`` numbers."""
    if re.search(r"(^|_)(time|from|to|start|end|since|until|timestamp)$", name):
        try:
            moment = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise Refused(f"@{name}: {value!r} is no time; use 2026-01-31T12:00:00Z") from None
        return bigquery.ScalarQueryParameter(name, "TIMESTAMP", moment)
    if re.search(r"(^|_)(hours|minutes|days|limit|count)$", name):
        if not re.fullmatch("[0-9]{1,18}", value):
            raise Refused(f"@{name}: {value!r} is no whole number")
        return bigquery.ScalarQueryParameter(name, "INT64", int(value))
    return bigquery.ScalarQueryParameter(name, "STRING", value)


def plain(value: Any) -> Any:
    """A BigQuery value as JSON can hold it."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # A browser rounds whole numbers past 53 bits.
    if isinstance(value, int) and abs(value) > 1 << 53:
        return str(value)
    # JSON has no such numbers; their names are what BigQuery itself calls them.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
