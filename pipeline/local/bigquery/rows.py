"""Rows on their way in: what ``tabledata.insertAll`` sends, checked against the schema and made into Arrow columns.

The checks run a column at a time, because that is what makes 500 rows take milliseconds; only a column in which
something is wrong is looked at value by value. Messages are worded as the service words them.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.local.bigquery.types import Field, arrow_type

Converter = Callable[[Any], Any]
Errors = dict[int, list[dict[str, str]]]

_INTEGER = re.compile(r"[+-]?\d+")
_TIMESTAMP = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[ Tt](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?)?"
    r" ?(?:([Zz]|UTC)|([+-])(\d{1,2})(?::?(\d{2}))?)?"
)
_TIME = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


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
        convert = converter(field, field.name, ignore_unknown)
        values = [row.get(field.name) for row in rows]
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
    parse = _PARSERS[kind]
    native = _NATIVE.get(kind)

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


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _string(value: Any) -> str:
    if isinstance(value, bool):
        raise ValueError("Conversion from bool to std::string is unsupported.")
    return _shown(value)


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value.translate(_URL_SAFE), validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise ValueError("Could not decode base64 string to bytes.") from None


_URL_SAFE = str.maketrans("-_", "+/")


def _integer(value: Any) -> int:
    if type(value) is int:
        number = value
    elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        number = int(value)
    else:
        raise ValueError(f"Cannot convert value to integer (bad value): {_shown(value)}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"Cannot convert value to integer (bad value): {number}")
    return number


def _float(value: Any) -> float:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"Cannot convert value to floating point (bad value): {_shown(value)}") from None


def _numeric(places: int, kind: str) -> Converter:
    quantum = decimal.Decimal(1).scaleb(-places)
    context = decimal.Context(prec=38, rounding=decimal.ROUND_HALF_UP)

    def parse(value: Any) -> decimal.Decimal:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = decimal.Decimal(_shown(value))
            if not number.is_finite():
                raise ValueError
            return number.quantize(quantum, context=context)
        except (ValueError, decimal.InvalidOperation):
            raise ValueError(f"Invalid {kind} value: {_shown(value)}") from None

    return parse


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"Cannot convert value to boolean (bad value): {_shown(value)}")


def _timestamp(value: Any) -> dt.datetime:
    if isinstance(value, str):
        try:
            return parse_timestamp(value)
        except ValueError:
            pass
        try:
            value = float(value)
        except ValueError:
            raise ValueError(
                f"Could not parse '{value}' as a timestamp. Required format is YYYY-MM-DD HH:MM[:SS[.SSSSSS]] or "
                "YYYY/MM/DD HH:MM[:SS[.SSSSSS]]"
            ) from None
    if isinstance(value, bool):
        raise ValueError("Conversion from bool to TIMESTAMP is unsupported.")
    try:
        return _EPOCH + dt.timedelta(microseconds=round(value * 1_000_000))
    except (OverflowError, ValueError):
        raise ValueError(f"Timestamp is out of supported range: {_shown(value)}") from None


def parse_timestamp(text: str) -> dt.datetime:
    """``2024-01-31T12:00:00.123456Z`` and its variants, UTC where no offset is given; raises ``ValueError``."""
    if len(text) == 27 and text[-1] == "Z":  # what every Google client writes, and most of what arrives here
        return dt.datetime.fromisoformat(text[:-1]).replace(tzinfo=dt.timezone.utc)
    moment = _naive(text)
    sign, hours, minutes = _TIMESTAMP.fullmatch(text).group(9, 10, 11)  # type: ignore[union-attr]
    if sign:
        offset = dt.timedelta(hours=int(hours), minutes=int(minutes or 0))
        moment = moment - offset if sign == "+" else moment + offset
    return moment.replace(tzinfo=dt.timezone.utc)


def _naive(text: str) -> dt.datetime:
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction = match.groups()[:7]
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    return dt.datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), microsecond)


def _date(value: Any) -> dt.date:
    try:
        return dt.date(*map(int, re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", value).groups()))  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid date: '{_shown(value)}'") from None


def _datetime(value: Any) -> dt.datetime:
    try:
        if _TIMESTAMP.fullmatch(value).group(8, 9) != (None, None):  # type: ignore[union-attr]
            raise ValueError("a DATETIME has no time zone")
        return _naive(value)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'Invalid datetime string "{_shown(value)}"') from None


def _time(value: Any) -> dt.time:
    try:
        hour, minute, second, fraction = _TIME.fullmatch(value).groups()  # type: ignore[union-attr]
        return dt.time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")[:6]))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'Invalid time string "{_shown(value)}"') from None


def _json(value: Any) -> str:
    if not isinstance(value, str):
        return _shown(value)
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"Invalid JSON: syntax error while parsing value - {error}") from None
    return value


#: Types whose JSON value is the Arrow value already.
_NATIVE = {"STRING": str, "FLOAT": float, "BOOLEAN": bool, "GEOGRAPHY": str}

_PARSERS: dict[str, Converter] = {
    "STRING": _string,
    "BYTES": _bytes,
    "INTEGER": _integer,
    "FLOAT": _float,
    "NUMERIC": _numeric(9, "NUMERIC"),
    "BIGNUMERIC": _numeric(18, "BIGNUMERIC"),
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "DATE": _date,
    "TIME": _time,
    "DATETIME": _datetime,
    "JSON": _json,
    "GEOGRAPHY": _string,
}
