"""``projects``, ``datasets`` and ``tables`` of the API: one class a resource, one method a method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.query import LOCATION, view_fields
from pipeline.emulators.bigquery.refs import DatasetRef, Table, TableRef
from pipeline.emulators.bigquery.resources import check_etag, etag, merged, only, replacing, selected, stamped
from pipeline.emulators.bigquery.results import page_of
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.types import Field, parse_schema
from pipeline.emulators.bigquery.unsupported import check_dataset, check_table, not_here

_DATASET_NAME = re.compile(r"\w{1,1024}", re.ASCII)
_TABLE_NAME = re.compile(r"[\w -]{1,1024}")
_DATASET_SUMMARY = ("kind", "id", "datasetReference", "labels", "friendlyName", "location")
_TABLE_SUMMARY = (
    *("kind", "id", "tableReference", "type", "creationTime", "labels"),
    *("timePartitioning", "clustering", "view"),
)


class Projects:
    """A project exists as soon as it has a dataset."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def list(self, request: Request) -> dict[str, Any]:
        names = sorted({ref.project for ref in self.store.datasets})
        page, token = page_of(names, request)
        projects = [
            {"kind": "bigquery#project", "id": name, "projectReference": {"projectId": name}, "friendlyName": name}
            for name in page
        ]
        return {"kind": "bigquery#projectList", "projects": projects, "totalItems": len(names), **token}


class Datasets:
    def __init__(self, store: Store) -> None:
        self.store = store

    def list(self, request: Request) -> dict[str, Any]:
        if request.query.get("filter"):
            raise not_here("filter")
        refs = sorted(ref for ref in self.store.datasets if ref.project == request.project)
        if not request.flag("all"):
            refs = [ref for ref in refs if not ref.dataset.startswith("_")]
        page, token = page_of(refs, request)
        shown = [only(_DATASET_SUMMARY, self._shown(ref)) for ref in page]
        return {"kind": "bigquery#datasetList", "datasets": shown, **token}

    def insert(self, request: Request) -> dict[str, Any]:
        name = (request.body.get("datasetReference") or {}).get("datasetId") or ""
        if not _DATASET_NAME.fullmatch(name):
            raise BigQueryError(
                "invalid", f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric (plus underscores).'
            )
        ref = DatasetRef(request.project, name)
        check_dataset(request.body)
        self.store.create_dataset(ref, stamped(merged({}, request.body), created=True))
        return self._shown(ref)

    def get(self, request: Request) -> dict[str, Any]:
        """``datasetView`` has who may do what and all the rest, one of them alone, or both."""
        shown, view = self._shown(request.dataset), request.query.get("datasetView", "")
        if view == "METADATA":
            shown.pop("access")
        return only(("kind", "id", "etag", "datasetReference", "access"), shown) if view == "ACL" else shown

    def patch(self, request: Request) -> dict[str, Any]:
        old = self.store.dataset(request.dataset)
        if request.query.get("updateMode", "UPDATE_FULL") not in ("UPDATE_FULL", "UPDATE_MODE_UNSPECIFIED"):
            raise not_here("updateMode")
        check_etag(old, request)
        check_dataset(request.body)
        self.store.update_dataset(request.dataset, stamped(merged(old, request.body)))
        return self._shown(request.dataset)

    def update(self, request: Request) -> dict[str, Any]:
        """Replaces the whole resource, where ``patch`` changes what it names."""
        return self.patch(replace(request, body=replacing(self.store.dataset(request.dataset), request.body)))

    def delete(self, request: Request) -> dict[str, Any]:
        self.store.delete_dataset(request.dataset, request.flag("deleteContents"))
        return {}

    def _shown(self, ref: DatasetRef) -> dict[str, Any]:
        resource = self.store.dataset(ref)
        return {
            "location": LOCATION,
            "access": [{"role": "OWNER", "specialGroup": "projectOwners"}],
            **resource,
            "kind": "bigquery#dataset",
            "id": str(ref),
            "etag": etag(resource),
            "datasetReference": {"projectId": ref.project, "datasetId": ref.dataset},
        }


class Tables:
    def __init__(self, store: Store) -> None:
        self.store = store

    def list(self, request: Request) -> dict[str, Any]:
        tables = self.store.tables_of(request.dataset)
        page, token = page_of(tables, request)
        shown = [only(_TABLE_SUMMARY, self._shown(table, count=False)) for table in page]
        return {"kind": "bigquery#tableList", "tables": shown, "totalItems": len(tables), **token}

    def insert(self, request: Request) -> dict[str, Any]:
        name = (request.body.get("tableReference") or {}).get("tableId") or ""
        if not _TABLE_NAME.fullmatch(name):
            raise BigQueryError(
                "invalid", f'Invalid table ID "{name}". Table IDs must be letters, numbers, underscores and dashes.'
            )
        ref = TableRef(*request.dataset, name)
        resource = self._checked(ref, stamped(merged({}, request.body), created=True))
        return self._shown(self.store.create_table(ref, resource))

    def get(self, request: Request) -> dict[str, Any]:
        shown = self._shown(self.store.table(request.table), request.query.get("view") != "BASIC")
        wanted = {name.strip().lower() for name in request.query.get("selectedFields", "").split(",") if name.strip()}
        if wanted and "schema" in shown:
            shown["schema"] = {"fields": selected(shown["schema"]["fields"], wanted)}
        return shown

    def patch(self, request: Request) -> dict[str, Any]:
        old = self.store.table(request.table)
        if request.flag("autodetect_schema"):
            raise not_here("autodetect_schema")
        check_etag(old.resource, request)
        # A null removes, but a table is never without a schema: `bq update` sends null for "as it is".
        changes = {key: value for key, value in request.body.items() if key != "schema" or value is not None}
        resource = self._checked(request.table, stamped(merged(old.resource, changes)))
        if ("view" in resource) != ("view" in old.resource):
            raise BigQueryError("invalid", f"Cannot make a view of a table or a table of a view: {old.ref}")
        return self._shown(self.store.update_table(request.table, resource))

    def update(self, request: Request) -> dict[str, Any]:
        """Replaces the whole resource but for the schema, where ``patch`` changes what it names."""
        return self.patch(replace(request, body=replacing(self.store.table(request.table).resource, request.body)))

    def delete(self, request: Request) -> dict[str, Any]:
        self.store.delete_table(request.table)
        return {}

    def _shown(self, table: Table, count: bool = True) -> dict[str, Any]:
        ref, view = table.ref, table.view_query is not None
        return {
            "location": LOCATION,
            **table.resource,
            "kind": "bigquery#table",
            "id": str(ref),
            "etag": etag(table.resource),
            "type": "VIEW" if view else "TABLE",
            "tableReference": {"projectId": ref.project, "datasetId": ref.dataset, "tableId": ref.table},
            **({"numRows": str(self.store.count(table))} if count and not view else {}),
        }

    def _checked(self, ref: TableRef, resource: dict[str, Any]) -> dict[str, Any]:
        """The resource, sound and complete: canonical column types, or a view's columns."""
        check_table(resource)
        view = resource.get("view")
        if view is not None:
            if view.get("useLegacySql"):
                raise not_here("a view in legacy SQL")
            fields = view_fields(self.store, view.get("query") or "", ref.project)
            return {**resource, "schema": {"fields": [field.resource() for field in fields]}}
        described = (resource.get("schema") or {}).get("fields") or []
        fields = parse_schema(described)
        _check_layout(resource, {field.name: field.type for field in fields})
        columns = [_canonical(column, field) for column, field in zip(described, fields, strict=True)]
        return {**resource, "schema": {"fields": columns}} if columns else resource


def _check_layout(resource: Mapping[str, Any], types: Mapping[str, str]) -> None:
    """Raises ``invalid`` for partitioning or clustering by what is not there."""
    partition = (resource.get("timePartitioning") or {}).get("field")
    if partition and types.get(partition) not in ("TIMESTAMP", "DATE", "DATETIME"):
        raise BigQueryError(
            "invalid",
            "The field specified for partitioning cannot be found in the schema, or is not a TIMESTAMP, DATE or "
            f"DATETIME: {partition}",
        )
    for name in (resource.get("clustering") or {}).get("fields") or []:
        if name not in types:
            raise BigQueryError("invalid", f"The field specified for clustering cannot be found in the schema: {name}")


def _canonical(described: Mapping[str, Any], field: Field) -> dict[str, Any]:
    """A column as the client described it, with type and mode as the service writes them."""
    nested = [_canonical(d, f) for d, f in zip(described.get("fields") or (), field.fields, strict=False)]
    return {**described, "type": field.type, "mode": field.mode, **({"fields": nested} if nested else {})}
