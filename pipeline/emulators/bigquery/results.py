"""Rows on their way out: Arrow tables in the JSON that ``getQueryResults`` and ``tabledata.list`` answer with.

Every scalar is a string, a record ``{"f": [{"v": …}]}``, a repeated field ``[{"v": …}]``.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.types import Field
from pipeline.emulators.bigquery.unsupported import not_here

#: Rows in a page where the client asks for no number or for more.
PAGE_ROWS = 10_000

Encoder = Callable[[Any], Any]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)


def page_of(items: list[Any], request: Request) -> tuple[list[Any], dict[str, str]]:
    """The page of a listing that ``request`` asks for, and the token of the next."""
    start = request.number("pageToken", 0)
    end = start + (request.number("maxResults", 0) or PAGE_ROWS)
    return items[start:end], ({"nextPageToken": str(end)} if end < len(items) else {})


def select_fields(fields: Sequence[Field], names: str) -> list[Field]:
    """The fields that ``selectedFields`` names (``a,b.c``, in any case), in the schema's order; all if it is empty.

    Raises ``invalid`` for a name that is no field.
    """
    wanted: dict[str, list[str]] = {}
    for path in filter(None, (name.strip().lower() for name in names.split(","))):
        first, _, rest = path.partition(".")
        wanted.setdefault(first, []).append(rest)
    if not wanted:
        return list(fields)
    selected = []
    for field in fields:
        inner = wanted.pop(field.name.lower(), None)
        if inner is not None:
            nested = () if "" in inner else tuple(select_fields(field.fields, ",".join(inner)))
            selected.append(Field(field.name, field.type, field.mode, nested or field.fields))
    if wanted:
        raise BigQueryError("invalid", f"No such field: {next(iter(wanted))}")
    return selected


def rows_page(fields: Sequence[Field], page: pa.Table, start: int, total: int, request: Request) -> dict[str, Any]:
    """A page of rows, ``start`` being its first of ``total``, and the token of the next. No rows are no ``rows``."""
    form = request.query.get("formatOptions.timestampOutputFormat") or ""
    if form == "ISO8601_STRING":
        raise not_here(f"formatOptions.timestampOutputFormat={form}")
    rows = encode_rows(fields, page, form == "INT64" or request.flag("formatOptions.useInt64Timestamp"))
    end = start + page.num_rows
    more = {"pageToken": str(end)} if rows and end < total else {}
    return {**({"rows": rows} if rows else {}), **more}


def encode_rows(fields: Sequence[Field], rows: pa.Table, int64_timestamps: bool) -> list[dict[str, Any]]:
    """``rows`` as the API's list of rows.

    TIMESTAMP is whole microseconds with ``int64_timestamps`` (``formatOptions.useInt64Timestamp``), seconds without.
    """
    columns = []
    for field, column in zip(fields, rows.columns, strict=True):
        encode = _encoder(field, int64_timestamps)
        try:
            columns.append([encode(value) for value in column.to_pylist()])
        except OverflowError:
            raise BigQueryError("invalid", f"A value of {field.name} is not within the years 1 to 9999") from None
    return [{"f": [{"v": value} for value in row]} for row in zip(*columns, strict=True)]


def _encoder(field: Field, int64_timestamps: bool) -> Encoder:
    if field.mode == "REPEATED":
        element = _encoder(field.element, int64_timestamps)
        return lambda values: [{"v": element(value)} for value in values or ()]
    if field.type == "RECORD":
        nested = [(f.name, _encoder(f, int64_timestamps)) for f in field.fields]
        return lambda record: (
            None if record is None else {"f": [{"v": encode(record[name])} for name, encode in nested]}
        )
    scalar = _micros if field.type == "TIMESTAMP" and int64_timestamps else _SCALARS.get(field.type, str)
    return lambda value: None if value is None else scalar(value)


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _micros(value: dt.datetime) -> str:
    return str((value - _EPOCH) // _MICROSECOND)


def _seconds(value: dt.datetime) -> str:
    micros = (value - _EPOCH) // _MICROSECOND
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // 1_000_000}.{abs(micros) % 1_000_000:06}"


def _decimal(value: Any) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_SCALARS: dict[str, Encoder] = {
    "INTEGER": lambda value: str(int(value)),
    "FLOAT": _float,
    "NUMERIC": _decimal,
    "BIGNUMERIC": _decimal,
    "BOOLEAN": lambda value: "true" if value else "false",
    "BYTES": lambda value: base64.b64encode(value).decode(),
    "TIMESTAMP": _seconds,
    "DATE": dt.date.isoformat,
    "TIME": dt.time.isoformat,
    "DATETIME": dt.datetime.isoformat,
}
