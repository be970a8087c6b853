"""What a query may give: no array with a null in it, and no time beyond the years 1 to 9999."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.emulators.bigquery.errors import BigQueryError

_DAYS = (-719_162, 2_932_896)
_MICROS = (_DAYS[0] * 86_400_000_000, (_DAYS[1] + 1) * 86_400_000_000 - 1)


def check_values(rows: pa.Table) -> None:
    """Raises ``invalidQuery`` as the service does when it writes such a value into a result."""
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        for chunk in column.chunks:
            _check(name, chunk)


def _check(name: str, values: pa.Array) -> None:
    kind = values.type
    if pa.types.is_list(kind):
        items = values.flatten()
        if items.null_count:
            raise _refused(f"Array cannot have a null element; error in writing field {name}")
        _check(name, items)
    elif pa.types.is_struct(kind):
        for child in values.flatten():
            _check(name, child)
    elif pa.types.is_date32(kind):
        _check_range(name, values.cast("int32"), _DAYS)
    elif pa.types.is_timestamp(kind) and kind.unit == "us":
        _check_range(name, values.cast("int64"), _MICROS)


def _check_range(name: str, numbers: pa.Array, ends: tuple[int, int]) -> None:
    found = pc.min_max(numbers).as_py()
    if found["min"] is not None and not ends[0] <= found["min"] <= found["max"] <= ends[1]:
        raise _refused(f"A value of {name} is not within the years 1 to 9999")


def _refused(words: str) -> BigQueryError:
    return BigQueryError("invalidQuery", words, "query")
