"""Schemas and messages of them, for tests: made by the libraries that a publisher would use."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro

from transforms.envelopes.schemas import ENCODING, NAME, REVISION, Schema

SCHEMA = "projects/my-project/schemas/ticket"

TICKET: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [
        {"name": "inputs", "type": "string"},
        {"name": "picture", "type": ["null", "bytes"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "float"}}, "default": {}},
        {"name": "parent", "type": ["null", "Ticket"], "default": None},
    ],
}
PROTO = """syntax = "proto3"; package shop;
message Ticket {
  enum Kind { NONE = 0; REFUND = 1; }
  string inputs = 1; bytes picture = 2; int64 count = 3; Kind kind = 4; repeated float scores = 5;
  map<string, int32> tags = 6; optional string note = 7; Ticket parent = 8; bool urgent = 9;
}"""


def attributes(encoding: str, name: str = SCHEMA, revision: str = "1a2b3c4d") -> dict[str, str]:
    return {NAME: name, REVISION: revision, ENCODING: encoding}


def avro(record: Any, schema: Any = TICKET) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), record)
    return body.getvalue()


class Kept:
    """A source of schemas that counts how often it is asked."""

    def __init__(self, definition: Any, kind: str = "AVRO"):
        text = definition if isinstance(definition, str) else json.dumps(definition)
        self.schema = Schema(kind, text)
        self.asked: list[str] = []

    def __call__(self, name: str) -> Schema:
        self.asked.append(name)
        return self.schema
