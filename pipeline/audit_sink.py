"""Rows into a BigQuery table, where a bad row is told apart from a table that is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions as api

from pipeline import clients
from pipeline.matchers import TableName

_RETRY = clients.retry("insert")


class BigQuerySink:
    """The audit table as :class:`transforms.audit.AuditSink`; a bad row is told apart from a table that is gone."""

    def __init__(self, table: TableName):
        self._table = table

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Streams ``rows``; a request that the service refuses as a whole is halved until the culprit is alone.

        Raises:
            google.api_core.exceptions.GoogleAPIError: the table is gone, or stayed down for ten minutes.
        """
        # A request far over the limit may be cut off while it is sent instead of refused, which looks like a fault of
        # the network and would be tried again and again: it must not be made.
        if _exceeds(rows, clients.INSERT_BYTES):
            if len(rows) == 1:
                return {0: f"the row is over {clients.INSERT_BYTES} bytes; see --audit_input"}
            return self._insert_halves(rows, row_ids)
        client = clients.bigquery_client(self._table.project)
        try:
            errors = client.insert_rows_json(
                str(self._table), rows, row_ids=row_ids, skip_invalid_rows=True, retry=_RETRY, timeout=clients.ATTEMPT_S
            )
        except api.GoogleAPICallError as error:
            if error.code not in (400, 413):
                raise
            return {0: error.message} if len(rows) == 1 else self._insert_halves(rows, row_ids)
        return {error["index"]: _words(error["errors"]) for error in errors}

    def _insert_halves(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        middle = len(rows) // 2
        rejected = self.insert(rows[:middle], row_ids[:middle])
        second = self.insert(rows[middle:], row_ids[middle:])
        return {**rejected, **{middle + index: words for index, words in second.items()}}


def _exceeds(rows: Sequence[dict[str, Any]], limit: int) -> bool:
    """Whether ``rows`` have more than ``limit`` bytes as the client sends them: JSON in ASCII, 12 for an emoji."""
    characters = sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
    most = 12 * characters + 2_000 * len(rows)
    return most > limit and sum(len(json.dumps(row)) + 200 for row in rows) > limit


def _words(errors: Sequence[dict[str, str]]) -> str:
    return "; ".join(f"{e.get('location') or 'row'}: {e.get('message') or e.get('reason')}" for e in errors)
