"""Load jobs: newline-delimited JSON, CSV and Parquet, as small files, into rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.parquet import read_parquet
from pipeline.emulators.bigquery.rows import check_rows, to_arrow
from pipeline.emulators.bigquery.types import Field, parse_schema
from pipeline.emulators.bigquery.unsupported import check_schema, not_here
from pipeline.emulators.bigquery.values import parse_timestamp

#: How CSV may spell a BOOLEAN: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-csv#data_types
_BOOLEANS = dict.fromkeys(("1", "t", "yes", "y"), "true") | dict.fromkeys(("0", "f", "no", "n"), "false")

csv.field_size_limit(64 * 1024 * 1024)
_NAME = re.compile(r"\W", re.ASCII)


def read_load(
    configuration: Mapping[str, Any], known: Sequence[Field], media: bytes
) -> tuple[Sequence[Field], pa.Table, int]:
    """The columns and rows of the file ``media``, and how many bad ones were left out.

    The schema is the job's, else the table's (``known``), else, with ``autodetect``, what the values look like.
    Raises ``invalid`` for more bad rows than ``maxBadRecords``, and for a file that is not of its format.
    """
    kind = configuration.get("sourceFormat") or "CSV"
    if kind not in ("CSV", "NEWLINE_DELIMITED_JSON", "PARQUET"):
        raise not_here(f"sourceFormat {kind}")
    if (configuration.get("encoding") or "UTF-8").upper() not in ("UTF-8", "UTF8"):
        raise not_here(f"encoding {configuration['encoding']}")
    described = (configuration.get("schema") or {}).get("fields")
    check_schema(described or ())
    fields: Sequence[Field] = parse_schema(described) if described else known
    if kind == "PARQUET":
        lists = bool((configuration.get("parquetOptions") or {}).get("enableListInference"))
        return *read_parquet(media, fields, lists), 0
    try:
        text = media.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(f"the file is not UTF-8: {error}") from None
    read = _read_json if kind == "NEWLINE_DELIMITED_JSON" else _read_csv
    fields, rows = read(text, configuration, fields)
    columns, errors = check_rows(fields, rows, bool(configuration.get("ignoreUnknownValues")))
    if len(errors) > _count(configuration, "maxBadRecords"):
        index = min(errors)
        first = errors[index][0]
        raise _bad(f"row {index + 1}: {first['location']}: {first['message']}")
    columns = [[value for i, value in enumerate(column) if i not in errors] for column in columns]
    return fields, to_arrow(fields, columns), len(errors)


def _bad(why: str) -> BigQueryError:
    return BigQueryError("invalid", f"Error while reading data, error message: {why}")


def _read_json(
    text: str, configuration: Mapping[str, Any], fields: Sequence[Field]
) -> tuple[Sequence[Field], list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise _bad(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise _bad(f"line {number} is not a JSON object")
            rows.append(row)
    if not fields:
        _need_autodetect(configuration)
        names = dict.fromkeys(name for row in rows for name in row)
        fields = parse_schema([_detected(name, [row.get(name) for row in rows]) for name in names])
    # In a file a JSON column holds the value itself, where a streamed row holds its text.
    json = {field.name for field in fields if field.type == "JSON" and field.mode != "REPEATED"}
    if json:
        rows = [{k: orjson.dumps(v).decode() if k in json and v is not None else v for k, v in r.items()} for r in rows]
    return fields, rows


def _read_csv(
    text: str, configuration: Mapping[str, Any], fields: Sequence[Field]
) -> tuple[Sequence[Field], list[Mapping[str, Any]]]:
    delimiter = {"\\t": "\t", "tab": "\t"}.get(*[configuration.get("fieldDelimiter") or ","] * 2)
    quote = configuration.get("quote", '"')
    dialect: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        lines = [
            line
            for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **dialect)
            if line
        ]
    except (csv.Error, TypeError) as error:
        raise _bad(f"the file is not CSV: {error}") from None
    if not configuration.get("allowQuotedNewlines") and any(
        re.search(r"[\r\n]", cell) for line in lines for cell in line
    ):
        raise _bad("a value has a line end within quotes, and allowQuotedNewlines is not set")
    skip = _count(configuration, "skipLeadingRows")
    null = str(configuration.get("nullMarker") or "")
    body = lines[skip:]
    if not fields:
        _need_autodetect(configuration)
        head = lines[skip - 1] if skip and lines else []
        if not head and _is_header(body):
            head, body = body[0], body[1:]
        width = max(map(len, body), default=len(head))
        names = [_NAME.sub("_", name) for name in head] or [f"string_field_{number}" for number in range(width)]
        values = [
            [_value(line[i]) if i < len(line) and line[i] != null else None for line in body] for i in range(len(names))
        ]
        fields = parse_schema([_detected(name, column) for name, column in zip(names, values, strict=True)])
    booleans = [number for number, field in enumerate(fields) if field.type == "BOOLEAN"]
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(body, skip + 1):
        for column in (each for each in booleans if each < len(line)):
            line[column] = _BOOLEANS.get(line[column].lower(), line[column])
        if len(line) < len(fields) and not configuration.get("allowJaggedRows"):
            raise _bad(f"line {number} has {len(line)} columns, not {len(fields)}")
        if len(line) > len(fields) and not configuration.get("ignoreUnknownValues"):
            raise _bad(f"line {number} has {len(line)} columns, not {len(fields)}")
        named = zip(fields, line, strict=False)
        rows.append({f.name: None if cell == null and (null or f.type != "STRING") else cell for f, cell in named})
    return fields, rows


def _is_header(lines: list[list[str]]) -> bool:
    """Whether the first line is all text and another is not."""
    texts = [[_kind(_value(cell)) == "STRING" for cell in line if cell] for line in lines]
    return len(texts) > 1 and all(texts[0]) and not all(map(all, texts[1:]))


def _count(configuration: Mapping[str, Any], name: str) -> int:
    text = str(configuration.get(name) or 0)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BigQueryError("invalid", f"Invalid value for {name}: {text!r} is not a count")
    return int(text)


def _need_autodetect(configuration: Mapping[str, Any]) -> None:
    if not configuration.get("autodetect"):
        raise BigQueryError("invalid", "No schema specified on job or table.")


def _detected(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A column for these values, of the narrowest type that holds them all."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, list) for value in present):
        return {**_detected(name, [item for value in present for item in value]), "mode": "REPEATED"}
    if present and all(isinstance(value, dict) for value in present):
        names = dict.fromkeys(inner for value in present for inner in value)
        nested = [_detected(inner, [value.get(inner) for value in present]) for inner in names]
        return {"name": name, "type": "RECORD", "fields": nested}
    kinds = {_kind(value) for value in present}
    kind = kinds.pop() if len(kinds) == 1 else "FLOAT" if kinds == {"INTEGER", "FLOAT"} else "STRING"
    return {"name": name, "type": kind}


def _value(cell: str) -> Any:
    """What a cell of CSV looks like."""
    if re.fullmatch(r"[+-]?\d{1,18}", cell):
        return int(cell)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", cell):
        return float(cell)
    return {"true": True, "false": False}.get(cell.lower(), cell)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        try:
            parse_timestamp(value)
            return "TIMESTAMP" if len(value) > 10 else "DATE"
        except ValueError:
            return "STRING"
    return {bool: "BOOLEAN", int: "INTEGER", float: "FLOAT"}.get(type(value), "STRING")
