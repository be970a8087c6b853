"""DeadLetter: a failure becomes a message for the dead-letter topic, its bytes and attributes untouched."""

from __future__ import annotations

import apache_beam as beam

from transforms.encode import attributes_bytes, rfc3339
from transforms.records import Failure, Limits, Message

#: Prefix of the attributes that a dead letter has beside its own.
PREFIX = "dead_letter_"
#: How often the message has failed; a replay leaves it, so that it goes on counting.
ATTEMPT = PREFIX + "attempt"
#: Prefix of those that Pub/Sub's own dead-letter policy adds (https://cloud.google.com/pubsub/docs/handling-failures).
PUBSUB_PREFIX = "CloudPubSubDeadLetterSource"
_OURS = frozenset(PREFIX + key for key in ("stage", "message_id", "error_type", "attempt", "time", "error"))


def dead_letter(failure: Failure, limits: Limits) -> Message:
    """The failed message with ``dead_letter_*`` attributes, as many of them as fit beside its own.

    A message that leaves no room at all is sent just as it came: its audit row still tells the story.
    """
    message = failure.message
    own = {key: value for key, value in message.attributes.items() if key not in _OURS}
    notes = {
        "stage": failure.stage,
        "message_id": message.message_id,
        "error_type": failure.error_type,
        "attempt": str(attempts(message) + 1),
        "time": rfc3339(failure.time),
        "error": _cut(failure.error, limits.attribute_value_bytes),
    }
    room = limits.message_bytes - len(message.data) - attributes_bytes(own)
    for key, value in notes.items():
        needs = attributes_bytes({PREFIX + key: value})
        if len(own) < limits.attributes and needs <= room:
            own[PREFIX + key] = value
            room -= needs
    return Message(message.data, own, ordering_key=message.ordering_key)


def attempts(message: Message) -> int:
    """How often ``message`` has been a dead letter before."""
    count = message.attributes.get(ATTEMPT, "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0


def stage(letter: Message) -> str:
    """Where ``letter`` failed: a stage, ``pubsub`` if the subscription gave it up, or nothing if it does not say."""
    ours = letter.attributes.get(PREFIX + "stage", "")
    by_pubsub = any(key.startswith(PUBSUB_PREFIX) for key in letter.attributes)
    return "pubsub" if by_pubsub and not ours else ours


def restore(letter: Message, limits: Limits) -> Message:
    """The message that became ``letter``, to be published again: the same bytes, attributes and ordering key.

    It goes on counting its failures in ``dead_letter_attempt``, where its own attributes and bytes leave room.
    """
    noted = PREFIX + "stage" in letter.attributes
    own = {
        key: value for key, value in letter.attributes.items() if key not in _OURS and not key.startswith(PUBSUB_PREFIX)
    }
    room = limits.message_bytes - len(letter.data) - attributes_bytes({**own, ATTEMPT: "999"})
    if len(own) < limits.attributes and room >= 0:
        own[ATTEMPT] = str(max(attempts(letter), 1) if noted else attempts(letter) + 1)
    return Message(letter.data, own, ordering_key=letter.ordering_key)


def _cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8, whole characters only."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


class DeadLetter(beam.PTransform[beam.PCollection[Failure], beam.PCollection[Message]]):
    """``Failure`` → ``Message`` for the dead-letter topic."""

    def __init__(self, limits: Limits):
        super().__init__()
        self._limits = limits

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Message]:
        mapped = beam.Map(dead_letter, self._limits).with_output_types(Message)
        messages: beam.PCollection[Message] = failures | mapped
        return messages
