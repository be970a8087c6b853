"""Protocol Buffers: a definition, and bodies read by it into the values that JSON has, bytes beside them."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor

from transforms import body
from transforms.body import Unreadable
from transforms.envelopes.avro import MAX_VALUES
from transforms.envelopes.protoc import Unsound, compiled

#: Base64 with its padding or without; of one character over whole groups nothing can be read.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?")


class Protobuf:
    """A definition: the one top-level message of a ``.proto`` text.

    Fields have the names of the definition. One that keeps no record of whether it was set (of proto3, without
    ``optional``) has its default where the body has none; any other is left out.
    """

    def __init__(self, definition: str):
        file = compiled(definition)
        pool = descriptor_pool.DescriptorPool()
        name = ".".join(filter(None, (file.package, file.message_type[0].name)))
        try:
            pool.Add(file)
            self._message: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        except Exception as error:  # TypeError, KeyError, by what protoc let through
            raise Unsound(f"{type(error).__name__}: {error}") from None

    def read_binary(self, data: bytes) -> Any:
        """The value that ``data`` holds; raises for what does not fit, anything at all."""
        return _value_of(self._message.FromString(data))

    def read_json(self, data: bytes) -> Any:
        """The same, of the JSON mapping of Protocol Buffers."""
        value = body.json_value(data, None)
        if not isinstance(value, dict):
            raise Unreadable("is no JSON object")
        _check_bytes(self._message.DESCRIPTOR, value)
        return _value_of(json_format.ParseDict(value, self._message(), max_recursion_depth=body.MAX_DEPTH))


def _check_bytes(message: Any, value: Any) -> None:
    """Refuses ``bytes`` that are not base64, of either alphabet: the parser drops what it does not know of them."""
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    for name, own in value.items() if isinstance(value, dict) else ():
        field = fields.get(name)
        if field is None:
            continue
        many = isinstance(own, dict) if _is_map(field) else isinstance(own, list)
        each = list(own.values() if isinstance(own, dict) else own) if many else [own]
        of = field.message_type.fields_by_name["value"] if _is_map(field) else field
        for one in each:
            if of.message_type is not None:
                _check_bytes(of.message_type, one)
            elif of.type == FieldDescriptor.TYPE_BYTES and isinstance(one, str) and not _BASE64.fullmatch(one):
                raise Unreadable(f"has bytes in {field.name!r} that are not base64")


def _value_of(message: Any) -> Any:
    if not message.IsInitialized():
        raise Unreadable(f"lacks {', '.join(message.FindInitializationErrors()[:10])}")
    return _Reader().message(message)


class _Reader:
    """Turns messages into dictionaries, and counts what it makes: two bytes can stand for a message of a hundred."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def message(self, message: Any) -> dict[str, Any]:
        self._count(1 + len(message.DESCRIPTOR.fields))
        found: dict[str, Any] = {}
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if _is_map(field):
                self._count(len(value))
                of = field.message_type.fields_by_name["value"]
                found[field.name] = {_key(key): self._one(of, value[key]) for key in value}
            elif field.is_repeated:
                self._count(len(value))
                found[field.name] = [self._one(field, each) for each in value]
            elif not field.has_presence or message.HasField(field.name):
                found[field.name] = self._one(field, value)
        return found

    def _one(self, field: FieldDescriptor, value: Any) -> Any:
        if field.message_type is not None:
            return self.message(value)
        if field.enum_type is not None:
            named = field.enum_type.values_by_number.get(value)
            return value if named is None else named.name
        if isinstance(value, bytes) and field.type == FieldDescriptor.TYPE_STRING:  # proto2 lets anything through
            raise Unreadable("holds a string that is not UTF-8")
        return value

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise Unreadable(f"holds over {MAX_VALUES:,} values")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _key(key: Any) -> str:
    """A map's key as JSON writes it."""
    return str(key).lower() if isinstance(key, bool) else str(key)
