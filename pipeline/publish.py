"""Publishing records to a topic: Beam's sink, which Dataflow replaces with its own, or our own requests."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, WriteToPubSub
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import PublishRequest

from pipeline import clients
from transforms import metrics

_RETRY = clients.retry("publish")


class NativePublish(beam.PTransform[beam.PCollection[Any], beam.PCollection[Any]]):
    """Beam's sink, which Dataflow replaces with its own; that one carries no ordering keys."""

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> beam.PCollection[Any]:
        messages = records | "ToPubsub" >> beam.ParDo(_OutgoingFn()).with_output_types(PubsubMessage)
        written: beam.PCollection[Any] = messages | "Write" >> WriteToPubSub(self._topic, with_attributes=True)
        return written


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


class DirectPublish(beam.PTransform[beam.PCollection[Any], beam.PCollection[Any]]):
    """A request per thousand messages and one wait a bundle, where Beam's own sink waits for every hundred."""

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> beam.PCollection[Any]:
        published: beam.PCollection[Any] = records | beam.ParDo(_PublishFn(self._topic))
        return published


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
        if chunk and (len(chunk) == clients.PUBLISH_MESSAGES or size + needs > clients.PUBLISH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += needs
    if chunk:
        yield chunk


def _publish_now(topic: str, records: Sequence[Any]) -> list[str]:
    """One request, tried again with back-off."""
    request = PublishRequest.pb()(topic=topic)
    for record in records:
        request.messages.add(data=record.data, attributes=record.attributes, ordering_key=record.ordering_key)
    client = clients.pubsub(PublisherClient)
    answer = client.publish(PublishRequest.wrap(request), retry=_RETRY, timeout=clients.ATTEMPT_S)
    return list(answer.message_ids)
