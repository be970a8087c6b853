"""Watch: pulls topics in the background and hands over what they carry."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Sequence

from google.api_core import exceptions as api
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import ReceivedMessage

from pipeline import clients
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: What a killed console leaves behind goes away by itself after a day, the least there is.
_EXPIRES = Duration(seconds=86_400)
_MESSAGES = 1_000
#: How long a request may take. None is tried again by the client: `_run` does that, and can be told to stop.
_REQUEST_S = 2.0
#: How long the page waits for the first answer of Pub/Sub, and the end for the last.
FIRST_S = 6.0
LAST_S = 8.0


class Watch:
    """One subscription, pulled and acknowledged by a thread of its own; ``error`` says in words why nothing comes.

    Given a topic, it makes a subscription of its own, again where that is gone, and deletes it on ``close``. What it
    sees is what is published from then on. ``ready`` is set once the first request has been answered, or has failed.
    """

    def __init__(
        self, receive: Callable[[Sequence[Message]], None], topic: str | None, subscription: str | None = None
    ):
        self._receive = receive
        self._topic = topic
        self._own = subscription is None
        name = (topic or "").replace("/topics/", "/subscriptions/")
        self.subscription = subscription or f"{name}-console-{uuid.uuid4().hex[:8]}"
        self.error: str | None = None
        self.ready = threading.Event()
        self._stopping = threading.Event()
        self._made = not self._own
        self._thread = threading.Thread(target=self._run, name=f"watch {self.subscription}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tells the thread to end, and does not wait for it."""
        self._stopping.set()

    def close(self) -> None:
        """Stops pulling, and deletes the subscription if it is the console's own and Pub/Sub is there."""
        self.stop()
        self._thread.join(LAST_S)

    def _run(self) -> None:
        pause = 0.0
        if self._own:
            self._try(self._make)
        self.ready.set()
        while not self._stopping.wait(pause):
            done = self._try(self._pull if self._made else self._make)
            pause = 0.0 if done else min(5.0, 2 * pause + 0.2)
        if self._own and self._made:
            self._try(self._delete)

    def _make(self) -> None:
        request = {"name": self.subscription, "topic": self._topic, "expiration_policy": {"ttl": _EXPIRES}}
        # Twice the time: a service that has just started may be slow with its first answer.
        with contextlib.suppress(api.AlreadyExists):  # the answer to an earlier try had been lost
            clients.pubsub(SubscriberClient).create_subscription(request=request, retry=None, timeout=2 * _REQUEST_S)
        self._made = True

    def _delete(self) -> None:
        client = clients.pubsub(SubscriberClient)
        client.delete_subscription(subscription=self.subscription, retry=None, timeout=_REQUEST_S)

    def _pull(self) -> None:
        client = clients.pubsub(SubscriberClient)
        try:
            answer = client.pull(subscription=self.subscription, max_messages=_MESSAGES, retry=None, timeout=_REQUEST_S)
        except api.DeadlineExceeded:
            return self._ask()
        except api.NotFound:
            # An emulator that was started anew knows nothing of it.
            self._made = not self._own
            raise
        if not answer.received_messages:
            return None
        self._receive([_message(received) for received in answer.received_messages])
        ack_ids = [received.ack_id for received in answer.received_messages]
        client.acknowledge(subscription=self.subscription, ack_ids=ack_ids, retry=None, timeout=2 * _REQUEST_S)
        return None

    def _ask(self) -> None:
        """A pull that ends without an answer found nothing, or nobody: what needs no waiting tells which."""
        try:
            clients.pubsub(SubscriberClient).get_subscription(
                subscription=self.subscription, retry=None, timeout=_REQUEST_S
            )
        except api.Forbidden:  # may pull and not look: an answer all the same
            return
        except api.DeadlineExceeded:
            raise TimeoutError(f"no answer within {_REQUEST_S:.0f} s") from None

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # any of the client's: it is shown on the page and tried again
            words = clients.words(error)
            if words != self.error:
                _LOGGER.warning("%s: %s", self.subscription, words)
            self.error = words
            return False
        self.error = None
        return True


def _message(received: ReceivedMessage) -> Message:
    message = ReceivedMessage.pb(received).message
    published = message.publish_time.seconds + message.publish_time.nanos / 1e9
    return Message(
        message.data, dict(message.attributes), message.message_id, published, published, message.ordering_key
    )
