"""Watch: pulls topics in the background and hands over what they carry."""

from __future__ import annotations

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


class Watch:
    """One subscription, pulled and acknowledged by a thread of its own; ``error`` says in words why nothing comes.

    Given a topic, it makes a subscription of its own and deletes it on ``close``. What it sees is what is published
    from then on.
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
        self._stopping = threading.Event()
        self._made = not self._own
        if self._own:
            self._try(self._make)
        self._thread = threading.Thread(target=self._run, name=f"watch {self.subscription}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops pulling, and deletes the subscription if it is the console's own."""
        self._stopping.set()
        self._thread.join(10)
        if self._own and self._made:
            self._try(
                lambda: clients.pubsub(SubscriberClient).delete_subscription(subscription=self.subscription, timeout=5)
            )

    def _make(self) -> None:
        request = {"name": self.subscription, "topic": self._topic, "expiration_policy": {"ttl": _EXPIRES}}
        # Not tried again by the client: the page is there at once, and `_run` tries again.
        clients.pubsub(SubscriberClient).create_subscription(request=request, retry=None, timeout=5)
        self._made = True

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            done = self._try(self._make if not self._made else self._pull)
            pause = 0.0 if done else min(5.0, 2 * pause + 0.2)

    def _pull(self) -> None:
        client = clients.pubsub(SubscriberClient)
        try:
            answer = client.pull(subscription=self.subscription, max_messages=_MESSAGES, retry=None, timeout=2)
        except api.DeadlineExceeded:
            return
        if not answer.received_messages:
            return
        self._receive([_message(received) for received in answer.received_messages])
        ack_ids = [received.ack_id for received in answer.received_messages]
        client.acknowledge(subscription=self.subscription, ack_ids=ack_ids, timeout=10)

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # any of the client's: it is shown on the page and tried again
            self.error = clients.words(error)
            _LOGGER.warning("%s: %s", self.subscription, self.error)
            return False
        self.error = None
        return True


def _message(received: ReceivedMessage) -> Message:
    message = ReceivedMessage.pb(received).message
    published = message.publish_time.seconds + message.publish_time.nanos / 1e9
    return Message(
        message.data, dict(message.attributes), message.message_id, published, published, message.ordering_key
    )
