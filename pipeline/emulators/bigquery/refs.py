"""What is stored, by name: datasets, tables and views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.emulators.bigquery.types import Field, parse_schema, quote


class DatasetRef(NamedTuple):
    """A dataset's full name; ``str()`` is how the service writes it."""

    project: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}"

    @property
    def duckdb(self) -> str:
        """Its quoted DuckDB schema."""
        return quote(f"{self.project}.{self.dataset}")


class TableRef(NamedTuple):
    """A table's full name; ``str()`` is how the service writes it."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def parent(self) -> DatasetRef:
        """The dataset it is in."""
        return DatasetRef(self.project, self.dataset)

    @property
    def duckdb(self) -> str:
        """Its quoted DuckDB name."""
        return f"{self.parent.duckdb}.{quote(self.table)}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view: the resource as the API shows it, and its columns."""

    ref: TableRef
    resource: dict[str, Any]
    fields: tuple[Field, ...]

    @property
    def view_query(self) -> str | None:
        """The query of a view; ``None`` for a table."""
        query: str | None = self.resource.get("view", {}).get("query")
        return query


def table_of(ref: TableRef, resource: dict[str, Any]) -> Table:
    """The table that the API's resource describes."""
    return Table(ref, resource, parse_schema(resource.get("schema", {}).get("fields", ())))
