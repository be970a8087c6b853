"""Window summaries counted anew from the audit table, on demand: ``beam-hf-inference summary recount``.

The job itself never asks the audit table anything. A recount is for what a crash cost, or to check the job's own rows:
each message counts once, whatever was repeated.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from apache_beam.transforms.window import WindowFn
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming
from google.cloud import bigquery

from pipeline import clients, flags, summary_sink
from pipeline.command import Failed, command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import TableName, moment, table_name
from transforms.errors import SinkUnavailable
from transforms.summary import row, with_indices
from transforms.summary_row import SummaryRow
from transforms.tally import Tally
from transforms.windowing import Windowing

_ABOUT = (
    "Counts the windows of a past range exactly, from the audit table, and adds a row of pane 'recount' for each to "
    "the summary table. It reads the range's partitions once, which BigQuery bills; the job itself reads nothing."
)
_FLAGS = (
    Flag("audit_table", "the job's audit table, PROJECT:DATASET.TABLE", table_name, required=True, group="Tables"),
    Flag(
        "summary_table",
        "the table of summaries; it is made if it is missing",
        table_name,
        required=True,
        group="Tables",
    ),
    Flag("since", "count windows that start at this time or later: 2h, or 2026-01-31T12:00:00Z", moment, required=True),
    Flag("until", "count windows that end at this time or before; without it, now", moment),
    Flag("window", "the windows to count, as of the job's flag of that name", Windowing.parse, "fixed:60"),
    Flag("job", "count this job's messages alone"),
    Flag("dry_run", "print what would be written, and write nothing", switch=True),
)


#: Each message once, as it ended last; in the order of their event times, which sessions need.
_QUERY = """
SELECT job, event_time, status, stage, truncated, tokens, tokens_generated, total_ms, input_bytes,
  JSON_VALUE(prediction, '$[0].label') AS label, SAFE_CAST(JSON_VALUE(prediction, '$[0].score') AS FLOAT64) AS score
FROM `{audit}`
WHERE processed_time >= TIMESTAMP_SUB(@since, INTERVAL 1 DAY) AND event_time >= @since AND event_time < @until
  AND (@job = '' OR job = @job)
QUALIFY ROW_NUMBER() OVER (PARTITION BY job, message_id ORDER BY processed_time DESC) = 1
ORDER BY event_time
"""


def recount(audit: TableName, windowing: Windowing, since: float, until: float, job: str = "") -> list[SummaryRow]:
    """The windows of ``audit`` from ``since`` to ``until`` (seconds since the epoch) as rows of pane ``recount``.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the table cannot be read.
    """
    # A session that began before is none of these: its first messages tell.
    first = since - windowing.size if windowing.kind == "session" else since
    times = {"since": first, "until": until}
    parameters = [
        bigquery.ScalarQueryParameter(name, "TIMESTAMP", datetime.fromtimestamp(value, timezone.utc))
        for name, value in times.items()
    ]
    parameters.append(bigquery.ScalarQueryParameter("job", "STRING", job))
    found = clients.query(audit.project, _QUERY.format(audit=audit), parameters)
    now = time.time()
    rows: list[SummaryRow] = []
    known: dict[str, list[dict[str, Any]]] = {}
    tallies = tally_windows(found, windowing)
    for name, start, end in sorted(tallies, key=lambda key: key[1:]):
        if start < since or end > until:
            continue
        tally = tallies[name, start, end]
        tally.close()
        pane = row((name, ""), tally, start, end, PaneInfo(True, True, PaneInfoTiming.ON_TIME, 0, 0), now)
        compared, known[name] = with_indices(pane, known.get(name, []))
        rows.append(dataclasses.replace(compared, pane="recount"))
    return rows


def tally_windows(rows: Iterable[Any], windowing: Windowing) -> dict[tuple[str, float, float], Tally]:
    """Audit ``rows``, in the order of their event times, by job and window."""
    tallies: dict[tuple[str, float, float], Tally] = {}
    sessions: dict[str, tuple[float, float]] = {}
    for found in rows:
        job, event_time = found["job"] or "", found["event_time"].timestamp()
        if windowing.kind == "session":
            start, end = sessions.get(job, (event_time, event_time))
            last = event_time + windowing.size
            if event_time < end:
                tallies[job, start, last] = tallies.pop((job, start, end))
            sessions[job] = start if event_time < end else event_time, last
            windows = [sessions[job]]
        else:
            stamp = Timestamp(event_time)
            assigned = windowing.beam().assign(WindowFn.AssignContext(stamp))
            windows = [(each.start.micros / 1e6, each.end.micros / 1e6) for each in assigned]
        for window in windows:
            _add(tallies.setdefault((job, window[0], window[1]), Tally("recount")), found)
    return tallies


def _add(tally: Tally, found: Any) -> None:
    if found["status"] != "ok":
        tally.dead_letter(found["input_bytes"], found["total_ms"] or 0.0, found["stage"])
        return
    tally.result(found["input_bytes"], found["total_ms"] or 0.0, found["label"], found["score"])
    tally.totals["truncated"] += bool(found["truncated"])
    tally.totals["tokens"] += found["tokens"] or 0
    tally.totals["tokens_generated"] += found["tokens_generated"] or 0


@command
def main(argv: Sequence[str]) -> int:
    """Counts, and writes unless ``--dry_run``; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("summary recount", "pipeline.summary", _ABOUT, _FLAGS)
    try:
        values = flags.read(_FLAGS, argv)
        audit, table = values["audit_table"], values["summary_table"]
        if audit == table:
            raise UsageError(f"--summary_table {str(table)!r}: it is also --audit_table; use another")
        since, until = values["since"], values["until"] or time.time()
        if since >= until:
            raise UsageError("--since is not before --until: no window lies between them")
        if values["window"].kind == "global":
            raise UsageError("--window 'global': has no end to count to; use fixed, sliding or session")
    except UsageError as error:
        return flags.wrong_usage(error)
    try:
        rows = recount(audit, values["window"], since, until, values["job"] or "")
        for each in rows:
            print(f"{each.window_start[:19]}Z {each.job}: {each.messages} messages, {each.ok} ok, labels {each.labels}")
        if rows and not values["dry_run"]:
            summary_sink.create_table(table)
            for start in range(0, len(rows), 500):
                summary_sink.insert(table, rows[start : start + 500])
    except (*clients.API_ERRORS, OSError, summary_sink.RowRefused, SinkUnavailable) as error:
        raise Failed(f"the windows were not counted: {clients.words(error)}") from None
    print(f"{len(rows)} windows, " + ("none written: --dry_run" if values["dry_run"] else f"written to {table}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
