"""Audit: one row a message, written before its result or dead letter goes out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
import orjson
from apache_beam.transforms.window import GlobalWindows

from transforms import tracing
from transforms.barrier import failure, guarded, tell
from transforms.encode import rfc3339
from transforms.errors import BundleError, MessageError, SinkUnavailable, quoted
from transforms.outcome import Outcome, failed
from transforms.records import AuditRow, Failure, Message, Result, identity
from transforms.window import Windowing

_COLUMNS = tuple(field.name for field in dataclasses.fields(AuditRow))
_values = operator.attrgetter(*_COLUMNS)

#: Rows a request: what the service recommends (https://cloud.google.com/bigquery/quotas#streaming_inserts).
ROWS_A_REQUEST = 500


class RowRejected(MessageError):
    """The audit table refused the message's row, in the service's words."""


class AuditSink(Protocol):
    """Where rows are written; picklable, and its client is made on the worker."""

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Writes ``rows`` and returns the rejected ones: index → the service's words.

        Raises:
            BundleError: the sink is gone; the bundle fails and is tried again.
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
        message_id=identity(message),
        publish_time=rfc3339(message.publish_time),
        event_time=rfc3339(message.event_time),
        processed_time=rfc3339(now),
        window_start=rfc3339(window[0]) if window else None,
        window_end=rfc3339(window[1]) if window else None,
        status="dead_letter" if failure else "ok",
        stage=failure.stage if failure else None,
        error_type=failure.error_type if failure else None,
        error=_error(failure, context) if failure else None,
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


def bare_row(failure: Failure, context: AuditContext, now: float) -> AuditRow:
    """A row that no table can refuse for the message's sake: nothing in it came with the message but its id."""
    values: dict[str, Any] = dict.fromkeys(_COLUMNS)
    values |= {
        "message_id": identity(failure.message).encode("utf-8", "replace").decode()[:_ID_CHARACTERS],
        "processed_time": rfc3339(now),
        "status": "dead_letter",
        "stage": failure.stage,
        "error_type": failure.error_type,
        "error": "see the dead letter: the table refused the full row",
        "input_sha256": None if context.audit_input == "none" else hashlib.sha256(failure.message.data).hexdigest(),
        "input_bytes": len(failure.message.data),
        "job": context.job,
        "pipeline_version": context.pipeline_version,
    }
    return AuditRow(**values)


def _error(failure: Failure, context: AuditContext) -> str:
    """The failure's words; what they quote of the message, only where the row may hold the message itself."""
    return failure.error if context.audit_input == "full" or failure.redacted is None else failure.redacted


def _readable(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


#: https://cloud.google.com/bigquery/quotas#streaming_inserts: characters of an insertId
_ROW_ID = 128

#: Longest message id of a bare row; the service's own have some 20 characters.
_ID_CHARACTERS = 1_000


def row_id(record: Result | Failure, context: AuditContext) -> str:
    """The row's identity: a repeat after a crash has the same, and one that ended in another way has its own.

    BigQuery drops rows of an identity that it has seen within the minute, so another outcome, another model and another
    prediction must each have another.
    """
    if isinstance(record, Failure):
        model, ended = record.model, f"{record.stage}/{record.error_type}"
    else:
        model, ended = record.prediction.model, hashlib.blake2b(record.prediction_json, digest_size=8).hexdigest()
    parts = (context.job, identity(message_of(record)), model.model if model else "", model.revision if model else "")
    text = "/".join((*parts, ended))
    # What a service takes for an id is not known to the character: anything but plain ASCII goes as its hash.
    plain = len(text) <= _ROW_ID and text.isascii() and text.isprintable()
    return text if plain else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def message_of(record: Result | Failure) -> Message:
    """The message that ended as ``record``."""
    return record.message if isinstance(record, Failure) else record.prediction.request.message


def to_json(audit_row: AuditRow) -> dict[str, Any]:
    """``audit_row`` as ``tabledata.insertAll`` takes it."""
    return dict(zip(_COLUMNS, _values(audit_row), strict=True))


class Audit(beam.PTransform[beam.PCollection[Any], Outcome]):
    """``Result`` or ``Failure`` → ``Outcome`` of the same records, each once its row is written.

    A result whose row is rejected fails with stage ``audit``. A failure whose row is rejected gets a bare row without
    what came in the message. There is a row for every message: where not even a bare one is taken, it is the table that
    is at fault, and the bundle fails.
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
        refused = self._insert(records)
        for index, record in enumerate(records):
            if index not in refused:
                yield record
            elif isinstance(record, Failure):
                self._insert_bare(record, refused[index])
                yield record
            else:
                yield failed(refused[index])

    def _insert(self, records: Sequence[Any]) -> dict[int, Failure]:
        """Writes a row for each of ``records``; what is refused, by its index."""
        now = time.time()
        rows: list[dict[str, Any]] = []
        places: list[int] = []
        refused: dict[int, Failure] = {}
        for index, record in enumerate(records):
            made = guarded(lambda each: to_json(row(each, self._context, now)), record, message_of(record), "audit")
            if isinstance(made, Failure):
                refused[index] = made
            else:
                rows.append(made)
                places.append(index)
        row_ids = [row_id(records[index], self._context) for index in places]
        for place, words in self._send(rows, row_ids).items():
            record = records[places[place]]
            model = record.model if isinstance(record, Failure) else record.prediction.model
            refused[places[place]] = failure(RowRejected(quoted(words)), message_of(record), "audit", model)
        return refused

    def _send(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Inserts ``rows``; those on which the sink raises what nobody foresaw are found by halving."""
        if not rows:
            return {}
        try:
            return self._sink.insert(rows, row_ids)
        except BundleError:
            raise
        except Exception as error:
            if len(rows) == 1:
                return {0: tell(error, "audit", rows[0]["message_id"])}
        middle = len(rows) // 2
        second = self._send(rows[middle:], row_ids[middle:])
        return {**self._send(rows[:middle], row_ids[:middle]), **{middle + i: words for i, words in second.items()}}

    def _insert_bare(self, record: Failure, reason: Failure) -> None:
        bare = to_json(bare_row(record, self._context, time.time()))
        for words in self._send([bare], [row_id(record, self._context)]).values():
            raise SinkUnavailable(
                f"the audit table refuses a row with nothing of message {identity(record.message)} in it: {words};"
                f" at first: {reason.error}"
            )
