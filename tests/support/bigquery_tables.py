"""Clients and tables for the tests of the embedded BigQuery."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipeline.emulators.process import Server
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD, AUDIT_SCHEMA

PROJECT = "my-project"
AUDIT_FIELDS = [bigquery.SchemaField.from_api_repr(column) for column in AUDIT_SCHEMA]


def connect(server: Server) -> bigquery.Client:
    """The client as a user makes it, with ``BIGQUERY_EMULATOR_HOST`` set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(server.name, server.address)
        return bigquery.Client(PROJECT, credentials=AnonymousCredentials())


def make_dataset(client: bigquery.Client) -> str:
    name = f"{PROJECT}.d{uuid.uuid4().hex}"
    client.create_dataset(name)
    return name


def make_table(client: bigquery.Client, dataset: str, *columns: str, name: str = "t") -> str:
    """A table whose columns are given as ``name:TYPE`` or ``name:TYPE:MODE``."""
    fields = [bigquery.SchemaField(*column.split(":")) for column in columns]
    client.create_table(bigquery.Table(f"{dataset}.{name}", fields))
    return f"{dataset}.{name}"


def make_audit_table(client: bigquery.Client, dataset: str) -> str:
    table = bigquery.Table(f"{dataset}.audit", AUDIT_FIELDS)
    table.time_partitioning = bigquery.TimePartitioning(field=AUDIT_PARTITION_FIELD)
    table.clustering_fields = AUDIT_CLUSTERING
    table.description = "one row a message"
    client.create_table(table)
    return f"{dataset}.audit"


def audit_row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "message_id": str(number),
        "processed_time": f"2024-01-02T03:04:{number % 60:02}.5Z",
        "status": "ok",
        "model": "m",
        "prediction": json.dumps({"label": "pos", "score": 0.5}),
        "input_bytes": number,
        "truncated": False,
        "inference_ms": number / 2,
        "attributes": "{}",
        **changes,
    }


def rows_of(client: bigquery.Client, query: str, **options: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in client.query_and_wait(query, **options)]
