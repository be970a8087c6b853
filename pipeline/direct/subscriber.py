"""Messages from a subscription, fetched in the background and held until they are said to be done.

A streaming pull fills a queue, the leases of everything not yet acknowledged are kept, and ``take`` hands over what is
there. A message is acknowledged after ``done`` and never before. Nothing is fetched before the first ``take``: to
Pub/Sub, a message that is fetched and given back has failed once, and a few of those make it a dead letter
(https://cloud.google.com/pubsub/docs/handling-failures).
"""

from __future__ import annotations

import collections
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import StreamingPullRequest, StreamingPullResponse

from pipeline import outage
from pipeline.direct import leases, received
from pipeline.direct.in_work import InWork
from pipeline.direct.leases import Leases
from pipeline.direct.pace import Pace
from pipeline.direct.repeats import Repeats
from pipeline.direct.watermark import Watermark
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: What one ``take`` hands over at the most. Twice as much is fetched ahead.
BUNDLE_MESSAGES = 1_000
BUNDLE_BYTES = 64 << 20

#: How long an acknowledgement is tried again: while the job runs, and at its end.
ACK_PATIENCE_S = 600.0
ACK_PATIENCE_AT_END_S = 30.0

#: A new stream that has not broken for so long works, though it brings nothing.
SETTLED_S = 2.0


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
        self._timestamp_attribute = timestamp_attribute
        self._linger_s = linger_s
        self._changed = threading.Condition()
        #: How many messages are taken at once, where they cost a model's time.
        self.pace: Pace | None = None
        self._queue: collections.deque[Message] = collections.deque()
        self._came: collections.deque[float] = collections.deque()
        self._looked_at = 0
        self._queued_bytes = 0
        self._in_work = InWork()
        self._leases = Leases(subscription, client, self._in_work.warn_if_slow)
        self._repeats = Repeats(id_attribute)
        self._service = outage.service(f"subscription {subscription}", "messages")
        self._opened: float | None = None
        self._watermark = Watermark()
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._stream: Any = None
        self._stream_ended = threading.Event()
        self._acks = concurrent.futures.ThreadPoolExecutor(1, "acknowledge")
        self._fetching = threading.Thread(target=self._fetch, name="fetch", daemon=True)

    def take(self, timeout: float) -> list[Message]:
        """Up to a bundle of messages: those that are there, or none after ``timeout`` seconds.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: the subscription cannot be read, and waiting will not help.
        """
        with self._changed:
            if self._fetching.ident is None and not self._stopping.is_set():
                self._leases.start()
                self._fetching.start()
            self._changed.wait_for(lambda: self._queue or self._error or self._stopping.is_set(), timeout)
            if self._opened is not None and time.monotonic() - self._opened > SETTLED_S:
                self._opened = None
                self._service.worked()
            if self._error:
                raise self._error
            if self._linger_s and self._queue:
                full = BUNDLE_MESSAGES
                self._changed.wait_for(lambda: len(self._queue) >= full or self._stopping.is_set(), self._linger_s)
            bundle = self.upcoming()
            self._queued_bytes -= sum(len(self._queue.popleft().data) for _ in bundle)
            self._looked_at = 0
            for _ in bundle:
                self._came.popleft()
            self._in_work.begin(bundle)
            self._changed.notify_all()
            return bundle

    def upcoming(self) -> list[Message]:
        """What the next ``take`` will begin with; nothing is taken."""
        with self._changed:
            if self.stopping or not self._queue:
                return []
            most = BUNDLE_MESSAGES
            if self.pace:
                paced = self.pace.of(self._queue, len(self._queue), time.monotonic() - self._came[0])
                most = min(most, max(self._looked_at, paced))
            found = received.first(self._queue, most, BUNDLE_BYTES)
            self._looked_at = len(found)
            return found

    def backlog(self) -> tuple[int, float | None]:
        """How many messages have come and are not done with, and when the oldest of them was published."""
        with self._changed:
            first = self._queue[0].publish_time if self._queue else None
            work = self._in_work
            return len(self._queue) + work.count, work.oldest if work.count and work.oldest is not None else first

    def done(self, messages: list[Message]) -> None:
        """Acknowledges ``messages``, in the background: all that came of them is safely elsewhere."""
        self._in_work.done(len(messages))
        self._acks.submit(self._acknowledge, self._leases.end(message.message_id for message in messages))

    def mark(self) -> float:
        """The watermark: few messages with an earlier event time are still to be taken."""
        with self._changed:
            return self._watermark.of(self._queue)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Hands over nothing more, and gives back what was not begun; what was taken is kept and can be ``done``."""
        self._stopping.set()
        with self._changed:
            self._end_stream()
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for the acknowledgements. What was taken and is not done has failed: it comes back as its leases end.

        Given back at once, it would fail again a second later, and soon be the subscription's own dead letter.
        """
        self.stop()
        if self._fetching.ident is not None:
            self._fetching.join()
        self._acks.shutdown(wait=True)
        self._leases.close()

    def _acknowledge(self, ended: Mapping[str, str]) -> None:
        try:
            self._leases.acknowledge(ended, lambda: ACK_PATIENCE_AT_END_S if self.stopping else ACK_PATIENCE_S)
        except Exception as error:  # any of the client's
            _LOGGER.warning("%d messages may be delivered again: %s", len(ended), error)

    def _requests(self, ended: threading.Event) -> Iterator[StreamingPullRequest]:
        """The first request opens the stream with its flow control; it then stays open until the end."""
        yield StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=leases.LEASE_S,
            max_outstanding_messages=2 * BUNDLE_MESSAGES,
            max_outstanding_bytes=2 * BUNDLE_BYTES,
        )
        ended.wait()

    def _fetch(self) -> None:
        """Keeps the queue filled until the end, and then gives back what nobody took."""
        try:
            self._fetch_until_stopped()
        except Exception as error:  # the worker thread raises it where Beam sees it
            with self._changed:
                self._error = error
                self._changed.notify_all()
            return
        with self._changed:
            waiting = [message.message_id for message in self._queue]
            self._queue.clear()
            self._came.clear()
        self._leases.give_back(waiting)

    def _fetch_until_stopped(self) -> None:
        pause = 0.1
        while not self._stopping.is_set():
            with self._changed:
                # A stream may bring what its flow control allows: a service that comes and goes must not fill memory.
                self._changed.wait_for(lambda: self._has_room() or self._stopping.is_set())
            ended = threading.Event()
            stream: Any = self._client.streaming_pull(requests=self._requests(ended), retry=None)
            with self._changed:
                self._stream, self._stream_ended, self._opened = stream, ended, time.monotonic()
                self._watermark.opened()
                if self._stopping.is_set():
                    self._end_stream()
            try:
                for response in stream:
                    pause = 0.1
                    self._receive(StreamingPullResponse.pb(response).received_messages)
            except leases.TRANSIENT as error:
                with self._changed:
                    self._watermark.broke()
                    self._opened = None
                if not self._stopping.is_set():
                    self._service.failed(error.message)
            ended.set()
            self._stopping.wait(pause)
            pause = min(pause * 2, 5.0)

    def _has_room(self) -> bool:
        return len(self._queue) < 2 * BUNDLE_MESSAGES and self._queued_bytes < 2 * BUNDLE_BYTES

    def _end_stream(self) -> None:
        self._stream_ended.set()
        if self._stream is not None:
            self._stream.cancel()

    def _receive(self, deliveries: Any) -> None:
        repeats: dict[str, str] = {}
        self._service.worked()
        with self._changed:
            messages = [received.message(each.message, self._timestamp_attribute) for each in deliveries]
            self._watermark.received(messages)
            for message, each in zip(messages, deliveries, strict=True):
                new = self._leases.add(message.message_id, each.ack_id)
                if new is None:
                    repeats[message.message_id] = each.ack_id
                elif new and self._repeats.has(message):
                    repeats |= self._leases.end([message.message_id])
                elif new:
                    self._queue.append(message)
                    self._came.append(time.monotonic())
                    self._queued_bytes += len(message.data)
            self._changed.notify_all()
        if repeats:
            self._acks.submit(self._acknowledge, repeats)


Connect = Callable[[], SubscriberClient]
