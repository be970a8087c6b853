"""A message as the client received it, as ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.direct.event_time import parse_timestamp
from transforms.records import Message


def message(raw: Any, timestamp_attribute: str | None = None) -> Message:
    """``raw``, a ``PubsubMessage`` of protobuf, with its event time from ``timestamp_attribute`` where it has one."""
    publish_time = raw.publish_time.seconds + raw.publish_time.nanos / 1e9
    attributes = dict(raw.attributes)
    event_time = publish_time
    if timestamp_attribute and timestamp_attribute in attributes:
        event_time = parse_timestamp(attributes[timestamp_attribute], publish_time)
    return Message(raw.data, attributes, raw.message_id, publish_time, event_time, raw.ordering_key)


def first(messages: Iterable[Message], most: int, most_bytes: int) -> list[Message]:
    """As many of ``messages`` as make a bundle, from the first on."""
    found: list[Message] = []
    size = 0
    for each in messages:
        if len(found) >= most or size >= most_bytes:
            break
        found.append(each)
        size += len(each.data)
    return found
