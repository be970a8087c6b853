"""What outlives the process with ``--state``: schemas, topics, subscriptions and every message not yet acknowledged.

SQLite in WAL mode, one transaction a request, written before the request is answered. It survives SIGKILL; it does not
wait for the disk, so a power cut may cost the last moments. Leases, delivery counts and what is retained to go back to
are not kept: after a restart every message in it is delivered anew. The file is one server's, and another is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.emulators.pubsub.delivery import Message

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, config BLOB);
CREATE TABLE IF NOT EXISTS schemas (name TEXT PRIMARY KEY, config BLOB);
CREATE TABLE IF NOT EXISTS subscriptions (name TEXT PRIMARY KEY, config BLOB);
CREATE TABLE IF NOT EXISTS messages (
  subscription TEXT, seq INTEGER, data BLOB, ordering_key TEXT, published REAL, PRIMARY KEY (subscription, seq)
) WITHOUT ROWID;
"""


class Journal:
    """The state file at ``path``, made if it is not there; nothing is kept where ``path`` is ``None``.

    Raises:
        sqlite3.Error: it is another server's, no such file, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        # A server that was just killed may hold the file a moment longer.
        self._database = sqlite3.connect(path, timeout=2) if path else None
        if self._database:
            pragmas = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"
            self._database.executescript(f"{pragmas}; {_SCHEMA}")

    def commit(self) -> None:
        if self._database:
            self._database.commit()

    def close(self) -> None:
        if self._database:
            self._database.commit()
            self._database.close()

    def configs(self, table: str) -> list[bytes]:
        """Every serialized proto in ``table``, ``schemas``, ``topics`` or ``subscriptions``."""
        if not self._database:
            return []
        return [config for (config,) in self._database.execute(f"SELECT config FROM {table} ORDER BY name")]

    def messages(self, subscription: str) -> Iterator[Message]:
        """The messages of one subscription, oldest first."""
        if self._database:
            query = "SELECT seq, data, ordering_key, published FROM messages WHERE subscription = ? ORDER BY seq"
            yield from (Message(*row) for row in self._database.execute(query, (subscription,)))

    def save(self, table: str, name: str, config: bytes) -> None:
        if self._database:
            self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (name, config))

    def delete(self, table: str, name: str) -> None:
        if self._database:
            self._database.execute(f"DELETE FROM {table} WHERE name = ?", (name,))
            if table == "subscriptions":
                self.clear(name)

    def clear(self, subscription: str) -> None:
        if self._database:
            self._database.execute("DELETE FROM messages WHERE subscription = ?", (subscription,))

    def add(self, subscription: str, messages: Iterable[Message]) -> None:
        if self._database:
            rows = ((subscription, *message) for message in messages)
            self._database.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?)", rows)

    def remove(self, subscription: str, seqs: Iterable[int]) -> None:
        if self._database:
            rows = ((subscription, seq) for seq in seqs)
            self._database.executemany("DELETE FROM messages WHERE subscription = ? AND seq = ?", rows)
