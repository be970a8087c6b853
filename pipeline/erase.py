"""``audit erase``: deletes the rows of a person, or of whatever a condition names, and shows that they are gone.

BigQuery changes no row that was streamed in within the last half hour
(https://cloud.google.com/bigquery/docs/data-manipulation-language#limitations): older ones are deleted at once, and the
rest once they are old enough.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from google.cloud import bigquery

from pipeline import clients, flags
from pipeline.command import Failed, command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import TableName, seconds, table_name, text

#: How long a streamed row cannot be changed, with a margin for clocks.
BUFFER_S = 35 * 60

_ABOUT = (
    "Deletes the audit rows that --where names. Without --yes it only counts them. Rows of the last half hour cannot "
    "be deleted yet: they are waited for, unless --no_wait. Ends with 1 if any such row is left."
)
FLAGS = (
    Flag("audit_table", "the job's audit table, PROJECT:DATASET.TABLE", table_name, required=True),
    Flag(
        "where",
        "condition in GoogleSQL on the table's columns; attributes.NAME stands for the attribute of that name",
        text,
        required=True,
    ),
    Flag("yes", "delete; without it, count", switch=True),
    Flag("json", "print the counts as JSON, where nothing is deleted", switch=True),
    Flag("no_wait", "leave the rows of the last half hour, and say when they can be deleted", switch=True),
    Flag("buffer_s", "how long a streamed row cannot be changed", seconds, str(BUFFER_S), hidden=True),
)

_LITERAL = r"'(?:[^'\\]|\\.)*'" + r'|"(?:[^"\\]|\\.)*"'
_ATTRIBUTE = re.compile(rf"({_LITERAL})|(?<![\w.`])attributes\.(?:`([^`]+)`|(\w+))", re.S)


def condition(where: str) -> str:
    """``where`` with ``attributes.NAME`` as the JSON value that it stands for, in parentheses.

    Raises:
        ValueError: it is more than one condition.
    """
    bare = re.sub(_LITERAL, "''", where, flags=re.S)
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    if depth or ";" in bare or "--" in bare or "/*" in bare or "#" in bare or "'" in bare.replace("''", ""):
        raise ValueError("not one condition; use one such as \"attributes.user_id = '42'\"")

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return found[0]
        name = (found[2] or found[3]).replace("\\", "\\\\").replace("'", "\\'").replace('"', "")
        return f"JSON_VALUE(attributes, '$.\"{name}\"')"

    return f"({_ATTRIBUTE.sub(value, where)})"


class Eraser:
    """The rows of ``table`` that ``where`` holds for."""

    def __init__(self, table: TableName, where: str, buffer_s: float = BUFFER_S):
        self._table = table
        self._where = condition(where)
        self._buffer_s = buffer_s

    def count(self) -> tuple[int, int, datetime | None]:
        """How many there are, how many of them cannot be deleted yet, and when the newest was written."""
        (found,) = self._query(
            "SELECT COUNT(*) AS n, COUNTIF(processed_time > @settled) AS young, MAX(processed_time) AS newest "
            f"FROM `{self._table}` WHERE {self._where}"
        )
        return found["n"], found["young"], found["newest"]

    def delete(self) -> None:
        """Deletes those that can be."""
        list(self._query(f"DELETE FROM `{self._table}` WHERE processed_time <= @settled AND {self._where}"))

    def _query(self, sql: str) -> Any:
        settled = datetime.fromtimestamp(time.time() - self._buffer_s, timezone.utc)
        return clients.query(self._table.project, sql, [bigquery.ScalarQueryParameter("settled", "TIMESTAMP", settled)])


def erase(eraser: Eraser, wait: bool) -> int:
    """Deletes, waiting for young rows if ``wait``; returns how many are left."""
    left, _, _ = eraser.count()
    while True:
        before = left
        eraser.delete()
        left, _, newest = eraser.count()
        print(f"{before - left} rows deleted, {left} left", flush=True)
        # A row that was young for the deletion may be old for the count: what is left decides, not what is young.
        if not left or not newest:
            return left
        ready = newest.timestamp() + eraser._buffer_s
        if not wait:
            print(f"run the same again after {_clock(ready)}")
            return left
        print(f"{left} rows were written within half an hour; waiting until {_clock(ready)}", flush=True)
        time.sleep(max(0.1, ready - time.time() + 0.1))


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, timezone.utc):%H:%M:%S} UTC"


@command
def main(argv: Sequence[str]) -> int:
    """Counts, or deletes with ``--yes``; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("audit erase", "pipeline.erase", _ABOUT, FLAGS)
    try:
        values = flags.read(FLAGS, argv)
        try:
            eraser = Eraser(values["audit_table"], values["where"], values["buffer_s"])
        except ValueError as error:
            raise UsageError(f"--where {values['where']!r}: {error}") from None
    except UsageError as error:
        return flags.wrong_usage(error)
    try:
        if values["yes"]:
            return 1 if erase(eraser, not values["no_wait"]) else 0
        found, young, newest = eraser.count()
    except clients.API_ERRORS as error:
        raise Failed(f"the rows were not deleted: {clients.words(error)}") from None
    if values["json"]:
        print(json.dumps({"rows": found, "young": young}))
        return 0
    print(f"{found} rows, of which {young} cannot be deleted yet; nothing is deleted without --yes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
