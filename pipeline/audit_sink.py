"""Rows into a BigQuery table, where a bad row is told apart from a table that is gone or does not fit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.api_core import exceptions as api
from google.api_core.retry import exponential_sleep_generator

from pipeline import clients, outage
from pipeline.matchers import TableName
from transforms import metrics
from transforms.errors import SinkUnavailable
from transforms.records import AUDIT_SCHEMA

#: To be called with the error of a try that is made again.
Failed = Callable[[BaseException], None]

#: Reasons of a row's error that are not the row's fault (https://cloud.google.com/bigquery/docs/error-messages).
_PASSING = frozenset(
    ("backendError", "internalError", "jobBackendError", "quotaExceeded", "rateLimitExceeded", "stopped", "timeout")
)
#: What a client raises on an answer of 200 that is none of BigQuery's: a web page, a list of no known form.
_UNREAD = (AttributeError, KeyError, TypeError, ValueError)
#: What the service says of a row whose columns are not the table's.
_SCHEMA_WORDS = ("no such field", "missing required field")


class BigQuerySink:
    """A table as :class:`transforms.audit.AuditSink`; ``schema`` is what its rows have, in the BigQuery API's terms."""

    def __init__(self, table: TableName, schema: Sequence[dict[str, str]] = AUDIT_SCHEMA):
        self._table = table
        self._schema = schema

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Streams ``rows`` and returns the ones at fault: index → the service's words.

        Rows that are refused for a passing reason, or because the table does not fit, are held and tried again.

        Raises:
            SinkUnavailable: the table is gone, or took none of what it should for ten minutes.
        """
        with outage.service(f"table {self._table}", "rows").request(len(rows)) as failed:
            return self._insert(rows, row_ids, failed)

    def _insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str], failed: Failed) -> dict[int, str]:
        refused: dict[int, str] = {}
        places = list(range(len(rows)))
        started = time.monotonic()
        for pause in exponential_sleep_generator(0.1, 10.0):
            held: list[int] = []
            words = ""
            fault: str | None = None
            answers = self._request([rows[place] for place in places], [row_ids[place] for place in places], failed)
            blamed = {index: errors for index, errors in answers.items() if not _is_passing(errors)}
            if blamed and (len(blamed) == len(places) or any(_is_schema(errors) for errors in blamed.values())):
                fault = self._fault(blamed)
            for index, errors in answers.items():
                if fault or index not in blamed:
                    held.append(places[index])
                    words = fault or _words(errors)
                else:
                    refused[places[index]] = _words(errors)
            if not held:
                return refused
            waited = time.monotonic() - started
            if waited + pause > clients.PATIENCE_S:
                raise SinkUnavailable(f"table {self._table} took no rows for {waited:.0f} s: {words}")
            failed(SinkUnavailable(words))
            metrics.retried("insert")
            places = held
            time.sleep(pause)
        raise AssertionError("the pauses have no end")

    def _request(
        self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str], failed: Failed
    ) -> dict[int, list[dict[str, str]]]:
        """One request's errors by row; one that is refused as a whole is halved until the culprit is alone."""
        # A request far over the limit may be cut off while it is sent instead of refused, which looks like a fault of
        # the network and would be tried again and again: it must not be made.
        if _exceeds(rows, clients.INSERT_BYTES):
            if len(rows) == 1:
                return {0: [{"message": f"the row is over {clients.INSERT_BYTES} bytes; see --audit_input"}]}
            return self._halves(rows, row_ids, failed)
        client = clients.bigquery_client(self._table.project)
        try:
            errors = client.insert_rows_json(
                str(self._table),
                rows,
                row_ids=row_ids,
                skip_invalid_rows=True,
                retry=clients.retry("insert", failed),
                timeout=clients.ATTEMPT_S,
            )
            answers = {error["index"]: list(error["errors"]) for error in errors}
            if not all(index in range(len(rows)) and all(map(dict.keys, own)) for index, own in answers.items()):
                raise KeyError("errors of rows that were not sent, or of no known form")
        except _UNREAD as error:
            json.dumps(rows)  # raises where it is a row that was stumbled on
            words = f"its answer cannot be read ({type(error).__name__}); is it a proxy's on the way?"
            return dict.fromkeys(range(len(rows)), [{"message": words, "reason": "backendError"}])
        except clients.API_ERRORS as error:
            if getattr(error, "code", None) not in (400, 413):
                raise SinkUnavailable(f"table {self._table}: {error}") from error
            if len(rows) == 1:
                return {0: [{"message": getattr(error, "message", str(error)), "reason": "request"}]}
            return self._halves(rows, row_ids, failed)
        return answers

    def _halves(
        self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str], failed: Failed
    ) -> dict[int, list[dict[str, str]]]:
        middle = len(rows) // 2
        first = self._request(rows[:middle], row_ids[:middle], failed)
        second = self._request(rows[middle:], row_ids[middle:], failed)
        return {**first, **{middle + index: errors for index, errors in second.items()}}

    def _fault(self, answers: dict[int, list[dict[str, str]]]) -> str | None:
        """What is wrong with the table itself, where it refuses every row, or a column of ours; None if nothing is."""
        client = clients.bigquery_client(self._table.project)
        words = _words(next(iter(answers.values())))
        try:
            table = client.get_table(str(self._table), retry=clients.retry("insert"), timeout=clients.ATTEMPT_S)
        except clients.API_ERRORS as error:
            if not isinstance(error, api.Forbidden):
                raise SinkUnavailable(f"table {self._table}: {error}") from error
        else:
            misfit = misfits(self._schema, [field.to_api_repr() for field in table.schema])
            if misfit:
                return f"{misfit}; mend the table, it refuses rows for that"
        if any(_is_schema(errors) for errors in answers.values()):
            return f"it does not know its new columns yet ({words})"
        try:
            # A row with nothing in it is refused as a row where the table works: there is a required column.
            client.insert_rows_json(
                str(self._table), [{}], row_ids=[None], retry=clients.retry("insert"), timeout=clients.ATTEMPT_S
            )
        except clients.API_ERRORS as error:
            return f"it refuses any request ({error})"
        return None


def misfits(ours: Sequence[dict[str, str]], theirs: Sequence[dict[str, str]]) -> str | None:
    """How a table's columns do not fit the rows, in words, or None where they do."""
    found = {column["name"].lower(): column for column in theirs}
    for column in ours:
        other = found.pop(column["name"].lower(), None)
        if other is None:
            return f"it lacks the column {column['name']} {column['type']}"
        if _TYPES.get(other["type"], other["type"]) != column["type"]:
            return f"its column {column['name']} is a {other['type']}, not a {column['type']}"
    required = sorted(column["name"] for column in found.values() if column.get("mode") == "REQUIRED")
    return f"its column {required[0]} is required, and no row has it" if required else None


#: Other names of the same types (https://cloud.google.com/bigquery/docs/reference/rest/v2/tables).
_TYPES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}


def _exceeds(rows: Sequence[dict[str, Any]], limit: int) -> bool:
    """Whether ``rows`` have more than ``limit`` bytes as the client sends them: JSON in ASCII, 12 for an emoji."""
    characters = sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
    most = 12 * characters + 2_000 * len(rows)
    return most > limit and sum(len(json.dumps(row)) + 200 for row in rows) > limit


def _is_schema(errors: Sequence[dict[str, str]]) -> bool:
    return any(word in str(error.get("message")).lower() for error in errors for word in _SCHEMA_WORDS)


def _is_passing(errors: Sequence[dict[str, str]]) -> bool:
    return any(error.get("reason") in _PASSING for error in errors)


def _words(errors: Sequence[dict[str, str]]) -> str:
    said = (f"{e.get('location') or 'row'}: {e.get('message') or e.get('reason') or 'no reason'}" for e in errors)
    return "; ".join(said) or "row: no reason"
