"""The way back of dead letters: to the topic that their input subscription reads, and nowhere else."""

from __future__ import annotations

import logging

from google.api_core import exceptions as api
from google.pubsub_v1 import PublisherClient, SubscriberClient

from pipeline import clients
from transforms.dead_letter import input_subscription, is_dead_letter
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: Answers that say that it cannot be told which topic a subscription reads: gone, not ours to look at, no name.
_UNTOLD = (api.NotFound, api.Forbidden, api.InvalidArgument, api.MethodNotImplemented)

#: How long one look may take.
_TIMEOUT_S = 20.0


class Stranger(ValueError):
    """It does not say of itself that it is a dead letter."""


class Elsewhere(ValueError):
    """It is a dead letter of another input."""


class WayBack:
    """Which messages may go to ``topic`` as restored dead letters.

    ``any_topic`` lets those through whose input subscription reads another topic, ``unmarked`` those that do not say
    that they are dead letters: a message's own attributes may have left no room for it.
    """

    def __init__(self, topic: str, any_topic: bool = False, unmarked: bool = False):
        self._topic = topic
        self._any_topic = any_topic
        self._unmarked = unmarked
        self._reads: dict[str, str | None] = {}

    def check(self, letter: Message) -> None:
        """Lets ``letter`` pass.

        Raises:
            Stranger, Elsewhere: it must stay where it is; the text says why.
            google.api_core.exceptions.GoogleAPIError: the service is away.
        """
        if not is_dead_letter(letter):
            if self._unmarked:
                return
            raise Stranger("no dead letter: it has no dead_letter_stage")
        subscription = input_subscription(letter)
        if self._any_topic or not subscription:
            return
        if subscription not in self._reads:
            self._reads[subscription] = _topic_of(subscription)
        reads = self._reads[subscription]
        if reads is not None and reads != self._topic:
            raise Elsewhere(f"a dead letter of {subscription}, which reads {reads}")


def _topic_of(subscription: str) -> str | None:
    """The topic that ``subscription`` reads; None where that cannot be told, which is said once."""
    try:
        found = clients.pubsub(SubscriberClient).get_subscription(subscription=subscription, timeout=_TIMEOUT_S)
    except _UNTOLD as error:
        _LOGGER.warning("which topic %s reads cannot be told, its dead letters go where asked: %s", subscription, error)
        return None
    return str(found.topic)


def is_read(topic: str) -> bool:
    """Whether a subscription reads ``topic``: what is published to it otherwise is gone.

    Raises:
        google.api_core.exceptions.GoogleAPIError: it cannot be told.
    """
    found = clients.pubsub(PublisherClient).list_topic_subscriptions(topic=topic, retry=None, timeout=_TIMEOUT_S)
    return any(True for _ in found)
