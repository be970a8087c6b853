"""Envelopes: what a message's body is wrapped in, opened until the payload is there.

A message of a topic with a schema, a CloudEvent, and what Pub/Sub pushes; also one in another, as Eventarc sends them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from transforms import body
from transforms.body import Unreadable
from transforms.envelopes import events, schemas
from transforms.envelopes.schemas import SchemaSource

FORMATS = ("auto", "json", "avro", "protobuf", "cloudevents")

#: The kinds of schema that a format reads; the others look at no schema.
KINDS = {"auto": ("AVRO", "PROTOCOL_BUFFER"), "avro": ("AVRO",), "protobuf": ("PROTOCOL_BUFFER",)}

#: Envelopes in one another.
MAX_LAYERS = 4

_UNREAD = object()


@dataclass(slots=True)
class Payload:
    """What is in the envelopes: bytes as ``attributes`` say they are written, and the value that they were read to."""

    data: bytes
    attributes: Mapping[str, str]
    value: Any = _UNREAD

    @classmethod
    def of(cls, data: bytes, attributes: Mapping[str, str]) -> Payload:
        """Bytes as they came, unpacked as their ``content-encoding`` says."""
        if not data:
            raise Unreadable("the body is empty")
        return cls(body.unpack(data, body.find(attributes, "content-encoding")), attributes)

    @property
    def content_type(self) -> body.ContentType:
        return body.content_type(self.attributes)

    def json(self) -> Any:
        """The value, read as JSON if it is not read yet."""
        return body.json_value(self.data, self.content_type.charset) if self.value is _UNREAD else self.value

    @property
    def is_value(self) -> bool:
        """Whether it is a value, or bytes that are to be read as JSON; else a text, a picture or a recording."""
        kind = self.content_type.kind
        return self.value is not _UNREAD or not (kind == "text/plain" or kind.startswith(body.RAW_TYPES))


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens envelopes of ``format``, one of :data:`FORMATS`; ``schemas`` gives the definitions.

    ``auto`` opens what a message's attributes say it is, and JSON that has the shape of an event or of a push. ``json``
    opens nothing, and the other formats refuse what is none of theirs.
    """

    format: str = "auto"
    schemas: SchemaSource | None = None

    def open(self, data: bytes, attributes: Mapping[str, str], by_shape: bool = True) -> Payload:
        """The payload of a message. ``auto`` opens nothing for its shape alone where ``by_shape`` is False.

        Raises:
            Unreadable: it is not what its envelope says, or is in none where ``format`` asks for one.
            SchemaUnavailable: the definition of its schema could not be had.
        """
        payload = Payload.of(data, attributes)
        if self.format == "json":
            return payload
        wanted = self.format == "cloudevents"
        for _ in range(MAX_LAYERS):
            if self.format in KINDS and (self.format != "auto" or schemas.is_marked(payload.attributes)):
                kinds = KINDS[self.format]
                value = schemas.read(payload.data, payload.attributes, kinds, self.schemas)
                return replace(payload, data=b"", value=value)
            if wanted and body.find(payload.attributes, "ce-specversion"):
                events.check_binary(payload.attributes)
                wanted = False
            inner = _inner(payload, wanted, by_shape or self.format != "auto")
            if inner is None:
                return payload
            wanted = wanted and events.is_push(payload.value)
            payload = inner
        raise Unreadable(f"the body is in over {MAX_LAYERS} envelopes, one in another")


def _inner(payload: Payload, wanted: bool, by_shape: bool) -> Payload | None:
    """What is in an envelope of JSON; None if it is in none, which ``wanted`` refuses."""
    declared = payload.content_type.kind.startswith("application/cloudevents")
    if declared and not payload.content_type.kind.endswith("cloudevents+json"):
        raise Unreadable(f"events of {payload.content_type.kind[:80]!r} are not read; use application/cloudevents+json")
    if not declared and not wanted and (not payload.is_value or not by_shape):
        return None
    if not payload.is_value:
        raise Unreadable("the message is no CloudEvent: it has no ce-specversion, and its body is no JSON")
    payload.value = payload.json()
    if events.is_push(payload.value):
        return Payload.of(*events.open_push(payload.value))
    if declared or wanted or events.is_event(payload.value):
        data, attributes, value = events.open_event(payload.value)
        if data is None:
            return Payload(_exact(payload), {}, value)
        return Payload.of(data, attributes)
    return None


def _exact(payload: Payload) -> bytes:
    """The text of the data in an event of JSON, where the value of it may lack digits; else nothing."""
    written = body.json_text(payload.data, payload.content_type.charset)
    if not body.LONG.search(written):
        return b""
    try:
        return json.dumps(json.loads(written)["data"]).encode()
    except ValueError:  # of more digits than Python makes a number of
        raise Unreadable("the CloudEvent has a number of over 4,300 digits") from None
