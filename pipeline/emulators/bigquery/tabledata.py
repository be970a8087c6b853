"""``tabledata`` of the API: streaming inserts, and reading a table without a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.refs import Table, TableRef
from pipeline.emulators.bigquery.results import PAGE_ROWS, rows_page, select_fields
from pipeline.emulators.bigquery.rows import check_rows, to_arrow
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.unsupported import not_here

#: Quotas of ``tabledata.insertAll``: https://cloud.google.com/bigquery/quotas#streaming_inserts
MAX_REQUEST_BYTES = 10 * 1024 * 1024
MAX_ROWS = 50_000

_STOPPED = {"reason": "stopped", "location": "", "debugInfo": "", "message": ""}


class TableData:
    def __init__(self, store: Store) -> None:
        self.store = store

    def insertAll(self, request: Request) -> dict[str, Any]:
        """Adds the rows that fit the schema; none at all if one does not and ``skipInvalidRows`` is not set."""
        if request.size > MAX_REQUEST_BYTES:
            raise BigQueryError(
                "requestTooLarge", f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes."
            )
        if request.body.get("templateSuffix"):
            raise not_here("templateSuffix")
        rows, ids = _rows(request.body)
        table = self._table(request.table, "Cannot add rows to")
        columns, errors = check_rows(table.fields, rows, bool(request.body.get("ignoreUnknownValues")))
        if errors and not request.body.get("skipInvalidRows"):
            errors |= {index: [_STOPPED] for index in range(len(rows)) if index not in errors}
        if errors:
            ids = [insert_id for index, insert_id in enumerate(ids) if index not in errors]
            columns = [[value for i, value in enumerate(column) if i not in errors] for column in columns]
        if ids:
            self.store.append(table.ref, to_arrow(table.fields, columns), ids)
        rejected = [{"index": index, "errors": errors[index]} for index in sorted(errors)]
        return {"kind": "bigquery#tableDataInsertAllResponse", **({"insertErrors": rejected} if rejected else {})}

    def list(self, request: Request) -> dict[str, Any]:
        table = self._table(request.table, "Cannot list")
        total = self.store.count(table)
        start = request.number("pageToken", request.number("startIndex", 0))
        page = self.store.read(table, start, min(request.number("maxResults", PAGE_ROWS), PAGE_ROWS))
        fields = select_fields(table.fields, request.query.get("selectedFields", ""))
        rows = rows_page(fields, page.select([field.name for field in fields]), start, total, request)
        return {"kind": "bigquery#tableDataList", "totalRows": str(total), **rows}

    def _table(self, ref: TableRef, doing: str) -> Table:
        table = self.store.table(ref)
        if table.view_query is not None:
            raise BigQueryError("invalid", f"{doing} a table of type VIEW: {ref}")
        return table


def _rows(body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[str | None]]:
    """The rows of an ``insertAll`` and their insert ids; raises ``invalid``."""
    rows = body.get("rows")
    if not rows:
        raise BigQueryError("invalid", "No rows present in the request.")
    if len(rows) > MAX_ROWS:
        raise BigQueryError(
            "invalid", f"too many rows present in the request, limit: {MAX_ROWS} row count: {len(rows)}."
        )
    ids = [None if row.get("insertId") is None else str(row["insertId"]) for row in rows]
    return [row.get("json") or {} for row in rows], ids
