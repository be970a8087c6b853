"""``audit prove``: what became of every message that was published between two times.

The proof needs two records that do not know of each other: the audit table, which the job writes, and the table of a
BigQuery subscription to the input topic, which Pub/Sub itself writes (``templates/terraform``: ``prove = true``).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from google.cloud import bigquery

from pipeline import clients, flags
from pipeline.command import Failed, command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import TableName, moment, seconds, table_name

_ABOUT = (
    "Compares the audit table with what Pub/Sub itself wrote of the input topic, through a BigQuery subscription with "
    "metadata: messages published, rows, results, dead letters, in flight, and the ids of messages that have no row. "
    "Ends with 1 if one is missing, or if none was published."
)
FLAGS = (
    Flag("audit_table", "the job's audit table, PROJECT:DATASET.TABLE", table_name, required=True),
    Flag("inputs_table", "the table of the input topic's BigQuery subscription", table_name, required=True),
    Flag("from", "messages published since then: 2030-01-31T12:00:00Z, or 15m, 2h, 3d ago", moment, required=True),
    Flag("to", "and before then; without it, now", moment),
    Flag("job", "the job that should have handled them; without it, any"),
    Flag("in_flight_s", "a message younger than this may still be in work", seconds, "600"),
    Flag("json", "print the proof as JSON", switch=True),
)

#: Messages are matched by id within a day of their publishing: rows are partitioned by when they were processed, and a
#: message may be processed days later, so only the beginning is bounded.
_QUERY = """
WITH sent AS (
  SELECT message_id, MIN(publish_time) AS publish_time FROM `{inputs}`
  WHERE publish_time >= @since AND publish_time < @until GROUP BY message_id
), ended AS (
  SELECT message_id, COUNT(*) AS written, COUNTIF(status = 'ok') AS ok FROM `{audit}`
  WHERE processed_time >= TIMESTAMP_SUB(@since, INTERVAL 1 HOUR) AND (@job = '' OR job = @job) GROUP BY message_id
)
SELECT sent.message_id, sent.publish_time, ended.written, ended.ok
FROM sent LEFT JOIN ended ON ended.message_id = sent.message_id
"""
_COUNTS = """
SELECT COUNT(*) AS published, COALESCE(SUM(written), 0) AS written, COUNTIF(ok > 0) AS results,
  COUNTIF(written > 0 AND ok = 0) AS dead_letters, COUNTIF(written IS NULL AND publish_time >= @young) AS in_flight,
  COUNTIF(written IS NULL AND publish_time < @young) AS missing
FROM ({query})
"""
_MISSING = """
SELECT message_id, publish_time FROM ({query}) WHERE written IS NULL AND publish_time < @young
ORDER BY publish_time, message_id LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """Messages of a range: each is a result, a dead letter, in flight or missing; ``rows`` may repeat."""

    published: int
    rows: int
    results: int
    dead_letters: int
    in_flight: int
    missing: int
    missing_ids: tuple[tuple[str, datetime], ...]


def prove(audit: TableName, inputs: TableName, since: float, until: float, job: str, in_flight_s: float) -> Proof:
    """The proof for messages published from ``since`` to ``until``, in seconds since the epoch.

    Raises:
        google.api_core.exceptions.GoogleAPIError: a table cannot be read.
    """
    times = {"since": since, "until": until, "young": time.time() - in_flight_s}
    parameters = [
        bigquery.ScalarQueryParameter(name, "TIMESTAMP", datetime.fromtimestamp(value, timezone.utc))
        for name, value in times.items()
    ]
    parameters.append(bigquery.ScalarQueryParameter("job", "STRING", job))
    query = _QUERY.format(audit=audit, inputs=inputs)
    (found,) = clients.query(audit.project, _COUNTS.format(query=query), parameters)
    ids: tuple[tuple[str, datetime], ...] = ()
    if found["missing"]:
        rows = clients.query(audit.project, _MISSING.format(query=query), parameters)
        ids = tuple((row["message_id"], row["publish_time"]) for row in rows)
    return Proof(
        published=found["published"],
        rows=int(found["written"]),
        results=found["results"],
        dead_letters=found["dead_letters"],
        in_flight=found["in_flight"],
        missing=found["missing"],
        missing_ids=ids,
    )


@command
def main(argv: Sequence[str]) -> int:
    """Prints the proof; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("audit prove", "pipeline.prove", _ABOUT, FLAGS)
    try:
        values = flags.read(FLAGS, argv)
        since, until = values["from"], values["to"] or time.time()
        if since >= until:
            raise UsageError("--from is not before --to: no message was published between them")
        if values["audit_table"] == values["inputs_table"]:
            raise UsageError(f"--inputs_table {str(values['inputs_table'])!r}: it is also --audit_table; use another")
    except UsageError as error:
        return flags.wrong_usage(error)
    try:
        tables = values["audit_table"], values["inputs_table"]
        found = prove(*tables, since, until, values["job"] or "", values["in_flight_s"])
    except clients.API_ERRORS as error:
        raise Failed(f"nothing is proved: {clients.words(error)}") from None
    if values["json"]:
        ids = [{"message_id": name, "publish_time": published.isoformat()} for name, published in found.missing_ids]
        print(json.dumps({**asdict(found), "missing_ids": ids}))
        return 0 if found.published and not found.missing else 1
    print(
        f"published={found.published} rows={found.rows} results={found.results} dead_letters={found.dead_letters} "
        f"in_flight={found.in_flight} missing={found.missing}"
    )
    if not found.published:
        print(
            f"error: nothing is proved: {values['inputs_table']} holds no message that was published between the two "
            "times; look whether its subscription writes it, and --from and --to",
            file=sys.stderr,
        )
        return 1
    for message_id, published in found.missing_ids:
        print(f"missing: {message_id}, published {published.isoformat()}")
    if found.missing > len(found.missing_ids):
        print(f"and {found.missing - len(found.missing_ids)} more")
    return 1 if found.missing else 0


if __name__ == "__main__":
    sys.exit(main())
