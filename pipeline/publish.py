"""Publishing records to a topic: Beam's sink, which Dataflow replaces with its own, or our own requests."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, WriteToPubSub
from apache_beam.transforms.window import GlobalWindows
from google.api_core import exceptions as api
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import PublishRequest

from pipeline import clients, outage
from transforms import metrics, timing
from transforms.barrier import failure, tell
from transforms.dead_letter import PREFIX
from transforms.encode import attributes_bytes
from transforms.errors import MessageError, SinkUnavailable, quoted
from transforms.records import Failure, Message, Result


class Refused(MessageError):
    """The topic refused the result, in the service's words."""


class NativePublish(beam.PTransform[beam.PCollection[Any], tuple[()]]):
    """Beam's sink, which Dataflow replaces with its own; that one carries no ordering keys and no 10 MB.

    What is over :data:`pipeline.clients.NATIVE_BYTES` goes by a request of our own.
    """

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> tuple[()]:
        messages = records | "ToPubsub" >> beam.ParDo(_OutgoingFn(self._topic)).with_output_types(PubsubMessage)
        messages | "Write" >> WriteToPubSub(self._topic, with_attributes=True)
        return ()


class _OutgoingFn(beam.DoFn):
    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._ended = metrics.Ended()

    def process(self, record: Any) -> Iterator[PubsubMessage]:
        self._ended.add(record)
        if len(record.data) + attributes_bytes(record.attributes) <= clients.NATIVE_BYTES:
            yield outgoing(record)
        else:
            publish_all(self._topic, [record])

    def finish_bundle(self) -> None:
        self._ended.tell()


def outgoing(record: Any) -> PubsubMessage:
    """A record as Beam's Pub/Sub message."""
    return PubsubMessage(record.data, dict(record.attributes))


class DirectPublish(beam.PTransform[beam.PCollection[Any], tuple[beam.PCollection[Failure]]]):
    """A request per thousand messages and one wait a bundle, where Beam's own sink waits for every hundred.

    Returns a collection with the ``Failure`` of each result that the topic refused. A dead letter that it refuses is
    sent again without the attributes that the message brought.
    """

    def __init__(self, topic: str):
        super().__init__()
        self._topic = topic

    def expand(self, records: beam.PCollection[Any]) -> tuple[beam.PCollection[Failure]]:
        return (records | beam.ParDo(_PublishFn(self._topic)).with_output_types(Failure),)


class _PublishFn(beam.DoFn):
    def __init__(self, topic: str):
        self._topic = topic
        self._pending: list[Any] = []

    def start_bundle(self) -> None:
        self._pending = []

    def process(self, record: Any) -> None:
        self._pending.append(record)

    def finish_bundle(self) -> Iterator[Any]:
        records, self._pending = self._pending, []
        with timing.sink():
            _, refused = try_publish(self._topic, records)
        ended = metrics.Ended()
        for index, record in enumerate(records):
            if index not in refused:
                ended.add(record)
            elif isinstance(record, Result):
                error = Refused(quoted(refused[index]))
                request, model = record.prediction.request, record.prediction.model
                yield GlobalWindows.windowed_value(failure(error, request.message, "encode", model))
            else:
                publish_all(self._topic, [_without_its_own(record)])
                ended.add(record)
        ended.tell()


def _without_its_own(letter: Message) -> Message:
    notes = {key: value for key, value in letter.attributes.items() if key.startswith(PREFIX)}
    return Message(letter.data, notes)


#: Requests under way at once, each of another ordering key.
_publishers = concurrent.futures.ThreadPoolExecutor(8, "publish")


def publish_all(topic: str, records: Sequence[Any]) -> list[str]:
    """Publishes ``records`` and returns their message ids once all are safe.

    Raises:
        SinkUnavailable: one was refused, or the service stayed down; see :func:`try_publish`.
    """
    ids, refused = try_publish(topic, records)
    for words in refused.values():
        raise SinkUnavailable(f"{topic}: {words}")
    return ids


def try_publish(topic: str, records: Sequence[Any]) -> tuple[list[str], dict[int, str]]:
    """Publishes ``records``, the ones of an ordering key in order; returns their message ids once all are safe.

    And those that the topic refuses: index → the service's words. A request with such a one in it is halved until it
    is alone.

    Raises:
        SinkUnavailable: the service refused for another reason, or stayed down. No request is then under way any more.
    """
    keys: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        keys.setdefault(record.ordering_key, []).append(index)
    ids, refused = [""] * len(records), dict[int, str]()

    def send(indices: list[int]) -> None:
        places = iter(indices)
        for chunk in chunks([records[index] for index in indices]):
            _publish(topic, records, [next(places) for _ in chunk], ids, refused)

    if len(keys) <= 1:
        send(list(range(len(records))))
        return ids, refused
    # A request may hold one ordering key, and the service keeps the order of requests that are waited for. All end
    # before any error is raised: a request still under way would overtake the ones that come when all is repeated.
    sent = [_publishers.submit(send, indices) for indices in keys.values()]
    concurrent.futures.wait(sent)
    for each in sent:
        each.result()
    return ids, refused


def chunks(records: Iterable[Any]) -> Iterable[list[Any]]:
    """Cuts ``records`` into what one publish request may hold, in order."""
    chunk: list[Any] = []
    size = 0
    for record in records:
        needs = len(record.data) + sum(len(str(k)) + len(str(v)) for k, v in record.attributes.items()) * 4
        if chunk and (len(chunk) == clients.PUBLISH_MESSAGES or size + needs > clients.PUBLISH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += needs
    if chunk:
        yield chunk


def _publish(topic: str, records: Sequence[Any], places: list[int], ids: list[str], refused: dict[int, str]) -> None:
    """Publishes the records at ``places`` and fills in their ``ids``, or what they are ``refused`` for."""
    request = PublishRequest.pb()(topic=topic)
    try:
        for place in places:
            record = records[place]
            request.messages.add(data=record.data, attributes=record.attributes, ordering_key=record.ordering_key)
        client, service = clients.pubsub(PublisherClient), outage.service(f"topic {topic}", "messages")
        with service.request(len(places)) as failed:
            retry = clients.retry("publish", failed)
            answer = client.publish(PublishRequest.wrap(request), retry=retry, timeout=clients.ATTEMPT_S)
    except api.InvalidArgument as error:
        words = error.message
    except clients.API_ERRORS as error:
        raise SinkUnavailable(f"{topic}: {error}") from error
    except Exception as error:  # what cannot be made into a request
        words = tell(error, "encode") if len(places) == 1 else ""
    else:
        for place, message_id in zip(places, answer.message_ids, strict=True):
            ids[place] = message_id
        return
    if len(places) == 1:
        refused[places[0]] = words
        return
    middle = len(places) // 2
    for part in (places[:middle], places[middle:]):
        _publish(topic, records, part, ids, refused)
