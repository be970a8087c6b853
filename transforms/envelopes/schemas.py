"""Messages of a topic with a schema: which one they name, and their bodies read by it.

Pub/Sub marks them with three attributes (https://cloud.google.com/pubsub/docs/schemas). The definition comes from
whoever keeps it, through a :data:`SchemaSource`.
"""

from __future__ import annotations

import functools
import math
import re
import subprocess
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from transforms import body
from transforms.body import Unreadable
from transforms.envelopes.avro import Avro
from transforms.envelopes.protobuf import Protobuf
from transforms.envelopes.protoc import Unsound
from transforms.errors import BundleError, quoted

NAME, REVISION, ENCODING = "googclient_schemaname", "googclient_schemarevisionid", "googclient_schemaencoding"
ATTRIBUTES = (NAME, REVISION, ENCODING)

#: ``projects/PROJECT/schemas/SCHEMA``, with ``@REVISION`` where it is known.
_FULL = re.compile(r"projects/[a-z][-a-z0-9:.]{4,61}[a-z0-9]/schemas/[A-Za-z][\w.~%+-]{2,254}(@[0-9A-Za-z]{1,64})?")


class SchemaUnavailable(BundleError):
    """A definition could not be had, through no fault of the message that needs it."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A revision of a schema: ``kind`` is ``AVRO`` or ``PROTOCOL_BUFFER``, ``definition`` its text."""

    kind: str
    definition: str


#: Gives the schema of ``projects/PROJECT/schemas/SCHEMA@REVISION``, or the newest where no revision is named. Raises
#: :class:`Unreadable` if there is none, and :class:`SchemaUnavailable` if that cannot be told.
SchemaSource = Callable[[str], Schema]


class _Definition(Protocol):
    def read_binary(self, data: bytes) -> Any: ...

    def read_json(self, data: bytes) -> Any: ...


_KINDS: dict[str, Callable[[str], _Definition]] = {"AVRO": Avro, "PROTOCOL_BUFFER": Protobuf}


def is_marked(attributes: Mapping[str, str]) -> bool:
    """Whether ``attributes`` are those of a message of a topic with a schema."""
    return NAME in attributes or ENCODING in attributes


def read(data: bytes, attributes: Mapping[str, str], kinds: Collection[str], source: SchemaSource | None) -> Any:
    """The value that a message with a schema of one of ``kinds`` holds, bytes beside what JSON has.

    Raises:
        Unreadable: there is none; says which schema it should be of, and why it is not.
        SchemaUnavailable: the definition could not be had.
    """
    name = attributes.get(NAME, "")
    if not name:
        raise Unreadable(f"the message has no attribute {NAME}, which a topic with a schema gives each")
    if revision := attributes.get(REVISION, ""):
        name = f"{name}@{revision}"
    if not _FULL.fullmatch(name):
        raise Unreadable(f"the attribute {NAME} names no schema: {quoted(repr(name[:100]))}")
    encoding = attributes.get(ENCODING, "")
    if encoding not in ("BINARY", "JSON"):
        raise Unreadable(
            f"the message of schema {name!r} has encoding {quoted(repr(encoding[:40]))}; use BINARY or JSON"
        )
    if source is None:
        raise Unreadable(f"the message is of schema {name!r}, and nobody here has its definition")
    schema = source(name)
    if schema.kind not in kinds:
        raise Unreadable(f"schema {name!r} is {schema.kind}, and the messages read here are {' or '.join(kinds)}")
    definition = _definition(schema)
    if isinstance(definition, str):
        raise Unreadable(f"schema {name!r} has a definition that cannot be used: {definition}")
    try:
        value = definition.read_binary(data) if encoding == "BINARY" else definition.read_json(data)
        _check(value)
    except Exception as error:  # the codecs raise whatever a malformed body makes them stumble on
        # A codec's own words may quote the body.
        why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {quoted(str(error)[:300])}"
        raise Unreadable(f"the body is none of schema {name!r} ({schema.kind}, {encoding}): {why}") from None
    return value


def fault(schema: Schema) -> str:
    """Why ``schema`` cannot be used, "" if it can.

    Raises:
        SchemaUnavailable: that could not be told.
    """
    found = _definition(schema)
    return found if isinstance(found, str) else ""


@functools.lru_cache(maxsize=128)
def _definition(schema: Schema) -> _Definition | str:
    """What ``schema`` is compiled to, or why it cannot be."""
    try:
        return _KINDS[schema.kind](schema.definition)
    except KeyError:
        return "it is neither AVRO nor PROTOCOL_BUFFER"
    except Unsound as error:
        return " ".join(str(error).split())[:500]
    except subprocess.TimeoutExpired as error:
        raise SchemaUnavailable(f"a definition was not compiled within {error.timeout:.0f} seconds") from None


def _check(value: Any) -> None:
    """Refuses what no JSON could have brought: NaN, infinities, and nesting that later steps fail at."""
    if body.depth(value) > body.MAX_DEPTH:
        raise Unreadable(f"it is nested deeper than {body.MAX_DEPTH} levels")
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list):
            left += each
        elif isinstance(each, float) and not math.isfinite(each):
            raise Unreadable("it holds NaN or an infinity")
