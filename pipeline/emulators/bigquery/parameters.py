"""Query parameters: the API's descriptions of types and values as fields and Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.rows import Rejected, converter
from pipeline.emulators.bigquery.types import Field, parse_schema
from pipeline.emulators.bigquery.values import parse_timestamp


def read_parameters(parameters: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Field], dict[str, Any]]:
    """Types and values of query parameters by lower-case name; positional ones are ``p1``, ``p2`` …"""
    fields, values = {}, {}
    for number, parameter in enumerate(parameters, 1):
        name = str(parameter.get("name") or f"p{number}").lower()
        try:
            fields[name] = _parameter_field(name, parameter["parameterType"])
            value = _parameter_value(parameter.get("parameterValue") or {})
            _check_moments(fields[name], value)
            values[name] = converter(fields[name], name)(value)
        except Rejected as error:
            raise BigQueryError("invalid", f"Invalid value for query parameter '{name}': {error}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise BigQueryError("invalid", f"Query parameter '{name}' is malformed: {error!r}") from None
    return fields, values


def _parameter_field(name: str, kind: Mapping[str, Any]) -> Field:
    if kind["type"] == "ARRAY":
        element = _parameter_field(name, kind["arrayType"])
        return Field(name, element.type, "REPEATED", element.fields)
    if kind["type"] == "STRUCT":
        nested = (_parameter_field(member.get("name") or "", member["type"]) for member in kind["structTypes"])
        return Field(name, "RECORD", "NULLABLE", tuple(nested))
    return parse_schema([{"name": "parameter", "type": kind["type"]}])[0].renamed(name)


def _parameter_value(value: Mapping[str, Any]) -> Any:
    if "arrayValues" in value:
        return [_parameter_value(item) for item in value["arrayValues"]]
    if "structValues" in value:
        return {name: _parameter_value(item) for name, item in value["structValues"].items()}
    return value.get("value")


def _check_moments(field: Field, value: Any) -> None:
    """A TIMESTAMP is a text here, where a streamed row may have seconds since the epoch."""
    if field.mode == "REPEATED":
        for item in value or ():
            _check_moments(field.element, item)
    elif field.type == "RECORD":
        for inner in field.fields:
            _check_moments(inner, (value or {}).get(inner.name))
    elif field.type == "TIMESTAMP" and value is not None:
        try:
            parse_timestamp(value)
        except (TypeError, ValueError):
            raise Rejected(field.name, f"Could not parse '{value}' as a timestamp") from None
