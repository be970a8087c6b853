"""Window summaries from the audit table to the summary table, one row a window: ``python -m pipeline.summary``.

A window is summed up once it has ended, and again whenever later rows belong to it. Each run looks at what was
processed since the one before, so it may be stopped, started again and run twice at once: the rows come out the same.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from pipeline import clients, flags, summary_queries
from pipeline.flags import Flag, UsageError
from pipeline.matchers import TableName, seconds, table_name
from pipeline.options import Settings
from pipeline.signals import on_stop
from transforms.window import Windowing
from transforms.window_summary import DISTRIBUTIONS, SUMMARY_PARTITION_FIELD, SUMMARY_SCHEMA, compare

_LOGGER = logging.getLogger(__name__)
_UTC = datetime.timezone.utc

#: How far back the first run looks, and how far before the last run every other: rows take a moment to be readable.
_FIRST = datetime.timedelta(days=1)
_MARGIN = datetime.timedelta(minutes=2)

_ABOUT = (
    "Sums up, from the audit table, every window that has ended since the last refresh, one row a window of the "
    "summary table. It may be stopped, started again and run twice at once: the rows come out the same."
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
    Flag("every", "seconds between refreshes, until interrupted; without it, one refresh", seconds, group="When"),
)

_KEY = ("job", "window_start", "window_end")


class Summaries:
    """Keeps ``summary`` up to date with ``audit``; the summary table is made if it is missing."""

    def __init__(self, audit: TableName, summary: TableName):
        self._audit = audit
        self._summary = summary
        self._since: datetime.datetime | None = None
        self._made = False

    def refresh(self) -> int:
        """Sums up every ended window that got rows since the last refresh; returns how many.

        Raises:
            google.api_core.exceptions.GoogleAPIError: a table cannot be read or written; the next refresh covers it.
        """
        if not self._made:
            create_table(self._summary)
            self._made = True
        now = datetime.datetime.now(_UTC)
        since = self._since - _MARGIN if self._since else now - _FIRST
        (found,) = self._query(summary_queries.NEW, since=since, now=now)
        if found["oldest"] is not None:
            windows = self._windows({"since": since, "now": now, "oldest": found["oldest"]})
            for window in windows:
                self._write(window)
        self._since = now
        return len(windows) if found["oldest"] is not None else 0

    def _windows(self, times: dict[str, datetime.datetime]) -> list[dict[str, Any]]:
        windows = {tuple(row[name] for name in _KEY): row for row in self._query(summary_queries.TOTALS, **times)}
        counts: dict[Any, dict[str, dict[str, int]]] = defaultdict(lambda: {name: {} for name in DISTRIBUTIONS})
        for row in self._query(summary_queries.COUNTS, **times):
            counts[tuple(row[name] for name in _KEY)][row["distribution"]][row["name"]] = row["messages"]
        known = {**self._before(windows), **{key: counts[key] for key in windows}}
        for key, window in windows.items():
            before = [
                known[each] for each in sorted(known, key=lambda k: k[1]) if each[0] == key[0] and each[1] < key[1]
            ]
            window.update(compare(counts[key], before))
            window.update({name: json.dumps(counts[key][name]) for name in DISTRIBUTIONS})
            window["computed_time"] = datetime.datetime.now(_UTC)
        return [windows[key] for key in sorted(windows, key=lambda k: k[1])]

    def _before(self, windows: dict[Any, Any]) -> dict[Any, dict[str, dict[str, int]]]:
        """Distributions of the windows already summed up, as far back as any of ``windows`` is compared."""
        starts = [key[1] for key in windows]
        length = max(key[2] - key[1] for key in windows)
        # Quiet hours have no windows: look back further than ten windows' lengths.
        rows = self._query(summary_queries.BEFORE, first=min(starts) - max(100 * length, _FIRST), last=max(starts))
        return {tuple(row[name] for name in _KEY): {name: _json(row[name]) for name in DISTRIBUTIONS} for row in rows}

    def _write(self, window: dict[str, Any]) -> None:
        """One row, new or in place of the old."""
        names = [column["name"] for column in SUMMARY_SCHEMA]
        values = {
            c["name"]: f"PARSE_JSON(@{c['name']})" if c["type"] == "JSON" else f"@{c['name']}" for c in SUMMARY_SCHEMA
        }
        changes = ", ".join(f"{name} = new.{name}" for name in names if name not in _KEY)
        statement = (
            f"MERGE `{self._summary}` AS old USING (SELECT {', '.join(f'{values[n]} AS {n}' for n in names)}) AS new "
            f"ON {' AND '.join(f'old.{name} = new.{name}' for name in _KEY)} "
            f"WHEN MATCHED THEN UPDATE SET {changes} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f'new.{n}' for n in names)})"
        )
        kinds = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "JSON": "STRING"}
        parameters = [
            bigquery.ScalarQueryParameter(c["name"], kinds.get(c["type"], c["type"]), window[c["name"]])
            for c in SUMMARY_SCHEMA
        ]
        client = clients.bigquery_client(self._summary.project)
        client.query(statement, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result()

    def _query(self, text: str, **times: datetime.datetime) -> list[dict[str, Any]]:
        sql = text.format(audit=self._audit, summary=self._summary)
        parameters = [bigquery.ScalarQueryParameter(name, "TIMESTAMP", value) for name, value in times.items()]
        client = clients.bigquery_client(self._audit.project)
        return [
            dict(row)
            for row in client.query(sql, job_config=bigquery.QueryJobConfig(query_parameters=parameters)).result()
        ]


def _json(value: Any) -> dict[str, int]:
    return (json.loads(value) if isinstance(value, str) else value) or {}


def create_table(name: TableName) -> None:
    """Makes the summary table where it is missing."""
    table = bigquery.Table(str(name), [bigquery.SchemaField.from_api_repr(column) for column in SUMMARY_SCHEMA])
    table.time_partitioning = bigquery.TimePartitioning(field=SUMMARY_PARTITION_FIELD)
    clients.bigquery_client(name.project).create_table(table, exists_ok=True)


def every_s(windowing: Windowing) -> float:
    """Seconds between two refreshes: a window's period, at least 5 seconds and at most 5 minutes."""
    return min(300.0, max(5.0, windowing.period or windowing.size))


class Summarise(beam.PTransform[beam.pvalue.PBegin, beam.PCollection[Any]]):
    """Sums windows up for as long as a job on a service runs; on this machine a thread does (sidecars.py)."""

    def __init__(self, settings: Settings):
        super().__init__()
        assert settings.audit_table and settings.summary_table
        self._every_s = max(60.0, every_s(settings.window))
        self._step = SummariseFn(settings.audit_table, settings.summary_table)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Any]:
        refreshed: beam.PCollection[Any] = (
            pbegin | PeriodicImpulse(fire_interval=self._every_s) | "Refresh" >> beam.ParDo(self._step)
        )
        return refreshed


class SummariseFn(beam.DoFn):
    """Refreshes at every element; a table that is away is told in the log and costs the job nothing."""

    def __init__(self, audit: TableName, summary: TableName):
        self._tables = (audit, summary)
        self._summaries: Summaries | None = None

    def process(self, element: Any) -> None:
        self._summaries = self._summaries or Summaries(*self._tables)
        try:
            self._summaries.refresh()
        except api.GoogleAPIError as error:
            _LOGGER.warning("window summaries are behind: %s", error)


def main(argv: Sequence[str] | None = None) -> int:
    """Refreshes once, or until interrupted with ``--every``; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if flags.wants_help(argv):
        return flags.print_help("summary", "pipeline.summary", _ABOUT, _FLAGS)
    try:
        values = flags.read(_FLAGS, argv)
        if values["audit_table"] == values["summary_table"]:
            raise UsageError(f"--summary_table {str(values['summary_table'])!r}: it is also --audit_table; use another")
    except UsageError as error:
        return flags.wrong_usage(error)
    summaries = Summaries(values["audit_table"], values["summary_table"])
    stop = threading.Event()
    on_stop(stop.set)
    while not stop.is_set():
        try:
            print(f"{summaries.refresh()} windows", flush=True)
        except (api.GoogleAPIError, GoogleAuthError, OSError) as error:
            print("error: window summaries are behind:", " ".join(str(error).split()), file=sys.stderr, flush=True)
            if not values["every"]:
                return 1
        if not values["every"]:
            return 0
        stop.wait(values["every"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
