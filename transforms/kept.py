"""What a result keeps of its input, so that a chain of jobs can carry a text along."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from transforms import body
from transforms.envelopes import Opener
from transforms.records import Request

#: Nothing, what the model was asked, or the whole body.
KEPT = ("none", "inputs", "body")


def kept(what: str, request: Request, opener: Opener, by_shape: bool) -> dict[str, Any]:
    """The fields of a result that hold its input, by ``what``, one of :data:`KEPT`.

    A body is what ``Decode`` read it to, out of its envelopes: JSON as it is, with every digit of its numbers, text as
    text. Raw bytes are base64, as an endpoint takes them.

    Raises:
        SchemaUnavailable: the definition of the message's schema could not be had, which is not its fault.
    """
    if what == "none":
        return {}
    if what == "inputs":
        return {"inputs": request.inputs}
    message = request.message
    payload = opener.open(message.data, message.attributes, by_shape)
    if not payload.is_value:  # a text or a file is the inputs itself
        return {"body": request.inputs}
    value = payload.json()
    written = body.json_text(payload.data, payload.content_type.charset)
    # What was read to a value has no whole number of more than 64 bits; its own text has.
    return {"body": orjson.Fragment(written) if body.LONG.search(written) else value}


def as_json(value: Any) -> str:
    """What JSON has no form for, in one: bytes in base64.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} is no part of an input")
