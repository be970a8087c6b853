"""What the service refuses, and how it says so.

Quotas: https://cloud.google.com/pubsub/quotas#resource_limits;
names: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names.
Every check raises ``google.api_core.exceptions.InvalidArgument``, with the service's words where they are known.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.emulators.pubsub.errors import InvalidArgument

#: 10 MB by the documentation; this is the figure in the service's own error message.
MAX_PUBLISH_BYTES = 10 * 1024 * 1024
MAX_MESSAGE_DATA_BYTES = 10_000_000
MESSAGES_A_PUBLISH = (1, 1000)
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_KEY_BYTES = 256
MAX_ATTRIBUTE_VALUE_BYTES = 1024
MAX_ORDERING_KEY_BYTES = 1024
#: A request to acknowledge or to modify deadlines; about 2,500 of the service's ack ids.
MAX_ACK_REQUEST_BYTES = 512 * 1024
MAX_MESSAGES_A_PULL = 1000
MAX_FILTER_BYTES = 256
ACK_DEADLINE_SECONDS = (10, 600)
#: What a lease may be set to; 0 gives the message back.
LEASE_SECONDS = (0, 600)
DELIVERY_ATTEMPTS = (5, 100)
BACKOFF_SECONDS = (0, 600)
RETENTION_SECONDS = (600, 31 * 24 * 3600)

_ID = re.compile(r"[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_QUOTAS = "Refer to https://cloud.google.com/pubsub/quotas for more information."


def check_name(name: str, collection: str) -> None:
    """``name`` is ``projects/PROJECT/<collection>/ID`` with an id the service allows."""
    parts = name.split("/")
    valid = len(parts) == 4 and parts[0] == "projects" and parts[1] and parts[2] == collection
    if not valid or not _ID.fullmatch(parts[3]) or parts[3].lower().startswith("goog"):
        raise InvalidArgument(
            f"Invalid resource name given (name={name}). "
            "Refer to https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names for more information."
        )


def check_range(value: int, bounds: tuple[int, int], what: str) -> None:
    """``value`` lies within ``bounds``, both inclusive."""
    low, high = bounds
    passed = f"You passed {value} in the request, but the"
    if value < low:
        raise InvalidArgument(f"The value for {what} is too small. {passed} minimum value is {low}.")
    if value > high:
        raise InvalidArgument(f"The value for {what} is too large. {passed} maximum value is {high}.")


def check_ack_request(request: Any, seconds: int = 0) -> None:
    """A request about ``ack_ids``, to set their deadlines to ``seconds``, is one the service takes."""
    check_request_size(request.ByteSize(), MAX_ACK_REQUEST_BYTES)
    if not request.ack_ids:
        raise InvalidArgument("No ack ids specified.")
    check_range(seconds, LEASE_SECONDS, "ack_deadline_seconds")


def check_request_size(size: int, limit: int) -> None:
    if size > limit:
        raise InvalidArgument(f"Request payload size exceeds the limit: {limit} bytes.")


def check_publish(messages: Any) -> None:
    """``messages`` of one PublishRequest keep every quota."""
    check_range(len(messages), MESSAGES_A_PUBLISH, "message_count")
    for message in messages:
        _check_message(message)
    if len({message.ordering_key for message in messages}) > 1:
        raise InvalidArgument("All messages in one publish request must have the same ordering key.")


def _check_message(message: Any) -> None:
    attributes = message.attributes
    if not attributes:
        if not message.data:
            raise InvalidArgument(
                "One or more messages in the publish request is empty. "
                "Each message must contain either non-empty data, or at least one attribute."
            )
    elif len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgument(
            f"One message in the request has {len(attributes)} attributes, "
            f"but the maximum allowed is {MAX_ATTRIBUTES}. {_QUOTAS}"
        )
    else:
        for key, value in attributes.items():
            _check_length(key, f'The attribute key "{key[:64]}"', MAX_ATTRIBUTE_KEY_BYTES)
            _check_length(value, f'The attribute "{key}" in the request has a value that', MAX_ATTRIBUTE_VALUE_BYTES)
            # The clients' own trace context travels as googclient_*.
            if not key or (key.startswith("goog") and not key.startswith("googclient_")):
                raise InvalidArgument(f'The attribute key "{key}" is empty or starts with the reserved "goog".')
    if len(message.data) > MAX_MESSAGE_DATA_BYTES:
        raise InvalidArgument(f"Message data size exceeds the limit: {MAX_MESSAGE_DATA_BYTES} bytes.")
    _check_length(message.ordering_key, "The ordering key", MAX_ORDERING_KEY_BYTES)


def _check_length(text: str, what: str, limit: int) -> None:
    """At most ``limit`` bytes of UTF-8; text of a quarter of that needs no encoding to tell."""
    if len(text) * 4 > limit and (size := len(text.encode())) > limit:
        raise InvalidArgument(
            f"{what} is too long. The length is {size} characters, but the maximum allowed is {limit}. {_QUOTAS}"
        )
