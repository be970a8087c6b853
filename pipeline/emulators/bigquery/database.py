"""The DuckDB database under the store: a connection for every thread, transactions, and what to do when it fails.

DuckDB gives up a database whose file it could not write (the disk was full, at a checkpoint): from then on everything
fails. A database in a file is opened anew then, from its log, so that the server serves again once there is room.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import orjson

from pipeline.emulators.bigquery.casts import MACROS

_log = logging.getLogger(__name__)

_CATALOG = """
CREATE SCHEMA IF NOT EXISTS bigquery_catalog;
CREATE TABLE IF NOT EXISTS bigquery_catalog.datasets (project VARCHAR, dataset VARCHAR, resource VARCHAR);
CREATE TABLE IF NOT EXISTS bigquery_catalog.tables
    (project VARCHAR, dataset VARCHAR, "table" VARCHAR, resource VARCHAR);
"""

#: Queries are the client's own words: they get no files, no network and no extensions to do it with.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "threads": 1,
}

#: How DuckDB words that a transaction is in the log although what came after it failed.
_DURABLE = "COMMIT succeeded and is durable"


@dataclass(eq=False)
class _Connection:
    """A thread's own connection, and to which opening of the database it belongs."""

    cursor: duckdb.DuckDBPyConnection
    life: int


class Database:
    """DuckDB in the file ``path``, or in memory. ``writer`` is held by whoever writes."""

    def __init__(self, path: str) -> None:
        self.writer = threading.RLock()
        self._path = path
        self._root = self._open()
        self._life = 0
        self._thread = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()

    def _open(self) -> duckdb.DuckDBPyConnection:
        root = duckdb.connect(self._path, config=_CONFIG)
        root.execute("SET GLOBAL TimeZone = 'UTC'")
        root.execute(_CATALOG)
        root.execute(MACROS)
        return root

    def close(self) -> None:
        """Writes the log into the file and lets go of it; where there is no room for that, the log keeps it all."""
        with self.writer, contextlib.suppress(duckdb.Error):
            self._root.close()

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The calling thread's own connection."""
        connection: _Connection | None = getattr(self._thread, "connection", None)
        if connection is None or connection.life != self._life:
            with self.writer:
                connection = _Connection(self._root.cursor(), self._life)
                self._connections.add(connection)
            self._thread.connection = connection
        return connection.cursor

    def reopen(self) -> None:
        """Opens a database anew that DuckDB has given up; one in memory is gone with it."""
        with self.writer:
            try:
                self._root.execute("SELECT 1")
                return  # another thread was faster
            except duckdb.Error:
                if self._path == ":memory:":
                    return
            _log.warning("%s: DuckDB has given it up; it is opened anew", self._path)
            # As long as one connection is open, DuckDB gives out the same dead database again.
            for connection in [*self._connections]:
                connection.cursor.close()
            with contextlib.suppress(duckdb.Error):
                self._root.close()
            self._life += 1
            self._root = self._open()

    @contextlib.contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, alone; committed at the end of the block, undone if it raises."""
        with self.writer:
            cursor = self.cursor
            cursor.begin()
            try:
                yield cursor
                self._commit(cursor)
            except BaseException:
                with contextlib.suppress(duckdb.Error):
                    cursor.rollback()
                raise

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.commit()
        except duckdb.FatalException as error:
            self.reopen()
            if _DURABLE not in str(error):
                raise

    # Resources, kept beside the data as JSON

    def resources(self, kind: str) -> list[tuple[list[str], dict[str, Any]]]:
        """Names and resources of all ``datasets`` or ``tables``."""
        rows = self.cursor.execute(f"FROM bigquery_catalog.{kind}").fetchall()
        return [(list(names), orjson.loads(text)) for *names, text in rows]


def put(cursor: duckdb.DuckDBPyConnection, kind: str, ref: Sequence[str], resource: dict[str, Any] | None) -> None:
    """Replaces the stored resource of ``ref``; ``None`` removes it."""
    names = ("project", "dataset", '"table"')[: len(ref)]
    where = " AND ".join(f"{name} = ?" for name in names)
    cursor.execute(f"DELETE FROM bigquery_catalog.{kind} WHERE {where}", list(ref))
    if resource is not None:
        marks = ", ".join("?" * (len(ref) + 1))
        cursor.execute(f"INSERT INTO bigquery_catalog.{kind} VALUES ({marks})", [*ref, orjson.dumps(resource).decode()])
