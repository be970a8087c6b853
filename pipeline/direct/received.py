"""A message as the client received it, as ours."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from transforms.encode import has_date
from transforms.records import Message

#: https://www.rfc-editor.org/rfc/rfc3339#section-5.6; a time without an offset is none of its forms.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def message(raw: Any, timestamp_attribute: str | None = None) -> Message:
    """``raw``, a ``PubsubMessage`` of protobuf, with its event time from ``timestamp_attribute`` where it has one."""
    publish_time = raw.publish_time.seconds + raw.publish_time.nanos / 1e9
    attributes = dict(raw.attributes)
    event_time = publish_time
    if timestamp_attribute and timestamp_attribute in attributes:
        event_time = parse_timestamp(attributes[timestamp_attribute], publish_time)
    return Message(raw.data, attributes, raw.message_id, publish_time, event_time, raw.ordering_key)


def parse_timestamp(text: str, otherwise: float) -> float:
    """``text`` in RFC 3339 or milliseconds since the epoch, as seconds; ``otherwise`` where it is neither.

    What is finer than a microsecond is cut off.
    """
    try:
        seconds = int(text) / 1000 if text.lstrip("-").isdigit() else _rfc3339(text)
    except (ValueError, OverflowError):
        return otherwise
    return seconds if has_date(seconds) else otherwise


def _rfc3339(text: str) -> float:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(text)
    date, time, fraction, offset = found.groups()
    offset = "+00:00" if offset in "Zz" else offset
    return datetime.fromisoformat(f"{date}T{time}.{(fraction or '')[:6]:0<6}{offset}").timestamp()
