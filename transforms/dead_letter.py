"""DeadLetter: a failure becomes a message for the dead-letter topic, its bytes and attributes untouched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apache_beam as beam

from transforms.barrier import guarded
from transforms.encode import rfc3339
from transforms.records import STAGES, Failure, Limits, Message, identity

#: Prefix of the attributes that a dead letter has beside its own.
PREFIX = "dead_letter_"
#: How often the message has failed; a replay leaves it, so that it goes on counting.
ATTEMPT = PREFIX + "attempt"
#: Under which id the message failed for the first time; a replay leaves it too, so that the audit's rows can be joined.
FIRST_ID = PREFIX + "first_message_id"
#: Prefix of those that Pub/Sub's own dead-letter policy adds (https://cloud.google.com/pubsub/docs/handling-failures).
PUBSUB_PREFIX = "CloudPubSubDeadLetterSource"
#: Stands for a stage where the subscription itself gave a message up.
PUBSUB = "pubsub"
#: Attributes that a result has beside its message's own, at the most (see ``encode``).
_OF_A_RESULT = 8
_OURS = frozenset(
    PREFIX + key
    for key in (
        *("stage", "message_id", "error_type", "attempt", "time", "error"),
        *("job", "subscription", "first_message_id"),
    )
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the messages of a job come from: its name and its input subscription."""

    job: str = ""
    subscription: str = ""


def dead_letter(failure: Failure, limits: Limits, source: Source = Source()) -> Message:
    """The failed message with ``dead_letter_*`` attributes, as many of them as fit beside its own.

    A message that leaves no room at all is sent just as it came: its audit row still tells the story.
    """
    message = failure.message
    own = {key: value for key, value in message.attributes.items() if key not in _OURS}
    notes = {
        "stage": failure.stage,
        "message_id": identity(message),
        "error_type": failure.error_type,
        "attempt": str(attempts(message) + 1),
        "time": rfc3339(failure.time),
        "error": failure.error,
        "job": source.job,
        "subscription": source.subscription,
        "first_message_id": message.attributes.get(FIRST_ID) or identity(message),
    }
    room = limits.message_bytes - len(message.data) - _bytes(own)
    for key, text in notes.items():
        value = _cut(text, limits.attribute_value_bytes)
        needs = _bytes({PREFIX + key: value})
        if value and len(own) < limits.attributes and needs <= room:
            own[PREFIX + key] = value
            room -= needs
    return Message(message.data, own, ordering_key=message.ordering_key)


def dead_letter_in_any_case(failure: Failure, limits: Limits, source: Source = Source()) -> Message:
    """:func:`dead_letter`, or the message just as it came if that raises: it must not be lost for its notes' sake."""
    letter = guarded(lambda each: dead_letter(each, limits, source), failure, failure.message, failure.stage)
    if isinstance(letter, Message):
        return letter
    message = failure.message
    return Message(message.data, message.attributes, ordering_key=message.ordering_key)


def attempts(message: Message) -> int:
    """How often ``message`` has been a dead letter before."""
    count = message.attributes.get(ATTEMPT, "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0


def stage(letter: Message) -> str:
    """Where ``letter`` failed: a stage, ``pubsub`` if the subscription gave it up, or nothing if it does not say."""
    ours = letter.attributes.get(PREFIX + "stage", "")
    by_pubsub = any(key.startswith(PUBSUB_PREFIX) for key in letter.attributes)
    return PUBSUB if by_pubsub and not ours else ours


def is_dead_letter(message: Message) -> bool:
    """Whether ``message`` says of itself that it is one, of this pipeline or of Pub/Sub's own policy."""
    return stage(message) in (*STAGES, PUBSUB)


def input_subscription(letter: Message) -> str | None:
    """The subscription that the message which became ``letter`` came from, where it says so."""
    project, name = (letter.attributes.get(f"{PUBSUB_PREFIX}Subscription{key}") for key in ("Project", ""))
    if stage(letter) == PUBSUB:
        return f"projects/{project}/subscriptions/{name}" if project and name else None
    return letter.attributes.get(f"{PREFIX}subscription")


def restore(letter: Message, limits: Limits) -> Message:
    """The message that became ``letter``, to be published again: the same bytes, attributes and ordering key.

    It goes on counting its failures in ``dead_letter_attempt`` and keeps the id under which it failed first in
    ``dead_letter_first_message_id``, where its own attributes and bytes, and what a result adds to them, leave room.
    """
    own = {
        key: value for key, value in letter.attributes.items() if key not in _OURS and not key.startswith(PUBSUB_PREFIX)
    }
    noted = PREFIX + "stage" in letter.attributes
    kept = {
        ATTEMPT: str(max(attempts(letter), 1) if noted else attempts(letter) + 1),
        FIRST_ID: letter.attributes.get(FIRST_ID) or letter.attributes.get(PREFIX + "message_id", ""),
    }
    room = limits.message_bytes - len(letter.data) - _bytes(own)
    for key, value in kept.items():
        needs = _bytes({key: value})
        if value and len(own) < limits.attributes - _OF_A_RESULT and needs <= room:
            own[key] = value
            room -= needs
    return Message(letter.data, own, ordering_key=letter.ordering_key)


def _bytes(attributes: Mapping[str, str]) -> int:
    """What ``attributes`` add to a message, with protobuf's framing."""
    return sum(len(key.encode()) + len(value.encode()) + 16 for key, value in attributes.items())


def _cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8, whole characters only."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


class DeadLetter(beam.PTransform[beam.PCollection[Failure], beam.PCollection[Message]]):
    """``Failure`` → ``Message`` for the dead-letter topic."""

    def __init__(self, limits: Limits, source: Source = Source()):
        super().__init__()
        self._limits = limits
        self._source = source

    def expand(self, failures: beam.PCollection[Failure]) -> beam.PCollection[Message]:
        made = beam.Map(dead_letter_in_any_case, self._limits, self._source).with_output_types(Message)
        letters: beam.PCollection[Message] = failures | "Map(dead_letter)" >> made
        return letters
