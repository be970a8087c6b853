"""Datasets, tables and rows of the embedded BigQuery, in one DuckDB database.

A dataset is a DuckDB schema named ``project.dataset`` and a table a table in it; the API's resources lie beside them as
JSON. Writers take turns, readers do not wait for them. What a call has written when it returns is in DuckDB's
write-ahead log, and so outlives the process however it ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb
import orjson
import pyarrow as pa

from pipeline.emulators.bigquery.errors import BigQueryError, not_found
from pipeline.emulators.bigquery.types import Field, duckdb_column, parse_schema, quote

#: How long an ``insertId`` is remembered, and how many; the service promises "at least one minute" and best effort.
DEDUPLICATION_S = 60.0
DEDUPLICATION_IDS = 200_000

_CATALOG = """
CREATE SCHEMA IF NOT EXISTS bigquery_catalog;
CREATE TABLE IF NOT EXISTS bigquery_catalog.datasets (project VARCHAR, dataset VARCHAR, resource VARCHAR);
CREATE TABLE IF NOT EXISTS bigquery_catalog.tables
    (project VARCHAR, dataset VARCHAR, "table" VARCHAR, resource VARCHAR);
"""


class DatasetRef(NamedTuple):
    """A dataset's full name; ``str()`` is how the service writes it."""

    project: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}"

    @property
    def duckdb(self) -> str:
        """Its quoted DuckDB schema."""
        return quote(f"{self.project}.{self.dataset}")


class TableRef(NamedTuple):
    """A table's full name; ``str()`` is how the service writes it."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def parent(self) -> DatasetRef:
        """The dataset it is in."""
        return DatasetRef(self.project, self.dataset)

    @property
    def duckdb(self) -> str:
        """Its quoted DuckDB name."""
        return f"{self.parent.duckdb}.{quote(self.table)}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view: the resource as the API shows it, and its columns."""

    ref: TableRef
    resource: dict[str, Any]
    fields: tuple[Field, ...]

    @property
    def view_query(self) -> str | None:
        """The query of a view; ``None`` for a table."""
        return self.resource.get("view", {}).get("query")


class Store:
    """All data of one embedded BigQuery, kept in ``path`` or, with ``:memory:``, for its own lifetime only."""

    def __init__(self, path: str = ":memory:") -> None:
        # Queries are the client's own words: they get no files, no network and no extensions to do it with.
        self._database = duckdb.connect(
            path, config={"enable_external_access": False, "autoload_known_extensions": False, "threads": 1}
        )
        self._database.execute("SET GLOBAL TimeZone = 'UTC'")
        self._database.execute(_CATALOG)
        self._threads = threading.local()
        self._writer = threading.RLock()
        self._seen: dict[TableRef, OrderedDict[str, float]] = {}
        self.datasets: dict[DatasetRef, dict[str, Any]] = {}
        self.tables: dict[TableRef, Table] = {}
        for *name, text in self._database.execute("FROM bigquery_catalog.datasets").fetchall():
            self.datasets[DatasetRef(*name)] = orjson.loads(text)
        for *name, text in self._database.execute("FROM bigquery_catalog.tables").fetchall():
            resource = orjson.loads(text)
            self.tables[TableRef(*name)] = _table(TableRef(*name), resource)

    def close(self) -> None:
        """Writes the log into the file and lets go of it."""
        with self._writer:
            self._database.close()

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The calling thread's own connection."""
        if not hasattr(self._threads, "cursor"):
            self._threads.cursor = self._database.cursor()
        return self._threads.cursor

    @contextlib.contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, alone; committed at the end of the block, undone if it raises."""
        with self._writer:
            cursor = self.cursor
            cursor.begin()
            try:
                yield cursor
                cursor.commit()
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    cursor.rollback()
                raise

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
                _put(cursor, "datasets", ref, resource)
            self.datasets[ref] = resource

    def update_dataset(self, ref: DatasetRef, resource: dict[str, Any]) -> None:
        """Replaces a dataset's resource."""
        with self._writer:
            with self.writing() as cursor:
                _put(cursor, "datasets", ref, resource)
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
                _put(cursor, "datasets", ref, None)
            del self.datasets[ref]

    def create_table(
        self,
        ref: TableRef,
        resource: dict[str, Any],
        select: tuple[str, dict[str, Any]] | None = None,
        replace: bool = False,
    ) -> Table:
        """Creates a table or, if ``resource`` has a ``view``, a view; raises ``duplicate`` unless it may ``replace``.

        ``select``, a DuckDB query and its parameters, fills it, and may read the table that is being replaced.
        """
        table = _table(ref, resource)
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
                _put(cursor, "tables", ref, resource)
            self.tables[ref] = table
            self._seen.pop(ref, None)
        return table

    def update_table(self, ref: TableRef, resource: dict[str, Any]) -> Table:
        """Replaces a table's resource; columns may be added and requirements dropped, nothing else may change."""
        table = _table(ref, resource)
        with self._writer:
            with self.writing() as cursor:
                if table.view_query is None:
                    for change in _changes(self.table(ref), table):
                        cursor.execute(f"ALTER TABLE {ref.duckdb} {change}")
                _put(cursor, "tables", ref, resource)
            self.tables[ref] = table
        return table

    def delete_table(self, ref: TableRef) -> None:
        """Drops a table or view; raises ``notFound``."""
        with self._writer:
            table = self.table(ref)
            with self.writing() as cursor:
                if table.view_query is None:
                    cursor.execute(f"DROP TABLE {ref.duckdb}")
                _put(cursor, "tables", ref, None)
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
                    cursor.register("incoming", rows)
                    try:
                        cursor.execute(f"INSERT INTO {ref.duckdb} BY NAME FROM incoming")
                    finally:
                        cursor.unregister("incoming")
            seen.update(dict.fromkeys(new, now))
        return rows.num_rows

    def count(self, table: Table) -> int:
        """How many rows a table has."""
        return self.cursor.execute(f"SELECT count(*) FROM {table.ref.duckdb}").fetchall()[0][0]

    def read(self, table: Table, offset: int, limit: int) -> pa.Table:
        """Rows ``offset`` to ``offset + limit`` of a table, in the order in which they came."""
        columns = ", ".join(quote(field.name) for field in table.fields) or "__no_columns__"
        return self.cursor.sql(
            f"SELECT {columns} FROM {table.ref.duckdb} LIMIT {limit} OFFSET {offset}"
        ).to_arrow_table()


def _table(ref: TableRef, resource: dict[str, Any]) -> Table:
    return Table(ref, resource, parse_schema(resource.get("schema", {}).get("fields", ())))


def _put(cursor: duckdb.DuckDBPyConnection, kind: str, ref: Sequence[str], resource: dict[str, Any] | None) -> None:
    """Replaces the stored resource of ``ref``; ``None`` removes it."""
    names = ("project", "dataset", '"table"')[: len(ref)]
    where = " AND ".join(f"{name} = ?" for name in names)
    cursor.execute(f"DELETE FROM bigquery_catalog.{kind} WHERE {where}", list(ref))
    if resource is not None:
        marks = ", ".join("?" * (len(ref) + 1))
        cursor.execute(f"INSERT INTO bigquery_catalog.{kind} VALUES ({marks})", [*ref, orjson.dumps(resource).decode()])


def _changes(old: Table, new: Table) -> Iterator[str]:
    """The ``ALTER TABLE`` actions from ``old`` to ``new``; raises ``invalid`` for a change that the service refuses."""
    wanted = {field.name.lower(): field for field in new.fields}

    def refuse(why: str) -> BigQueryError:
        return BigQueryError("invalid", f"Provided Schema does not match Table {old.ref}. {why}")

    for field in old.fields:
        other = wanted.pop(field.name.lower(), None)
        if other is None:
            raise refuse(f"Field {field.name} is missing in new schema")
        if other.type != field.type:
            raise refuse(f"Field {field.name} has changed type from {field.type} to {other.type}")
        if other.fields != field.fields:
            raise refuse(f"Field {field.name}: changing the fields of a record is not supported by the embedded server")
        if (field.mode, other.mode) == ("REQUIRED", "NULLABLE"):
            yield f"ALTER {quote(field.name)} DROP NOT NULL"
        elif other.mode != field.mode:
            raise refuse(f"Field {field.name} has changed mode from {field.mode} to {other.mode}")
    for field in wanted.values():
        if field.mode == "REQUIRED":
            raise refuse(f"Cannot add required fields to an existing schema. (field: {field.name})")
        yield f"ADD COLUMN {duckdb_column(field)}" + (" DEFAULT []" if field.mode == "REPEATED" else "")
    if not old.fields and new.fields:
        yield "DROP COLUMN __no_columns__"
