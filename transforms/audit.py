"""Audit: one row a message, written before its result or dead letter goes out."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from transforms import timing
from transforms.audit_row import AuditContext, bare_row, message_of, row, row_id, to_json
from transforms.barrier import failure, guarded, tell
from transforms.errors import BundleError, MessageError, SinkUnavailable, quoted
from transforms.outcome import Outcome, failed
from transforms.records import Failure, identity

__all__ = ["Audit", "AuditContext", "AuditSink", "RowRejected"]

#: Rows a request: what the service recommends (https://cloud.google.com/bigquery/quotas#streaming_inserts).
ROWS_A_REQUEST = 500
#: Requests of a bundle that are under way at once: a request is nearly all waiting.
AT_ONCE = 4

_inserters = concurrent.futures.ThreadPoolExecutor(2 * AT_ONCE, "insert")


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
        if len(self._pending) >= AT_ONCE * ROWS_A_REQUEST:
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
        with timing.sink():
            refused = self._insert_all(records)
        for index, record in enumerate(records):
            if index not in refused:
                yield record
            elif isinstance(record, Failure):
                self._insert_bare(record, refused[index])
                yield record
            else:
                yield failed(refused[index])

    def _insert_all(self, records: Sequence[Any]) -> dict[int, Failure]:
        """Writes a row for each of ``records``, the requests side by side; what is refused, by its index."""
        starts = range(0, len(records), ROWS_A_REQUEST)
        first, *others = [records[start : start + ROWS_A_REQUEST] for start in starts]
        sent = [_inserters.submit(self._insert, chunk) for chunk in others]
        try:
            parts = [self._insert(first)]
        finally:
            # None is under way any more when an error is raised, and all are written again.
            concurrent.futures.wait(sent)
        parts += [each.result() for each in sent]
        return {start + i: refusal for start, part in zip(starts, parts, strict=True) for i, refusal in part.items()}

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
                f" at first: {reason.redacted or reason.error}"
            )
