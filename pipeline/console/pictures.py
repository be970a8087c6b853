"""Pictures: what of a message may be put before a person as an image, and nothing else of it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from transforms.records import Message

#: Kinds that hold pixels and nothing else, and what their bytes begin with.
KINDS = {"image/png": b"\x89PNG\r\n", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}
MOST_BYTES = 1 << 20


def picture(message: Message | None) -> tuple[str, bytes] | None:
    """The picture that a message is, or that its JSON asks about as base64: its kind and bytes; None for anything else.

    The kind is what the bytes say, whatever the message calls it.
    """
    if message is None or len(message.data) > 2 * MOST_BYTES:
        return None
    data = message.data
    if not message.attributes.get("content-type", "").lower().startswith("image/"):
        # Base64 of the kinds above; most bodies are none, and need not be parsed to see it.
        if not any(mark in data for mark in (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR")):
            return None
        data = _encoded(data)
    kind = next((kind for kind, mark in KINDS.items() if data.startswith(mark)), None)
    return (kind, data) if kind and len(data) <= MOST_BYTES else None


def _encoded(body: bytes) -> bytes:
    try:
        inputs: Any = orjson.loads(body)["inputs"]
        inputs = inputs.get("image") if isinstance(inputs, dict) else inputs
        return base64.b64decode(inputs.rpartition("base64,")[2], validate=True) if isinstance(inputs, str) else b""
    except (ValueError, KeyError, TypeError, binascii.Error):
        return b""
