"""The job's endpoints: Pub/Sub and BigQuery, their quotas, and which runner reads them.

``PUBSUB_EMULATOR_HOST`` and ``BIGQUERY_EMULATOR_HOST`` are honoured everywhere.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import apache_beam as beam
import grpc
import requests.exceptions
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub, WriteToPubSub
from apache_beam.runners.runner import PipelineRunner
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import TransportError
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import PublishRequest

from pipeline.local import runner as local
from pipeline.options import Settings, TableName
from transforms import metrics
from transforms.encode import has_date
from transforms.records import Limits, Message

#: https://cloud.google.com/pubsub/quotas#resource_limits
LIMITS = Limits(message_bytes=10_000_000, attributes=100, attribute_value_bytes=1_024)
PUBLISH_MESSAGES = 1_000
PUBLISH_BYTES = 9_000_000
#: https://cloud.google.com/bigquery/quotas#streaming_inserts: 10 MB a request
INSERT_BYTES = 10_000_000

#: How long a sink that is down holds the work before the bundle fails and its messages are delivered again.
_PATIENCE_S = 600.0
#: How long one request of that may take.
ATTEMPT_S = 60.0

_TRANSIENT = (
    api.Aborted,
    api.DeadlineExceeded,
    api.GatewayTimeout,
    api.InternalServerError,
    api.BadGateway,
    api.ServiceUnavailable,
    api.TooManyRequests,
    api.Unknown,
    ConnectionError,
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
    TransportError,
)


def _transient(error: BaseException) -> bool:
    """Whether waiting may mend ``error``; a quota answers 403 with its reason."""
    if isinstance(error, api.Forbidden):
        return any(
            e.get("reason") in ("rateLimitExceeded", "quotaExceeded") for e in error.errors if isinstance(e, dict)
        )
    return isinstance(error, _TRANSIENT) and not isinstance(error, requests.exceptions.SSLError)


def _retry(sink: str) -> Retry:
    """Exponential back-off with full jitter, from 0.1 to 10 seconds; counted among the metrics of ``sink``."""
    return Retry(
        predicate=_transient,
        initial=0.1,
        maximum=10.0,
        multiplier=2.0,
        timeout=_PATIENCE_S,
        on_error=lambda error: metrics.retried(sink),
    )


_PUBLISH_RETRY, _INSERT_RETRY = _retry("publish"), _retry("insert")

#: For a look before a launch: what fails is told, and not tried again.
ONCE = Retry(predicate=lambda _: False)

_Client = TypeVar("_Client", PublisherClient, SubscriberClient)


@functools.cache
def pubsub(kind: type[_Client]) -> _Client:
    """The process's one Pub/Sub client of ``kind``, on the emulator if there is one."""
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if not emulator:
        return kind()
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # By default up to two minutes: an emulator that has come back should not be waited for.
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    transport = kind.get_transport_class("grpc")
    return kind(transport=transport(channel=grpc.insecure_channel(emulator, options)))


@functools.cache
def bigquery_client(project: str) -> bigquery.Client:
    """The process's one BigQuery client for ``project``, on the emulator if there is one."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        return bigquery.Client(project, credentials=AnonymousCredentials())
    return bigquery.Client(project)


def runner(settings: Settings) -> PipelineRunner | None:
    """The runner for local work, or None for the one that Beam's own ``--runner`` names."""
    return local.LocalRunner() if settings.local else None


def read(settings: Settings) -> beam.PTransform:
    """``Message`` from the input subscription: Beam's native source, or on this machine one that loses nothing."""
    if settings.local and local.supported():
        return local.ReadFromSubscription(
            settings.input_subscription,
            functools.partial(pubsub, SubscriberClient),
            settings.id_attribute,
            settings.timestamp_attribute,
            (settings.max_batch_latency_ms or 0) / 1000,
        )
    return _NativeRead(settings)


class _NativeRead(beam.PTransform):
    def __init__(self, settings: Settings):
        super().__init__()
        self._settings = settings

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Message]:
        source = ReadFromPubSub(
            subscription=self._settings.input_subscription,
            id_label=self._settings.id_attribute,
            with_attributes=True,
            timestamp_attribute=self._settings.timestamp_attribute,
        )
        return pbegin | source | "ToMessage" >> beam.Map(incoming).with_output_types(Message)


def incoming(message: PubsubMessage, timestamp: Any = beam.DoFn.TimestampParam) -> Message:
    """Beam's Pub/Sub message as ours; an event time that no timestamp column can hold gives way to the publish time."""
    event_time = timestamp.micros / 1e6
    if not has_date(event_time):
        event_time = message.publish_time.timestamp() if message.publish_time else 0.0
    return Message(
        data=message.data or b"",
        attributes=dict(message.attributes or {}),
        message_id=message.message_id or "",
        publish_time=message.publish_time.timestamp() if message.publish_time else event_time,
        event_time=event_time,
        ordering_key=message.ordering_key or "",
    )


def publish(topic: str, settings: Settings) -> beam.PTransform:
    """Publishes records that have ``data``, ``attributes`` and ``ordering_key``; each runner has its class."""
    return _Publish(topic) if settings.local else _NativePublish(topic)


class _NativePublish(beam.PTransform):
    """Beam's sink, which Dataflow replaces with its own; that one carries no ordering keys."""

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> beam.PCollection[Any]:
        messages = records | "ToPubsub" >> beam.ParDo(_OutgoingFn()).with_output_types(PubsubMessage)
        return messages | "Write" >> WriteToPubSub(self._topic, with_attributes=True)


class _OutgoingFn(beam.DoFn):
    def __init__(self) -> None:
        self._ended = metrics.Ended()

    def process(self, record: Any) -> Iterator[PubsubMessage]:
        self._ended.add(record)
        yield outgoing(record)

    def finish_bundle(self) -> None:
        self._ended.tell()


def outgoing(record: Any) -> PubsubMessage:
    """A record as Beam's Pub/Sub message."""
    return PubsubMessage(record.data, dict(record.attributes))


class _Publish(beam.PTransform):
    """A request per thousand messages and one wait a bundle, where Beam's own sink waits for every hundred."""

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return records | beam.ParDo(_PublishFn(self._topic))


class _PublishFn(beam.DoFn):
    def __init__(self, topic: str):
        self._topic = topic
        self._pending: list[Any] = []

    def start_bundle(self) -> None:
        self._pending = []

    def process(self, record: Any) -> None:
        self._pending.append(record)

    def finish_bundle(self) -> None:
        publish_all(self._topic, self._pending)
        ended = metrics.Ended()
        for record in self._pending:
            ended.add(record)
        ended.tell()
        self._pending = []


#: Requests under way at once, each of another ordering key.
_publishers = concurrent.futures.ThreadPoolExecutor(8, "publish")


def publish_all(topic: str, records: Sequence[Any]) -> list[str]:
    """Publishes ``records``, the ones of an ordering key in order, and returns their message ids once all are safe.

    Raises:
        google.api_core.exceptions.GoogleAPIError: a request was refused, or the service stayed down.
    """
    keys: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        keys.setdefault(record.ordering_key, []).append(index)
    if len(keys) <= 1:
        return _publish_key(topic, records)
    # A request may hold one ordering key, and the service keeps the order of requests that are waited for.
    ids = [""] * len(records)
    requests = _publishers.map(lambda key: _publish_key(topic, [records[index] for index in keys[key]]), keys)
    for indices, found in zip(keys.values(), requests, strict=True):
        for index, message_id in zip(indices, found, strict=True):
            ids[index] = message_id
    return ids


def _publish_key(topic: str, records: Sequence[Any]) -> list[str]:
    return [message_id for chunk in chunks(records) for message_id in _publish_now(topic, chunk)]


def chunks(records: Iterable[Any]) -> Iterable[list[Any]]:
    """Cuts ``records`` into what one publish request may hold, in order."""
    chunk: list[Any] = []
    size = 0
    for record in records:
        needs = len(record.data) + sum(len(k) + len(v) for k, v in record.attributes.items()) * 4
        if chunk and (len(chunk) == PUBLISH_MESSAGES or size + needs > PUBLISH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += needs
    if chunk:
        yield chunk


def _publish_now(topic: str, records: Sequence[Any]) -> Sequence[str]:
    """One request, tried again with back-off."""
    request = PublishRequest.pb()(topic=topic)
    for record in records:
        request.messages.add(data=record.data, attributes=record.attributes, ordering_key=record.ordering_key)
    client = pubsub(PublisherClient)
    return client.publish(PublishRequest.wrap(request), retry=_PUBLISH_RETRY, timeout=ATTEMPT_S).message_ids


class BigQuerySink:
    """The audit table as :class:`transforms.audit.AuditSink`; a bad row is told apart from a table that is gone."""

    def __init__(self, table: TableName):
        self._table = table

    def insert(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        """Streams ``rows``; a request that the service refuses as a whole is halved until the culprit is alone.

        Raises:
            google.api_core.exceptions.GoogleAPIError: the table is gone, or stayed down for ten minutes.
        """
        # A request far over the limit may be cut off while it is sent instead of refused, which looks like a fault of
        # the network and would be tried again and again: it must not be made.
        if _exceeds(rows, INSERT_BYTES):
            if len(rows) == 1:
                return {0: f"the row is over {INSERT_BYTES} bytes; see --audit_input"}
            return self._insert_halves(rows, row_ids)
        client = bigquery_client(self._table.project)
        try:
            errors = client.insert_rows_json(
                str(self._table), rows, row_ids=row_ids, skip_invalid_rows=True, retry=_INSERT_RETRY, timeout=ATTEMPT_S
            )
        except api.GoogleAPICallError as error:
            if error.code not in (400, 413):
                raise
            return {0: error.message} if len(rows) == 1 else self._insert_halves(rows, row_ids)
        return {error["index"]: _words(error["errors"]) for error in errors}

    def _insert_halves(self, rows: Sequence[dict[str, Any]], row_ids: Sequence[str]) -> dict[int, str]:
        middle = len(rows) // 2
        rejected = self.insert(rows[:middle], row_ids[:middle])
        second = self.insert(rows[middle:], row_ids[middle:])
        return {**rejected, **{middle + index: words for index, words in second.items()}}


def _exceeds(rows: Sequence[dict[str, Any]], limit: int) -> bool:
    """Whether ``rows`` have more than ``limit`` bytes as the client sends them: JSON in ASCII, 12 for an emoji."""
    characters = sum(len(value) for row in rows for value in row.values() if isinstance(value, str))
    most = 12 * characters + 2_000 * len(rows)
    return most > limit and sum(len(json.dumps(row)) + 200 for row in rows) > limit


def _words(errors: Sequence[dict[str, str]]) -> str:
    return "; ".join(f"{e.get('location') or 'row'}: {e.get('message') or e.get('reason')}" for e in errors)
