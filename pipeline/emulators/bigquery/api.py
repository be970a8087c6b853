"""The API as one object: a method's name and a request in, its answer out."""

from __future__ import annotations

from typing import Any

import duckdb

from pipeline.emulators.bigquery.catalog import Datasets, Projects, Tables
from pipeline.emulators.bigquery.errors import storage_error
from pipeline.emulators.bigquery.job_methods import JobMethods
from pipeline.emulators.bigquery.methods import Request
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.bigquery.tabledata import TableData


class Api:
    """Every method of ``METHODS`` over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._resources = {
            "projects": Projects(store),
            "datasets": Datasets(store),
            "tables": Tables(store),
            "tabledata": TableData(store),
            "jobs": JobMethods(store),
        }

    def call(self, method: str, request: Request) -> dict[str, Any]:
        """Runs one method (``tables.insert``); raises :class:`BigQueryError`."""
        resource, name = method.split(".")
        try:
            answer: dict[str, Any] = getattr(self._resources[resource], name)(request)
            return answer
        except duckdb.Error as error:
            self._store.recover()
            raise storage_error(error) from error
