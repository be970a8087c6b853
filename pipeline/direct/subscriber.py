"""Messages from a subscription, fetched in the background and held until they are said to be done.

A streaming pull fills a queue, a thread keeps the leases of everything not yet acknowledged, and ``take`` hands over
what is there. A message is acknowledged after ``done`` and never before.
"""

from __future__ import annotations

import collections
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import StreamingPullRequest, StreamingPullResponse

from pipeline.direct.event_time import parse_timestamp
from transforms.dead_letter import ATTEMPT
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: What one ``take`` hands over at the most. Twice as much is fetched ahead.
BUNDLE_MESSAGES = 1_000
BUNDLE_BYTES = 64 << 20

#: Leases: how long one lasts, and how often all are renewed (https://cloud.google.com/pubsub/docs/lease-management).
LEASE_S = 60
RENEW_S = 20

#: Acknowledgement ids a request (https://cloud.google.com/pubsub/quotas: 512 KiB a request).
ACK_IDS = 1_000

#: How long an acknowledgement is tried again: while the job runs, and at its end.
ACK_PATIENCE_S = 600.0
ACK_PATIENCE_AT_END_S = 30.0

#: A bundle in work for this long is said to be slow, again and again.
SLOW_S = 300.0

#: Dataflow's own deduplication by attribute looks back ten minutes; the count bounds memory.
DEDUPLICATE_S = 600.0
DEDUPLICATE_IDS = 200_000

#: Errors of the stream that only ask for a new one.
_REOPEN = (
    api.Aborted,
    api.Cancelled,
    api.DeadlineExceeded,
    api.InternalServerError,
    api.ResourceExhausted,
    api.ServiceUnavailable,
    api.TooManyRequests,
    api.Unknown,
)


class Subscriber:
    """One subscription's messages; ``take`` and ``done`` belong to one thread."""

    def __init__(
        self,
        subscription: str,
        client: SubscriberClient,
        id_attribute: str | None = None,
        timestamp_attribute: str | None = None,
        linger_s: float = 0.0,
    ):
        self._subscription = subscription
        self._client = client
        self._id_attribute = id_attribute
        self._timestamp_attribute = timestamp_attribute
        self._linger_s = linger_s
        self._changed = threading.Condition()
        self._queue: collections.deque[Message] = collections.deque()
        self._leases: dict[str, str] = {}
        self._seen: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._repeats: list[str] = []
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._stream_ended = threading.Event()
        self._stream: object | None = None
        self._taken = time.monotonic()
        self._in_work = 0
        self._acks = concurrent.futures.ThreadPoolExecutor(1, "acknowledge")
        self._threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True) for target in (self._fetch, self._renew)
        ]
        for thread in self._threads:
            thread.start()

    def take(self, timeout: float) -> list[Message]:
        """Up to a bundle of messages: those that are there, or none after ``timeout`` seconds.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: the subscription cannot be read, and waiting will not help.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._error or self._stopping.is_set(), timeout)
            if self._error:
                raise self._error
            if self._linger_s and self._queue:
                full = BUNDLE_MESSAGES
                self._changed.wait_for(lambda: len(self._queue) >= full or self._stopping.is_set(), self._linger_s)
            bundle: list[Message] = []
            size = 0
            while self._queue and not self._stopping.is_set() and len(bundle) < BUNDLE_MESSAGES and size < BUNDLE_BYTES:
                message = self._queue.popleft()
                size += len(message.data)
                bundle.append(message)
            self._taken, self._in_work = time.monotonic(), len(bundle)
            self._changed.notify_all()
            return bundle

    def done(self, messages: list[Message]) -> None:
        """Acknowledges ``messages``, in the background: all that came of them is safely elsewhere."""
        with self._changed:
            self._in_work = 0
            ack_ids = [self._leases.pop(message.message_id) for message in messages]
        self._acknowledge(ack_ids)

    def oldest(self) -> float:
        """Event time of the message at the head of the queue; now, where there is none."""
        with self._changed:
            return self._queue[0].event_time if self._queue else time.time()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Hands over nothing more; what was taken can still be ``done``."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for the acknowledgements and gives back, for others to handle, what was not done."""
        self.stop()
        self._stream_ended.set()
        if self._stream is not None:
            self._stream.cancel()  # type: ignore[attr-defined]
        self._acks.shutdown(wait=True)
        for chunk in _chunks(list(self._leases.values())):
            try:
                self._client.modify_ack_deadline(
                    subscription=self._subscription, ack_ids=chunk, ack_deadline_seconds=0, retry=None, timeout=10
                )
            except api.GoogleAPICallError as error:
                _LOGGER.warning("%d messages come back only when their leases end: %s", len(chunk), error.message)

    def _acknowledge(self, ack_ids: list[str]) -> None:
        for chunk in _chunks(ack_ids):
            self._acks.submit(self._acknowledge_now, chunk)

    def _acknowledge_now(self, ack_ids: list[str]) -> None:
        started, pause = time.monotonic(), 0.1
        while True:
            try:
                self._client.acknowledge(subscription=self._subscription, ack_ids=ack_ids, retry=None, timeout=30)
                return
            except api.GoogleAPICallError as error:
                patience = ACK_PATIENCE_AT_END_S if self.stopping else ACK_PATIENCE_S
                if not isinstance(error, _REOPEN) or time.monotonic() - started > patience:
                    _LOGGER.warning("%d messages will be delivered again: %s", len(ack_ids), error.message)
                    return
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _requests(self, ended: threading.Event) -> Iterator[StreamingPullRequest]:
        """The first request opens the stream with its flow control; it then stays open until the end."""
        yield StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=LEASE_S,
            max_outstanding_messages=2 * BUNDLE_MESSAGES,
            max_outstanding_bytes=2 * BUNDLE_BYTES,
        )
        ended.wait()

    def _fetch(self) -> None:
        pause = 0.1
        while not self._stopping.is_set():
            with self._changed:
                # Every stream may bring as much as its flow control allows: a service that keeps coming and going must
                # not fill the memory.
                self._changed.wait_for(lambda: len(self._queue) < 2 * BUNDLE_MESSAGES or self._stopping.is_set())
            ended = self._stream_ended = threading.Event()
            try:
                self._stream = self._client.streaming_pull(requests=self._requests(ended), retry=None)
                for response in self._stream:  # type: ignore[attr-defined]
                    pause = 0.1
                    self._receive(StreamingPullResponse.pb(response).received_messages)
            except _REOPEN as error:
                if not self._stopping.is_set():
                    _LOGGER.info("the stream of %s ended (%s); opening another", self._subscription, error.message)
            except Exception as error:  # the worker thread raises it where Beam sees it
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            ended.set()
            self._stopping.wait(pause)
            pause = min(pause * 2, 5.0)

    def _receive(self, received: object) -> None:
        with self._changed:
            for each in received:  # type: ignore[attr-defined]
                message = self._message(each.message)
                again = message.message_id in self._leases
                if not again and self._is_repeat(message):
                    self._repeats.append(each.ack_id)
                    continue
                # A lease that ran out brings the message again: keep the newer way to acknowledge it.
                self._leases[message.message_id] = each.ack_id
                if not again:
                    self._queue.append(message)
            self._changed.notify_all()
        if self._repeats:
            self._acknowledge(self._repeats)
            self._repeats = []

    def _is_repeat(self, message: Message) -> bool:
        key = message.attributes.get(self._id_attribute) if self._id_attribute else None
        if key is None:
            return False
        now = time.monotonic()
        while self._seen and (
            len(self._seen) > DEDUPLICATE_IDS or next(iter(self._seen.values())) < now - DEDUPLICATE_S
        ):
            self._seen.popitem(last=False)
        # A replayed dead letter is no repeat of the message that failed.
        key = f"{message.attributes.get(ATTEMPT, '')}/{key}"
        repeat = key in self._seen
        self._seen.setdefault(key, now)
        return repeat

    def _message(self, message: object) -> Message:
        publish_time = message.publish_time.seconds + message.publish_time.nanos / 1e9  # type: ignore[attr-defined]
        attributes = dict(message.attributes)  # type: ignore[attr-defined]
        event_time = publish_time
        if self._timestamp_attribute and self._timestamp_attribute in attributes:
            event_time = parse_timestamp(attributes[self._timestamp_attribute], publish_time)
        return Message(
            message.data,  # type: ignore[attr-defined]
            attributes,
            message.message_id,  # type: ignore[attr-defined]
            publish_time,
            event_time,
            message.ordering_key,  # type: ignore[attr-defined]
        )

    def _renew(self) -> None:
        warned = 0.0
        while not self._stopping.wait(RENEW_S):
            with self._changed:
                ack_ids = list(self._leases.values())
                in_work, since = self._in_work, time.monotonic() - self._taken
            if in_work and since > warned + SLOW_S:
                warned = since
                _LOGGER.warning(
                    "%d messages have been in work for %.0f s: a sink is down or the model hangs; nothing is lost if"
                    " the job is ended (SIGTERM twice), they are then delivered again",
                    in_work,
                    since,
                )
            elif since < warned:
                warned = 0.0
            for chunk in _chunks(ack_ids):
                try:
                    self._client.modify_ack_deadline(
                        subscription=self._subscription,
                        ack_ids=chunk,
                        ack_deadline_seconds=LEASE_S,
                        retry=None,
                        timeout=10,
                    )
                except api.GoogleAPICallError as error:
                    _LOGGER.warning("%d leases were not renewed: %s", len(chunk), error.message)


def _chunks(ack_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ack_ids), ACK_IDS):
        yield ack_ids[start : start + ACK_IDS]


Connect = Callable[[], SubscriberClient]
