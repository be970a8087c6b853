"""Datasets, tables and rows of the embedded BigQuery, in one DuckDB database.

A dataset is a DuckDB schema named ``project.dataset`` and a table a table in it; the API's resources lie beside them as
JSON. Writers take turns, readers do not wait for them. What a call has written when it returns is in DuckDB's
write-ahead log, and so outlives the process however it ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.emulators.bigquery.database import Database, put
from pipeline.emulators.bigquery.errors import BigQueryError, not_found
from pipeline.emulators.bigquery.refs import DatasetRef, Table, TableRef, table_of
from pipeline.emulators.bigquery.schema_changes import changes
from pipeline.emulators.bigquery.types import duckdb_column, quote

#: How long an ``insertId`` is remembered, and how many; the service promises "at least one minute" and best effort.
DEDUPLICATION_S = 60.0
DEDUPLICATION_IDS = 200_000


class Store:
    """All data of one embedded BigQuery, kept in ``path`` or, with ``:memory:``, for its own lifetime only."""

    def __init__(self, path: str = ":memory:") -> None:
        self._database = Database(path)
        self._writer = self._database.writer
        self._seen: dict[TableRef, OrderedDict[str, float]] = {}
        self.datasets = {DatasetRef(*name): resource for name, resource in self._database.resources("datasets")}
        self.tables = {
            TableRef(*name): table_of(TableRef(*name), resource)
            for name, resource in self._database.resources("tables")
        }

    def close(self) -> None:
        """Lets go of the file."""
        with self._writer:
            self._database.close()

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The calling thread's own connection."""
        return self._database.cursor

    def writing(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """One transaction, alone; committed at the end of the block, undone if it raises."""
        return self._database.writing()

    def recover(self) -> None:
        """Has the store serve again after DuckDB gave its database up."""
        self._database.reopen()

    def dataset(self, ref: DatasetRef) -> dict[str, Any]:
        """The dataset's resource; raises ``notFound``."""
        try:
            return self.datasets[ref]
        except KeyError:
            raise not_found("Dataset", str(ref)) from None

    def table(self, ref: TableRef) -> Table:
        """A table or view; raises ``notFound`` naming the dataset if that is what is missing."""
        try:
            return self.tables[ref]
        except KeyError:
            self.dataset(ref.parent)
            raise not_found("Table", str(ref)) from None

    def tables_of(self, ref: DatasetRef) -> list[Table]:
        """The dataset's tables and views by name."""
        self.dataset(ref)
        return sorted((table for table in self.tables.values() if table.ref.parent == ref), key=lambda t: t.ref)

    def create_dataset(self, ref: DatasetRef, resource: dict[str, Any]) -> None:
        """Creates a dataset; raises ``duplicate``."""
        with self._writer:
            if ref in self.datasets:
                raise BigQueryError("duplicate", f"Already Exists: Dataset {ref}")
            with self.writing() as cursor:
                cursor.execute(f"CREATE SCHEMA {ref.duckdb}")
                put(cursor, "datasets", ref, resource)
            self.datasets[ref] = resource

    def update_dataset(self, ref: DatasetRef, resource: dict[str, Any]) -> None:
        """Replaces a dataset's resource."""
        with self._writer:
            with self.writing() as cursor:
                put(cursor, "datasets", ref, resource)
            self.datasets[ref] = resource

    def delete_dataset(self, ref: DatasetRef, delete_contents: bool = False) -> None:
        """Drops a dataset; raises ``resourceInUse`` if it holds tables and ``delete_contents`` is not given."""
        with self._writer:
            tables = self.tables_of(ref)
            if tables and not delete_contents:
                raise BigQueryError("resourceInUse", f"Dataset {ref} is still in use")
            for table in tables:
                self.delete_table(table.ref)
            with self.writing() as cursor:
                cursor.execute(f"DROP SCHEMA {ref.duckdb}")
                put(cursor, "datasets", ref, None)
            del self.datasets[ref]

    def create_table(
        self,
        ref: TableRef,
        resource: dict[str, Any],
        select: tuple[str, dict[str, Any]] | None = None,
        replace: bool = False,
        rows: pa.Table | None = None,
    ) -> Table:
        """Creates a table or, if ``resource`` has a ``view``, a view; raises ``duplicate`` unless it may ``replace``.

        ``select``, a DuckDB query and its parameters, fills it, and may read the table that is being replaced; or
        ``rows`` do. All of it happens or nothing.
        """
        table = table_of(ref, resource)
        with self._writer:
            self.dataset(ref.parent)
            old = self.tables.get(ref)
            if old and not replace:
                raise BigQueryError("duplicate", f"Already Exists: Table {ref}")
            with self.writing() as cursor:
                if select:
                    cursor.execute(f"CREATE TEMP TABLE selected AS {select[0]}", select[1])
                if old and old.view_query is None:
                    cursor.execute(f"DROP TABLE {ref.duckdb}")
                if table.view_query is None:
                    # DuckDB has no table without columns, BigQuery does; a hidden one stands in until there is another.
                    columns = [duckdb_column(field) for field in table.fields] or ["__no_columns__ BOOLEAN"]
                    cursor.execute(f"CREATE TABLE {ref.duckdb} ({', '.join(columns)})")
                if select:
                    cursor.execute(f"INSERT INTO {ref.duckdb} FROM temp.selected")
                    cursor.execute("DROP TABLE temp.selected")
                if rows is not None:
                    _insert(cursor, ref, rows)
                put(cursor, "tables", ref, resource)
            self.tables[ref] = table
            self._seen.pop(ref, None)
        return table

    def update_table(self, ref: TableRef, resource: dict[str, Any]) -> Table:
        """Replaces a table's resource; columns may be added and requirements dropped, nothing else may change."""
        table = table_of(ref, resource)
        with self._writer:
            with self.writing() as cursor:
                if table.view_query is None:
                    for change in changes(self.table(ref), table):
                        cursor.execute(f"ALTER TABLE {ref.duckdb} {change}")
                put(cursor, "tables", ref, resource)
            self.tables[ref] = table
        return table

    def delete_table(self, ref: TableRef) -> None:
        """Drops a table or view; raises ``notFound``."""
        with self._writer:
            table = self.table(ref)
            with self.writing() as cursor:
                if table.view_query is None:
                    cursor.execute(f"DROP TABLE {ref.duckdb}")
                put(cursor, "tables", ref, None)
            del self.tables[ref]
            self._seen.pop(ref, None)

    def append(self, ref: TableRef, rows: pa.Table, insert_ids: Sequence[str | None] = ()) -> int:
        """Adds rows in one transaction and returns how many.

        A row whose ``insertId`` came within the last minute is taken for a repeat and left out, best effort.
        """
        with self._writer:
            now = time.monotonic()
            seen = self._seen.setdefault(ref, OrderedDict())
            while seen and (len(seen) > DEDUPLICATION_IDS or now - next(iter(seen.values())) > DEDUPLICATION_S):
                seen.popitem(last=False)
            new = {insert_id for insert_id in insert_ids if insert_id and insert_id not in seen}
            fresh = set(new)
            keep = []
            for index, insert_id in enumerate(insert_ids):
                if not insert_id or insert_id in fresh:
                    keep.append(index)
                    fresh.discard(insert_id or "")
            if len(keep) < len(insert_ids):
                rows = rows.take(pa.array(keep, pa.int64()))
            if rows.num_rows:
                with self.writing() as cursor:
                    _insert(cursor, ref, rows)
            seen.update(dict.fromkeys(new, now))
        return int(rows.num_rows)

    def count(self, table: Table) -> int:
        """How many rows a table has."""
        return int(self.cursor.execute(f"SELECT count(*) FROM {table.ref.duckdb}").fetchall()[0][0])

    def read(self, table: Table, offset: int, limit: int) -> pa.Table:
        """Rows ``offset`` to ``offset + limit`` of a table, in the order in which they came."""
        columns = ", ".join(quote(field.name) for field in table.fields) or "__no_columns__"
        return self.cursor.sql(
            f"SELECT {columns} FROM {table.ref.duckdb} LIMIT {limit} OFFSET {offset}"
        ).to_arrow_table()


def _insert(cursor: duckdb.DuckDBPyConnection, ref: TableRef, rows: pa.Table) -> None:
    if rows.num_rows:
        cursor.register("incoming", rows)
        try:
            cursor.execute(f"INSERT INTO {ref.duckdb} BY NAME FROM incoming")
        finally:
            cursor.unregister("incoming")
