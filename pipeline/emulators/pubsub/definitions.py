"""Schema definitions, Avro and Protocol Buffers: which are sound, and whether a message's body fits one."""

from __future__ import annotations

import io
import json
from typing import Any, Protocol

import fastavro
from google.protobuf import descriptor_pool, json_format, message_factory
from google.pubsub_v1 import types

from pipeline.emulators.pubsub.errors import InvalidArgument
from transforms.envelopes.protoc import Unsound, compiled

#: https://cloud.google.com/pubsub/quotas#resource_limits
MAX_DEFINITION_BYTES = 300_000
_Type = types.Schema.Type


class Definition(Protocol):
    """A sound definition. Both methods raise for a body that does not fit it, anything at all."""

    def check_binary(self, body: bytes) -> None: ...

    def check_json(self, body: bytes) -> None: ...


def parse(schema: Any) -> Definition:
    """The definition in a Schema proto; raises ``InvalidArgument`` with what is wrong with it."""
    if not schema.definition:
        raise InvalidArgument("Invalid schema definition: it is empty.")
    if len(schema.definition.encode()) > MAX_DEFINITION_BYTES:
        raise InvalidArgument(f"Invalid schema definition: it is over {MAX_DEFINITION_BYTES} bytes.")
    if schema.type_ == _Type.AVRO:
        return _Avro(schema.definition)
    if schema.type_ == _Type.PROTOCOL_BUFFER:
        return _Protobuf(schema.definition)
    raise InvalidArgument("Invalid schema type: it must be AVRO or PROTOCOL_BUFFER.")


def check_message(definition: Definition, body: bytes, encoding: int) -> None:
    """Raises ``InvalidArgument`` where ``body`` in ``encoding`` is no message of the definition."""
    if encoding not in (types.Encoding.JSON, types.Encoding.BINARY):
        raise InvalidArgument("Invalid encoding: it must be JSON or BINARY.")
    try:
        if encoding == types.Encoding.JSON:
            definition.check_json(body)
        else:
            definition.check_binary(body)
    except Exception as error:  # the codecs raise whatever a malformed body makes them stumble on
        why = f"{type(error).__name__}: {error}"[:500]
        raise InvalidArgument(f"Invalid data in message: Message failed schema validation. {why}") from None


class _Avro:
    def __init__(self, definition: str) -> None:
        try:
            self._schema = fastavro.parse_schema(json.loads(definition))
        except Exception as error:  # a JSON value of any shape: fastavro raises whatever it stumbles on
            raise InvalidArgument(f"Invalid schema definition: Avro: {type(error).__name__}: {error}") from None

    def check_binary(self, body: bytes) -> None:
        stream = io.BytesIO(body)
        fastavro.schemaless_reader(stream, self._schema, None)
        if stream.tell() != len(body):
            raise ValueError(f"{len(body) - stream.tell()} bytes are left over")

    def check_json(self, body: bytes) -> None:
        records = list(fastavro.json_reader(io.StringIO(body.decode()), self._schema))
        if len(records) != 1:
            raise ValueError(f"{len(records)} values, not one")
        fastavro.validate(records[0], self._schema, strict=True)  # the reader believes the types of scalars


class _Protobuf:
    """The one top-level message of the definition. Other files cannot be imported, as in the service."""

    def __init__(self, definition: str) -> None:
        try:
            file = compiled(definition)
        except Unsound as error:
            raise InvalidArgument(f"Invalid schema definition: {error}") from None
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        name = ".".join(filter(None, (file.package, file.message_type[0].name)))
        self._message: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))

    def check_binary(self, body: bytes) -> None:
        self._message.FromString(body)

    def check_json(self, body: bytes) -> None:
        if not isinstance(json.loads(body), dict):
            raise ValueError("the JSON value is not an object")
        json_format.Parse(body, self._message())
