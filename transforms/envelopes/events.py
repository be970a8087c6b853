"""CloudEvents and push envelopes: JSON around a payload, and what it says of it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md and
https://cloud.google.com/pubsub/docs/push#receive_push
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from transforms.body import ContentType, Unreadable, find

#: What every event has (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#required-attributes).
_REQUIRED = ("specversion", "id", "source", "type")
_JSON = "application/json"
_PUSH = {"message", "subscription", "deliveryAttempt"}
_PUSHED = {
    *("data", "attributes", "messageId", "message_id", "publishTime", "publish_time", "orderingKey", "ordering_key")
}


def is_event(value: Any) -> bool:
    """Whether JSON has the shape of an event."""
    if not isinstance(value, dict) or "inputs" in value:
        return False
    return all(isinstance(value.get(name), str) for name in _REQUIRED)


def is_push(value: Any) -> bool:
    """Whether JSON has the shape of what Pub/Sub pushes, and nothing else beside."""
    if not isinstance(value, dict) or not value.keys() <= _PUSH:
        return False
    message = value.get("message")
    return isinstance(message, dict) and "data" in message and message.keys() <= _PUSHED


def check_binary(attributes: Mapping[str, str]) -> None:
    """Refuses an event whose attributes lack what every event has."""
    lacking = [f"ce-{name}" for name in _REQUIRED if not find(attributes, f"ce-{name}")]
    if lacking:
        raise Unreadable(f"the message is no CloudEvent: it has no {', '.join(lacking)}")
    _check_version(find(attributes, "ce-specversion"))


def open_event(value: Any) -> tuple[bytes | None, dict[str, str], Any]:
    """The payload of an event in structured mode: bytes with their attributes, or None and the JSON value.

    Raises:
        Unreadable: it is no event, or one without a payload.
    """
    if not isinstance(value, dict):
        raise Unreadable("the body is no CloudEvent: it is no JSON object")
    lacking = [name for name in _REQUIRED if not isinstance(value.get(name), str) or not value[name]]
    if lacking:
        raise Unreadable(f"the body is no CloudEvent: it has no {', '.join(lacking)}")
    _check_version(value["specversion"])
    named = value.get("datacontenttype")
    if named is not None and not isinstance(named, str):
        raise Unreadable("the CloudEvent's datacontenttype is no string")
    content = ContentType.parse((named or _JSON)[:1000])
    data, packed = value.get("data"), value.get("data_base64")
    if data is not None and packed is not None:
        raise Unreadable("the CloudEvent has both data and data_base64; send one")
    if packed is not None:
        return _unpacked(packed, "the CloudEvent's data_base64"), {"content-type": named or _JSON}, None
    if data is None:
        raise Unreadable("the CloudEvent has no data")
    if content.kind.endswith(("/json", "+json")):
        return None, {}, data
    if not isinstance(data, str) or content.kind.startswith(("image/", "audio/")):
        raise Unreadable(f"the CloudEvent's data is of {content.kind[:80]!r}; send it as data_base64")
    # The text is read already: whatever charset it came from is no longer its own.
    return data.encode(), {"content-type": content.kind}, None


def open_push(value: Any) -> tuple[bytes, dict[str, str]]:
    """The message in a push envelope: its bytes and its attributes.

    Raises:
        Unreadable: they are not as Pub/Sub writes them.
    """
    message = value["message"]
    attributes = message.get("attributes") or {}
    if not isinstance(attributes, dict) or not all(isinstance(each, str) for each in attributes.values()):
        raise Unreadable("the attributes in the push envelope are no strings")
    return _unpacked(message["data"], "the data in the push envelope"), attributes


def _check_version(version: str) -> None:
    if not version.startswith("1."):
        raise Unreadable(f"the CloudEvent is of specversion {version[:20]!r}; use 1.0")


def _unpacked(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise Unreadable(f"{what} is not base64") from None
