"""Column types in three tongues: BigQuery's, DuckDB's and Arrow's.

A DuckDB column holds TIMESTAMP as ``TIMESTAMPTZ``, DATETIME as ``TIMESTAMP``, JSON as ``JSON`` and GEOGRAPHY as text;
BIGNUMERIC keeps 38 digits of the service's 76.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.unsupported import not_here

#: Digits of a NUMERIC after the point; a decimal with more is a BIGNUMERIC.
NUMERIC_PLACES = 9

#: Every scalar type as the API names it: its DuckDB and its Arrow type.
SCALARS: dict[str, tuple[str, pa.DataType]] = {
    "STRING": ("VARCHAR", pa.string()),
    "BYTES": ("BLOB", pa.binary()),
    "INTEGER": ("BIGINT", pa.int64()),
    "FLOAT": ("DOUBLE", pa.float64()),
    "NUMERIC": ("DECIMAL(38, 9)", pa.decimal128(38, 9)),
    "BIGNUMERIC": ("DECIMAL(38, 18)", pa.decimal128(38, 18)),
    "BOOLEAN": ("BOOLEAN", pa.bool_()),
    "TIMESTAMP": ("TIMESTAMPTZ", pa.timestamp("us", "UTC")),
    "DATE": ("DATE", pa.date32()),
    "TIME": ("TIME", pa.time64("us")),
    "DATETIME": ("TIMESTAMP", pa.timestamp("us")),
    "JSON": ("JSON", pa.string()),
    "GEOGRAPHY": ("VARCHAR", pa.string()),
}

#: GoogleSQL's names, which the API takes and answers with its own.
ALIASES = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}

#: Types of the service that are not here.
_NOT_HERE = ("INTERVAL", "RANGE", "FOREIGN")

_MODES = ("NULLABLE", "REQUIRED", "REPEATED")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")

#: DuckDB types that a query can yield, by ``DuckDBPyType.id``; anything else is shown as text.
_FROM_DUCKDB = {
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint"), "INTEGER"),
    **dict.fromkeys(("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"), "INTEGER"),
    **dict.fromkeys(("float", "double"), "FLOAT"),
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"), "DATETIME"),
    "boolean": "BOOLEAN",
    "decimal": "NUMERIC",
    "timestamp with time zone": "TIMESTAMP",
    "date": "DATE",
    "time": "TIME",
    "blob": "BYTES",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One column, or one field of a record."""

    name: str
    type: str
    mode: str = "NULLABLE"
    fields: tuple[Field, ...] = ()

    @property
    def element(self) -> Field:
        """What a repeated field repeats."""
        return Field(self.name, self.type, "NULLABLE", self.fields)

    def renamed(self, name: str) -> Field:
        """The same field by another name."""
        return Field(name, self.type, self.mode, self.fields)

    def resource(self) -> dict[str, Any]:
        """The ``TableFieldSchema`` of the API."""
        nested = {"fields": [field.resource() for field in self.fields]} if self.fields else {}
        return {"name": self.name, "type": self.type, "mode": self.mode, **nested}


def parse_schema(resources: Iterable[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Reads the ``fields`` of a ``TableSchema``; raises ``invalid`` naming the field that the service would refuse."""
    fields = tuple(_parse_field(resource) for resource in resources)
    seen: set[str] = set()
    for field in fields:
        if field.name.lower() in seen:
            raise BigQueryError("invalid", f"Field {field.name} already exists in schema")
        seen.add(field.name.lower())
    return fields


def _parse_field(resource: Mapping[str, Any]) -> Field:
    name = str(resource.get("name", ""))
    if not _NAME.fullmatch(name):
        raise BigQueryError(
            "invalid",
            f'Invalid field name "{name}". Fields must contain only letters, numbers, and underscores, start with a '
            "letter or underscore, and be at most 300 characters long.",
        )
    kind = str(resource.get("type", "")).upper()
    kind = ALIASES.get(kind, kind)
    mode = str(resource.get("mode") or "NULLABLE").upper()
    if mode not in _MODES:
        raise BigQueryError("invalid", f"Invalid value for mode: {mode} is not a valid value")
    if kind == "RECORD":
        described = resource.get("fields") or []
        if not isinstance(described, list) or not all(isinstance(item, dict) for item in described):
            raise BigQueryError("invalid", f"Field {name} has fields that are not a list of objects")
        nested = parse_schema(described)
        if not nested:
            raise BigQueryError("invalid", f"Field {name} is type RECORD but has no schema")
        return Field(name, kind, mode, nested)
    if kind in _NOT_HERE:
        raise not_here(f"type {kind} (column {name})")
    if kind not in SCALARS:
        raise BigQueryError("invalid", f"Invalid value for type: {kind} is not a valid value")
    return Field(name, kind, mode)


def quote(name: str) -> str:
    """``name`` as a quoted DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def duckdb_type(field: Field) -> str:
    """The DuckDB type that holds ``field``."""
    if field.mode == "REPEATED":
        return duckdb_type(field.element) + "[]"
    if field.type == "RECORD":
        return "STRUCT(" + ", ".join(f"{quote(f.name)} {duckdb_type(f)}" for f in field.fields) + ")"
    return SCALARS[field.type][0]


def duckdb_column(field: Field) -> str:
    """``field`` as a column definition of ``CREATE TABLE``."""
    return f"{quote(field.name)} {duckdb_type(field)}" + (" NOT NULL" if field.mode == "REQUIRED" else "")


def arrow_type(field: Field) -> pa.DataType:
    """The Arrow type in which rows of ``field`` reach DuckDB."""
    if field.mode == "REPEATED":
        return pa.list_(arrow_type(field.element))
    if field.type == "RECORD":
        return pa.struct([(f.name, arrow_type(f)) for f in field.fields])
    return SCALARS[field.type][1]


def field_of(name: str, kind: Any) -> Field:
    """The field of a query's result, from its DuckDB type (a ``DuckDBPyType``)."""
    if kind.id in ("list", "array"):
        element = field_of(name, dict(kind.children)["child"])
        if element.mode == "REPEATED":
            words = f"Cannot construct array with element type ARRAY because nested arrays are not supported ({name})"
            raise BigQueryError("invalidQuery", words, "query")
        return Field(name, element.type, "REPEATED", element.fields)
    if kind.id == "struct":
        return Field(name, "RECORD", "NULLABLE", tuple(field_of(child, inner) for child, inner in kind.children))
    if str(kind) == "JSON":
        return Field(name, "JSON")
    if kind.id == "interval":
        raise not_here(f"type INTERVAL (column {name})")
    if kind.id == "decimal" and dict(kind.children)["scale"] > NUMERIC_PLACES:
        return Field(name, "BIGNUMERIC")
    return Field(name, _FROM_DUCKDB.get(kind.id, "STRING"))
