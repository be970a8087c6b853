"""``audit find``: the rows of messages that have an attribute, or of one message by its id.

BigQuery bills the partitions that it reads, so only the last thirty days are looked at unless ``--from`` says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from google.cloud import bigquery

from pipeline import clients, flags
from pipeline.command import Failed, command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import COUNT, TableName, moment, pair, table_name
from transforms.encode import rfc3339

_ABOUT = (
    "Prints the audit rows of the messages whose attributes are as given, newest first: each is one line with what "
    "became of the message, or with --json the whole row. Ends with 0 although there is none."
)
FLAGS = (
    Flag("audit_table", "the job's audit table, PROJECT:DATASET.TABLE", table_name, required=True),
    Flag("message_id", "the message of this id, or what a replay made of it"),
    Flag("from", "rows written since then: 2030-01-31T12:00:00Z, or 15m, 2h, 3d ago", moment, "30d"),
    Flag("to", "and before then; without it, now", moment),
    Flag("limit", "print so many rows at the most", COUNT, "100"),
    Flag("json", "print each row as JSON, one a line", switch=True),
)
_OPERANDS = "[ATTRIBUTE=VALUE ...]"

_QUERY = """
SELECT * FROM `{table}`
WHERE processed_time >= @since AND processed_time < @until AND {conditions}
ORDER BY processed_time DESC LIMIT {limit}
"""
_BY_ID = "(message_id = @id OR JSON_VALUE(attributes, '$.\"dead_letter_first_message_id\"') = @id)"


def find(
    table: TableName,
    attributes: Iterable[tuple[str, str]],
    message_id: str | None,
    since: float,
    until: float,
    most: int,
) -> list[dict[str, Any]]:
    """Rows of ``table`` written from ``since`` to ``until`` (seconds since the epoch) that fit all that is given.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the table cannot be read.
    """
    times = {"since": since, "until": until}
    parameters = [
        bigquery.ScalarQueryParameter(name, "TIMESTAMP", datetime.fromtimestamp(value, timezone.utc))
        for name, value in times.items()
    ]
    conditions = [_BY_ID] if message_id else []
    parameters += [bigquery.ScalarQueryParameter("id", "STRING", message_id)] if message_id else []
    for number, (name, value) in enumerate(attributes):
        conditions.append(f"JSON_VALUE(attributes, '{json_path(name)}') = @value{number}")
        parameters.append(bigquery.ScalarQueryParameter(f"value{number}", "STRING", value))
    query = _QUERY.format(table=table, conditions=" AND ".join(conditions), limit=most)
    return [dict(row) for row in clients.query(table.project, query, parameters)]


def json_path(name: str) -> str:
    """The JSONPath of the attribute ``name``, to stand in a GoogleSQL text of single quotes."""
    return f'$."{name}"'.replace("'", "\\'")


def told(row: dict[str, Any]) -> str:
    """What became of a message, in one line."""
    if row["status"] == "ok":
        end = f"{row['model']}@{(row['model_revision'] or '')[:8]}: {row['prediction']}"
    else:
        end = f"{row['stage']}, {row['error_type']}: {row['error']}"
    worker = f" [{row['worker']}]" if row.get("worker") else ""
    return f"{rfc3339(row['processed_time'].timestamp())} {row['message_id']} {row['status']} {end}{worker}"


def _plain(value: Any) -> Any:
    return rfc3339(value.timestamp()) if isinstance(value, datetime) else str(value)


@command
def main(argv: Sequence[str]) -> int:
    """Prints the rows; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("audit find", "pipeline.find", _ABOUT, FLAGS, _OPERANDS)
    try:
        values, words = flags.read_with_words(FLAGS, argv)
        attributes = [_attribute(word) for word in words]
        since, until = values["from"], values["to"] or time.time()
        if not attributes and not values["message_id"]:
            raise UsageError("what to find is missing; use ATTRIBUTE=VALUE, such as customer=42, or --message_id")
        if since >= until:
            raise UsageError("--from is not before --to: no row was written between them")
    except UsageError as error:
        return flags.wrong_usage(error)
    most = values["limit"]
    try:
        rows = find(values["audit_table"], attributes, values["message_id"], since, until, most)
    except clients.API_ERRORS as error:
        raise Failed(f"nothing was looked for: {clients.words(error)}") from None
    for row in rows:
        print(json.dumps(row, default=_plain, ensure_ascii=False) if values["json"] else told(row))
    if not values["json"]:
        more = f" (--limit {most}: there may be more)" if len(rows) == most else ""
        print(f"{len(rows)} rows since {rfc3339(since)[:19]}Z{more}")
    return 0


def _attribute(word: str) -> tuple[str, str]:
    try:
        name, value = pair(word)
        if '"' in name or "\\" in name:
            raise UsageError(f"{word!r}: no attribute with a quotation mark or backslash in its name can be asked for")
        return name, value
    except UsageError:
        raise
    except ValueError:
        raise UsageError(f"{word!r}: not an attribute; use ATTRIBUTE=VALUE, such as customer=42") from None


if __name__ == "__main__":
    sys.exit(main())
