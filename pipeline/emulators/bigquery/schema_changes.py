"""What may become of a table's columns: ``ALTER TABLE`` from one schema to another."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.refs import Table
from pipeline.emulators.bigquery.types import duckdb_column, quote
from pipeline.emulators.bigquery.unsupported import not_here


def changes(old: Table, new: Table) -> Iterator[str]:
    """The ``ALTER TABLE`` actions from ``old`` to ``new``; raises ``invalid`` for what the service refuses."""
    wanted = {field.name.lower(): field for field in new.fields}

    def refuse(why: str) -> BigQueryError:
        return BigQueryError("invalid", f"Provided Schema does not match Table {old.ref}. {why}")

    for field in old.fields:
        other = wanted.pop(field.name.lower(), None)
        if other is None:
            raise refuse(f"Field {field.name} is missing in new schema")
        if other.type != field.type:
            raise refuse(f"Field {field.name} has changed type from {field.type} to {other.type}")
        if other.fields != field.fields:
            raise not_here(f"field {field.name}: changing the fields of a record")
        if (field.mode, other.mode) == ("REQUIRED", "NULLABLE"):
            yield f"ALTER {quote(field.name)} DROP NOT NULL"
        elif other.mode != field.mode:
            raise refuse(f"Field {field.name} has changed mode from {field.mode} to {other.mode}")
    for field in wanted.values():
        if field.mode == "REQUIRED":
            raise refuse(f"Cannot add required fields to an existing schema. (field: {field.name})")
        yield f"ADD COLUMN {duckdb_column(field)}" + (" DEFAULT []" if field.mode == "REPEATED" else "")
    if not old.fields and new.fields:
        yield "DROP COLUMN __no_columns__"
