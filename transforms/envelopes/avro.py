"""Avro: a definition, and bodies read by it within bounds.

The library believes a body: one of a kilobyte can ask for a list of 2**60 nulls, or for recursion that ends the process
in C. So a binary body is walked through first, which counts its values and how deep they are nested.
"""

from __future__ import annotations

import io
from typing import Any

import fastavro
import orjson

from transforms import body
from transforms.body import Unreadable
from transforms.envelopes.protoc import Unsound

#: Most values, of all depths together, in one body: a byte of Avro can stand for a whole record.
MAX_VALUES = 250_000

_FIXED = {"null": 0, "float": 4, "double": 8}

#: From which number on, either side of zero, there are none of the type; the library reads on, or turns the sign round.
_WHOLE = {"int": 1 << 31, "long": 1 << 63}


class Avro:
    """A definition. Logical types are read as what they are made of: a timestamp is its number, in both encodings."""

    def __init__(self, definition: str):
        self._named: dict[str, Any] = {}
        try:
            read = body.json_value(definition.encode(), None)
            self._schema = fastavro.parse_schema(_without_logical_types(read), named_schemas=self._named)
        except Exception as error:  # a JSON value of any shape: fastavro raises whatever it stumbles on
            raise Unsound(f"Avro: {type(error).__name__}: {error}") from None

    def read_binary(self, data: bytes) -> Any:
        """The value that ``data`` holds; raises for what does not fit, anything at all."""
        walk = _Walk(data, self._named)
        walk.value(self._schema, 0)
        if walk.at != len(data):
            raise Unreadable(f"{len(data) - walk.at} bytes are left over")
        return fastavro.schemaless_reader(io.BytesIO(data), self._schema, None)

    def read_json(self, data: bytes) -> Any:
        """The same, of Avro's JSON encoding."""
        value = body.json_value(data, None)
        self._check_unions(self._schema, value)
        # The reader takes lines, each a value: written anew, it is one.
        (read,) = fastavro.json_reader(io.StringIO(orjson.dumps(value).decode()), self._schema)
        fastavro.validate(read, self._schema, strict=True)  # the reader believes the types of scalars
        return read

    def _check_unions(self, schema: Any, value: Any) -> None:
        """Refuses a value of a union with more than the one member that names its type: the reader takes the last."""
        if isinstance(schema, str):
            schema = self._named.get(schema, schema)
        if isinstance(schema, list):
            if not isinstance(value, dict):
                return
            if len(value) != 1:
                raise Unreadable(f"has a union's value with {len(value)} members; it has one, named by its type")
            ((name, own),) = value.items()
            self._check_unions(next((each for each in schema if _name(each) == name), "null"), own)
            return
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if kind in ("record", "error") and isinstance(value, dict):
            for each in schema["fields"]:
                if each["name"] in value:
                    self._check_unions(each["type"], value[each["name"]])
        elif kind == "array" and isinstance(value, list):
            for each in value:
                self._check_unions(schema["items"], each)
        elif kind == "map" and isinstance(value, dict):
            for each in value.values():
                self._check_unions(schema["values"], each)
        elif isinstance(kind, (dict, list)):
            self._check_unions(kind, value)


def _name(branch: Any) -> str:
    """What a value of a union's ``branch`` is named by in JSON."""
    return str(branch.get("name", branch.get("type")) if isinstance(branch, dict) else branch)


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    if isinstance(schema, dict):
        kept = {key: each for key, each in schema.items() if key != "logicalType"}
        return {key: each if key == "default" else _without_logical_types(each) for key, each in kept.items()}
    return schema


class _Walk:
    """Goes through a binary body without making anything of it."""

    def __init__(self, data: bytes, named: dict[str, Any]):
        self._data = data
        self._named = named
        self._left = MAX_VALUES
        self.at = 0

    def value(self, schema: Any, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"holds over {MAX_VALUES:,} values")
        if depth > body.MAX_DEPTH:
            raise Unreadable(f"is nested deeper than {body.MAX_DEPTH} levels")
        if isinstance(schema, str):
            schema = self._named.get(schema, schema)
        if isinstance(schema, list):
            index = self._long()
            if not 0 <= index < len(schema):
                raise Unreadable(f"has no branch {index} of a union of {len(schema)}")
            self.value(schema[index], depth + 1)
            return
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in _FIXED:
            self._skip(_FIXED[kind])
        elif kind == "boolean":
            self._skip(1)
            if self._data[self.at - 1] > 1:
                raise Unreadable("has a boolean that is neither 0 nor 1")
        elif kind in _WHOLE:
            self._whole(-_WHOLE[kind], _WHOLE[kind])
        elif kind == "enum":
            self._whole(0, len(schema["symbols"]))
        elif kind in ("bytes", "string"):
            self._skip(self._long())
        elif kind == "fixed":
            self._skip(schema["size"])
        elif kind in ("array", "map"):
            self._blocks(schema, kind, depth)
        elif kind in ("record", "error"):
            for each in schema["fields"]:
                self.value(each["type"], depth + 1)
        else:
            self.value(kind, depth + 1)

    def _blocks(self, schema: Any, kind: str, depth: int) -> None:
        while count := self._long():
            if count < 0:
                count = -count
                self._long()
            for _ in range(count):
                if kind == "map":
                    self._skip(self._long())
                self.value(schema["items" if kind == "array" else "values"], depth + 1)

    def _skip(self, count: int) -> None:
        if not 0 <= count <= len(self._data) - self.at:
            raise Unreadable("is cut off")
        self.at += count

    def _whole(self, least: int, end: int) -> None:
        if not least <= self._long() < end:
            raise Unreadable("has a number that its type has not")

    def _long(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            if self.at >= len(self._data):
                raise Unreadable("is cut off")
            byte = self._data[self.at]
            self.at += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (found >> 1) ^ -(found & 1)
        raise Unreadable("holds a number of over ten bytes")
