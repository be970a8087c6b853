"""Where the rows of a query or of a load go: into a table, by the job's dispositions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.emulators.bigquery.errors import BigQueryError, not_found
from pipeline.emulators.bigquery.refs import Table, TableRef
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.types import Field

_WRITE = ("WRITE_EMPTY", "WRITE_APPEND", "WRITE_TRUNCATE")


def destination_of(configuration: Mapping[str, Any]) -> TableRef | None:
    """The table that a job's configuration names."""
    named = configuration.get("destinationTable")
    if not named:
        return None
    try:
        return TableRef(*(str(named[part]) for part in ("projectId", "datasetId", "tableId")))
    except (KeyError, TypeError):
        raise BigQueryError("invalid", "Required parameter is missing: destinationTable") from None


def write(
    store: Store, ref: TableRef, configuration: Mapping[str, Any], fields: Sequence[Field], rows: pa.Table
) -> int:
    """Puts ``rows`` into the table ``ref``, made if the job may make it; returns how many.

    Raises ``invalid``, ``duplicate`` or ``notFound`` as the job's ``writeDisposition`` and ``createDisposition`` say.
    """
    disposition = configuration.get("writeDisposition") or configuration["default"]
    if disposition not in _WRITE:
        raise BigQueryError("invalid", f"Invalid value for writeDisposition: {disposition}")
    store.dataset(ref.parent)
    old = store.tables.get(ref)
    if old is None and configuration.get("createDisposition") == "CREATE_NEVER":
        raise not_found("Table", str(ref))
    if old is not None and old.view_query is not None:
        raise BigQueryError("invalid", f"{ref} is a view; rows cannot be written to it")
    if old is not None and disposition == "WRITE_EMPTY" and store.count(old):
        raise BigQueryError("duplicate", f"Already Exists: Table {ref}")
    resource = {"schema": {"fields": [field.resource() for field in fields]}}
    if old is None or (not old.fields and fields):
        store.create_table(ref, {**(old.resource if old else {}), **resource}, None, old is not None, rows)
    elif disposition == "WRITE_TRUNCATE":
        kept = {key: value for key, value in old.resource.items() if key not in ("timePartitioning", "clustering")}
        same = _shape(fields) == _shape(old.fields)
        store.create_table(ref, old.resource if same else {**kept, **resource}, None, True, rows)
    else:
        _check_fits(old, fields, rows)
        store.append(ref, rows)
    return int(rows.num_rows)


def _shape(fields: Sequence[Field]) -> list[Any]:
    return [(f.name, f.type, f.mode == "REPEATED", _shape(f.fields)) for f in fields]


def _check_fits(table: Table, fields: Sequence[Field], rows: pa.Table) -> None:
    """The rows' columns are the table's, of the same types, and fill what is required."""
    columns = {field.name.lower(): field for field in table.fields}

    def refuse(why: str) -> BigQueryError:
        return BigQueryError("invalid", f"Provided Schema does not match Table {table.ref}. {why}")

    for field in fields:
        column = columns.pop(field.name.lower(), None)
        if column is None:
            raise refuse(f"Cannot add fields (field: {field.name})")
        if (column.type, column.mode == "REPEATED") != (field.type, field.mode == "REPEATED"):
            raise refuse(f"Field {field.name} has changed type from {column.type} to {field.type}")
        if column.mode == "REQUIRED" and rows[field.name].null_count:
            raise BigQueryError("invalid", f"Required field {field.name} cannot be null")
    for column in columns.values():
        if column.mode == "REQUIRED":
            raise refuse(f"Field {column.name} is missing in new schema")
