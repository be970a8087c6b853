"""Rows on their way in: what ``tabledata.insertAll`` sends, checked against the schema and made into Arrow columns.

The checks run a column at a time, because that is what makes 500 rows take milliseconds; only a column in which
something is wrong is looked at value by value. Messages are worded as the service words them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.types import Field, arrow_type
from pipeline.emulators.bigquery.values import NATIVE, PARSERS, Converter

Errors = dict[int, list[dict[str, str]]]


class Rejected(ValueError):
    """A value that its column does not take: where (``a.b``), and why in the service's words."""

    def __init__(self, location: str, message: str) -> None:
        super().__init__(message)
        self.location = location

    def proto(self) -> dict[str, str]:
        """The ``ErrorProto`` of a rejected row."""
        return {"reason": "invalid", "location": self.location, "debugInfo": "", "message": str(self)}


def check_rows(
    fields: Sequence[Field], rows: Sequence[Mapping[str, Any]], ignore_unknown: bool = False
) -> tuple[list[list[Any]], Errors]:
    """Converts ``rows`` to columns in the order of ``fields``.

    Returns the columns (a rejected row's values in them mean nothing) and, for every rejected row, its errors.
    """
    errors: Errors = {}
    rows = _fold_names(fields, rows)
    names = {field.name for field in fields}
    if not ignore_unknown:
        for index, row in enumerate(rows):
            if not row.keys() <= names:
                unknown = [name for name in row if name not in names]
                errors[index] = [Rejected(name, f"no such field: {name}.").proto() for name in unknown]
    columns = []
    for field in fields:
        values = [row.get(field.name) for row in rows]
        if field.mode == "NULLABLE" and {*map(type, values)} <= {NATIVE.get(field.type), type(None)}:
            columns.append(values)
            continue
        convert = converter(field, field.name, ignore_unknown)
        try:
            columns.append([convert(value) for value in values])
        except Rejected:
            columns.append(_convert_each(convert, values, errors))
    return columns, errors


def to_arrow(fields: Sequence[Field], columns: Sequence[Sequence[Any]]) -> pa.Table:
    """Converted columns as one Arrow table."""
    arrays = [pa.array(values, arrow_type(field)) for field, values in zip(fields, columns, strict=True)]
    return pa.Table.from_arrays(arrays, names=[field.name for field in fields])


def _fold_names(fields: Sequence[Field], rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Column names are matched without regard to case; rows that use them as declared pass unchanged."""
    names = {field.name for field in fields}
    if all(row.keys() <= names for row in rows):
        return rows
    declared = {field.name.lower(): field.name for field in fields}
    return [{declared.get(name.lower(), name): value for name, value in row.items()} for row in rows]


def _convert_each(convert: Converter, values: Sequence[Any], errors: Errors) -> list[Any]:
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except Rejected as rejected:
            errors.setdefault(index, []).append(rejected.proto())
            converted.append(None)
    return converted


def converter(field: Field, path: str, ignore_unknown: bool = False) -> Converter:
    """A function from a JSON value to the Python value that Arrow takes for ``field``; it raises :class:`Rejected`."""
    if field.mode == "REPEATED":
        return _repeated(field, path, ignore_unknown)
    convert = _record(field, path, ignore_unknown) if field.type == "RECORD" else _scalar(field.type, path)
    if field.mode != "REQUIRED":
        return convert

    def required(value: Any) -> Any:
        if value is None:
            raise Rejected("", f"Missing required field: Msg_0_CLOUD_QUERY_TABLE.{path}.")
        return convert(value)

    return required


def _scalar(kind: str, path: str) -> Converter:
    parse = PARSERS[kind]
    native = NATIVE.get(kind)

    def convert(value: Any) -> Any:
        if value is None or type(value) is native:
            return value
        if isinstance(value, dict):
            raise Rejected(path, f"This field: {path} is not a record.")
        if isinstance(value, list):
            raise Rejected(path, f"Array specified for non-repeated field: {path}.")
        try:
            return parse(value)
        except (ValueError, OverflowError, ArithmeticError) as error:
            raise Rejected(path, str(error)) from None

    return convert


def _record(field: Field, path: str, ignore_unknown: bool) -> Converter:
    names = {f.name.lower(): f.name for f in field.fields}
    converters = {f.name: converter(f, f"{path}.{f.name}", ignore_unknown) for f in field.fields}

    def convert(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            raise Rejected(path, f"Array specified for non-repeated field: {path}.")
        if not isinstance(value, dict):
            raise Rejected(path, f"This field: {path} is not a record.")
        given = {names.get(name.lower(), name): item for name, item in value.items()}
        if not ignore_unknown:
            for name in given:
                if name not in converters:
                    raise Rejected(f"{path}.{name}", f"no such field: {path}.{name}.")
        return {name: convert_item(given.get(name)) for name, convert_item in converters.items()}

    return convert


def _repeated(field: Field, path: str, ignore_unknown: bool) -> Converter:
    convert_element = converter(field.element, path, ignore_unknown)

    def convert(value: Any) -> Any:
        if value is None:
            return []
        if not isinstance(value, list):
            raise Rejected(path, f"Repeated value added outside of an array, field: {path}.")
        if any(item is None for item in value):
            raise Rejected(path, f"Only optional fields can be set to NULL. Field: {path}; Value: NULL")
        return [convert_element(item) for item in value]

    return convert
