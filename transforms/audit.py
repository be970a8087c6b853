"""Audit: one row a message, written before its result or dead letter goes out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
import orjson
from apache_beam.transforms.window import GlobalWindows

from transforms import tracing
from transforms.encode import rfc3339
from transforms.outcome import FAILURES, Outcome
from transforms.records import AuditRow, Failure, Result
from transforms.window import Windowing

_LOGGER = logging.getLogger(__name__)
_COLUMNS = tuple(field.name for field in dataclasses.fields(AuditRow))
_values = operator.attrgetter(*_COLUMNS)

#: Rows a request: what the service recommends (https://cloud.google.com/bigquery/quotas#streaming_inserts).
ROWS_A_REQUEST = 500


class AuditSink(Protocol):
    """Where rows are written; picklable, and its client is made on the worker."""

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Writes ``rows`` and returns the rejected ones: index → the service's words.

        Raises:
            Exception: the sink is gone; the bundle fails and is tried again.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What every row has in common, and how much of the input it may hold: none, hash or full."""

    windowing: Windowing
    job: str
    pipeline_version: str
    audit_input: str = "hash"


def row(record: Result | Failure, context: AuditContext, now: float) -> AuditRow:
    """The audit row of one message, which ended as ``record`` at ``now`` (seconds since the epoch)."""
    if isinstance(record, Failure):
        failure, message, model, prediction = record, record.message, record.model, None
    else:
        failure, prediction = None, record.prediction
        message, model = prediction.request.message, prediction.model
    window = context.windowing.bounds(message.event_time)
    attributes = message.attributes
    return AuditRow(
        message_id=message.message_id,
        publish_time=rfc3339(message.publish_time),
        event_time=rfc3339(message.event_time),
        processed_time=rfc3339(now),
        window_start=rfc3339(window[0]) if window else None,
        window_end=rfc3339(window[1]) if window else None,
        status="dead_letter" if failure else "ok",
        stage=failure.stage if failure else None,
        error_type=failure.error_type if failure else None,
        error=failure.error if failure else None,
        task=model.task if model else None,
        model=model.model if model else None,
        model_revision=model.revision if model else None,
        device=model.device if model else None,
        dtype=model.dtype if model else None,
        prediction=record.prediction_json.decode() if isinstance(record, Result) else None,
        input_sha256=None if context.audit_input == "none" else hashlib.sha256(message.data).hexdigest(),
        input_bytes=len(message.data),
        input=_readable(message.data) if context.audit_input == "full" else None,
        tokens=prediction.tokens if prediction else None,
        truncated=prediction.truncated if prediction else None,
        batch_size=prediction.batch_size if prediction else None,
        inference_ms=round(prediction.inference_ms, 3) if prediction else None,
        total_ms=round((now - message.publish_time) * 1000, 3),
        attributes=orjson.dumps(dict(attributes)).decode() if attributes else "{}",
        ordering_key=message.ordering_key or None,
        trace_id=tracing.trace_id(attributes),
        job=context.job,
        pipeline_version=context.pipeline_version,
    )


def _readable(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


#: https://cloud.google.com/bigquery/quotas#streaming_inserts: characters of an insertId
_ROW_ID = 128


def row_id(record: Result | Failure, context: AuditContext) -> str:
    """The row's identity, made from the message: a repeat after a crash has the same."""
    message = record.message if isinstance(record, Failure) else record.prediction.request.message
    identity = f"{context.job}/{message.message_id}"
    return identity if len(identity) <= _ROW_ID else hashlib.sha256(identity.encode()).hexdigest()


def to_json(audit_row: AuditRow) -> dict[str, Any]:
    """``audit_row`` as ``tabledata.insertAll`` takes it."""
    return dict(zip(_COLUMNS, _values(audit_row), strict=True))


class Audit(beam.PTransform[beam.PCollection[Any], Outcome]):
    """``Result`` or ``Failure`` → ``Outcome`` of the same records, each once its row is written.

    A result whose row is rejected fails with stage ``audit``. A failure whose row is rejected gets a bare row without
    what came in the message, and passes in any case: its dead letter must not be lost for the audit's sake.
    """

    def __init__(self, sink: AuditSink, context: AuditContext):
        super().__init__()
        self._sink = sink
        self._context = context

    def expand(self, records: beam.PCollection[Any]) -> Outcome:
        return Outcome.of(beam.ParDo(_WriteFn(self._sink, self._context)), records)


class _WriteFn(beam.DoFn):
    def __init__(self, sink: AuditSink, context: AuditContext):
        self._sink = sink
        self._context = context
        self._pending: list[Any] = []

    def start_bundle(self) -> None:
        self._pending = []

    def process(self, record: Any) -> Iterator[Any]:
        self._pending.append(record)
        if len(self._pending) >= ROWS_A_REQUEST:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._flush():
            if isinstance(output, beam.pvalue.TaggedOutput):
                yield beam.pvalue.TaggedOutput(output.tag, GlobalWindows.windowed_value(output.value))
            else:
                yield GlobalWindows.windowed_value(output)

    def _flush(self) -> Iterator[Any]:
        records, self._pending = self._pending, []
        if not records:
            return
        rejected = self._insert(records)
        for index, record in enumerate(records):
            if index not in rejected:
                yield record
            elif isinstance(record, Failure):
                self._insert_bare(record, rejected[index])
                yield record
            else:
                message, model = record.prediction.request.message, record.prediction.model
                failure = Failure(message, "audit", "RowRejected", rejected[index], time.time(), model)
                yield beam.pvalue.TaggedOutput(FAILURES, failure)

    def _insert(self, records: Sequence[Any]) -> dict[int, str]:
        now = time.time()
        rows = [to_json(row(record, self._context, now)) for record in records]
        return self._sink.insert(rows, [row_id(record, self._context) for record in records])

    def _insert_bare(self, failure: Failure, reason: str) -> None:
        bare = dataclasses.replace(
            row(failure, self._context, time.time()), attributes=None, input=None, ordering_key=None
        )
        for _, words in self._sink.insert([to_json(bare)], [row_id(failure, self._context)]).items():
            _LOGGER.error("no audit row for message %s: %s; at first: %s", failure.message.message_id, words, reason)
