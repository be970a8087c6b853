"""Parquet files of load jobs, which is what ``load_table_from_dataframe`` sends, as rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.types import Field, arrow_type
from pipeline.emulators.bigquery.unsupported import not_here


def read_parquet(media: bytes, fields: Sequence[Field], lists: bool) -> tuple[Sequence[Field], pa.Table]:
    """The columns and rows of the file ``media``: as ``fields`` say, or where they are empty, as the file does.

    Raises ``invalid`` for a file that is none, a column that does not fit, and one that ``fields`` do not have; and
    ``notImplemented`` for lists that are to be shown as the records they are in the file (without ``lists``).
    """
    try:
        table = pq.read_table(pa.BufferReader(media))
    except (pa.ArrowException, OSError) as error:
        raise _bad(f"the file is not Parquet: {error}") from None
    if not lists and any(map(_has_list, table.schema.types)):
        raise not_here("a Parquet list without parquetOptions.enableListInference")
    fields = fields or tuple(_field_of(column) for column in table.schema)
    columns = {name.lower(): table.column(name) for name in table.column_names}
    cast = [_cast(field, columns.pop(field.name.lower(), None), table.num_rows) for field in fields]
    if columns:
        raise _bad(f"no such field: {next(iter(columns))}")
    return fields, pa.table(cast, names=[field.name for field in fields])


def _bad(why: str) -> BigQueryError:
    return BigQueryError("invalid", f"Error while reading data, error message: {why}")


def _cast(field: Field, column: pa.ChunkedArray | None, rows: int) -> pa.ChunkedArray:
    wanted = arrow_type(field)
    if column is None or column.null_count == rows:
        column = pa.chunked_array([pa.nulls(rows, wanted)])
    if field.mode == "REQUIRED" and column.null_count:
        raise _bad(f"Required field {field.name} cannot be null")
    try:
        # Microseconds are all that the service keeps of a time.
        return column.cast(wanted, safe=not (pa.types.is_temporal(column.type) and pa.types.is_temporal(wanted)))
    except pa.ArrowException as error:
        raise _bad(f"column {field.name} has type {column.type}, which is no {field.type}: {error}") from None


def _has_list(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_list(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _field_of(column: pa.Field) -> Field:
    """The column that the service would make of one of the file."""
    kind, name = column.type, column.name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        element = _field_of(kind.value_field)
        return Field(name, element.type, "REPEATED", element.fields)
    if pa.types.is_struct(kind):
        return Field(name, "RECORD", "NULLABLE", tuple(_field_of(kind.field(i)) for i in range(kind.num_fields)))
    if pa.types.is_timestamp(kind):
        return Field(name, "TIMESTAMP" if kind.tz else "DATETIME")
    if pa.types.is_decimal(kind):
        return Field(name, "NUMERIC" if kind.scale <= 9 else "BIGNUMERIC")
    for test, found in _KINDS:
        if test(kind):
            return Field(name, found)
    raise not_here(f"Parquet's {kind} (column {name})")


_KINDS = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "FLOAT"),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind), "STRING"),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), "BYTES"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_null, "STRING"),
)
