"""Summary rows into the summary table, and as messages to the summary topic: never at the cost of a message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import orjson
from google.cloud import bigquery

from pipeline import clients
from pipeline.aside import ASIDE
from pipeline.audit_sink import BigQuerySink
from pipeline.matchers import TableName
from pipeline.publish import publish_all
from transforms.barrier import survived
from transforms.errors import BundleError, MessageError
from transforms.records import Message
from transforms.summary_row import SUMMARY_PARTITION_FIELD, SUMMARY_SCHEMA, SummaryRow

_JSON = tuple(each["name"] for each in SUMMARY_SCHEMA if each["type"] == "JSON")


class RowRefused(MessageError):
    """The summary table refused a row, in the service's words."""


class WriteSummaries(beam.PTransform[beam.PCollection[SummaryRow], beam.PCollection[Any]]):
    """Writes each row to ``table`` and publishes it to ``topic``, whichever are given.

    ``aside``: a thread of the process does it, so that an outage holds nothing up. On a service this is a stage of its
    own, which may wait; rows that a table does not take within ten minutes are dropped there too, and said.
    """

    def __init__(self, table: TableName | None, topic: str | None, aside: bool):
        super().__init__()
        self._step = _WriteFn(table, topic, aside)

    def expand(self, rows: beam.PCollection[SummaryRow]) -> beam.PCollection[Any]:
        written: beam.PCollection[Any] = rows | beam.ParDo(self._step)
        return written


class _WriteFn(beam.DoFn):
    def __init__(self, table: TableName | None, topic: str | None, aside: bool):
        self._table = table
        self._topic = topic
        self._aside = aside

    def process(self, row: SummaryRow) -> None:
        work: list[Callable[[], object]] = []
        if self._table:
            table = self._table
            work.append(lambda: insert(table, [row]))
        if self._topic:
            topic = self._topic
            work.append(lambda: publish_all(topic, [as_message(row)]))
        for each in work:
            if self._aside:
                ASIDE.submit(each)
                continue
            try:
                each()
            except (BundleError, Exception) as error:
                survived(error, "writing a summary")


def insert(table: TableName, rows: list[SummaryRow]) -> None:
    """Writes ``rows``; a repeat of one that was written within the minute is dropped by the service.

    Raises:
        RowRefused: the table does not take a row.
        SinkUnavailable: it cannot be reached.
    """
    found = [dataclasses.asdict(row) for row in rows]
    for words in BigQuerySink(table, SUMMARY_SCHEMA).insert(found, [row_id(row) for row in rows]).values():
        raise RowRefused(f"table {table}: {words}")


def row_id(row: SummaryRow) -> str:
    """The row's identity: which pane of which window of which run it is."""
    pane = (row.job, row.variant or "", row.run, row.window_start, row.window_end, row.pane, str(row.pane_index))
    return "/".join((*pane, str(row.messages)))[-128:]


def as_message(row: SummaryRow) -> Message:
    """``row`` as a message: JSON, with attributes that a subscription's filter can choose by."""
    values = dataclasses.asdict(row)
    body = {name: orjson.Fragment(value) if name in _JSON else value for name, value in values.items()}
    names = ("job", "variant", "pane", "window_start", "window_end")
    attributes = {name: str(values[name])[:1_000] for name in names if values[name] is not None}
    attributes |= {"shifted": str(bool(row.shifted)).lower(), "content-type": "application/json"}
    return Message(orjson.dumps(body), attributes)


def create_table(name: TableName) -> None:
    """Makes the summary table where it is missing."""
    table = bigquery.Table(str(name), [bigquery.SchemaField.from_api_repr(column) for column in SUMMARY_SCHEMA])
    table.time_partitioning = bigquery.TimePartitioning(field=SUMMARY_PARTITION_FIELD)
    clients.bigquery_client(name.project).create_table(table, exists_ok=True)
