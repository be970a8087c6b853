"""Makes the topics, subscriptions, dataset and audit table that a job needs, wherever the emulator variables point."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from string import Template

from google.api_core import exceptions as api
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient

import pipeline
from pipeline import clients
from pipeline.matchers import TableName
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD, AUDIT_SCHEMA

#: What names begin with where nobody says otherwise.
DEFAULTS = {"project": "my-project", "name": "inference"}

_LATEST = Path(pipeline.__file__).with_name("audit_latest.sql")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one job reads and writes; each topic it writes has a subscription to watch it by."""

    input_topic: str
    input_subscription: str
    output_topic: str
    output_subscription: str
    dead_letter_topic: str
    dead_letter_subscription: str
    audit_table: TableName

    @classmethod
    def named(cls, project: str, name: str = "inference") -> Resources:
        """Resources in ``project`` whose names begin with ``name``."""
        topic, subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
        return cls(
            f"{topic}-input",
            f"{subscription}-input",
            f"{topic}-output",
            f"{subscription}-output",
            f"{topic}-dead-letter",
            f"{subscription}-dead-letter",
            TableName(project, name.replace("-", "_"), "audit"),
        )

    def flags(self) -> list[str]:
        """The flags of ``python -m pipeline.main`` that name them."""
        table = self.audit_table
        return [
            f"--input_subscription={self.input_subscription}",
            f"--output_topic={self.output_topic}",
            f"--dead_letter_topic={self.dead_letter_topic}",
            f"--audit_table={table.project}:{table.dataset}.{table.table}",
        ]


def create(resources: Resources) -> None:
    """Makes what is not there yet."""
    pairs = (
        (resources.input_topic, resources.input_subscription),
        (resources.output_topic, resources.output_subscription),
        (resources.dead_letter_topic, resources.dead_letter_subscription),
    )
    for topic, subscription in pairs:
        create_topic(topic, subscription)
    create_audit_table(resources.audit_table)


def create_topic(topic: str, subscription: str | None = None, ordered: bool = True) -> None:
    """Makes ``topic`` and a ``subscription`` to it that keeps the order of ordering keys."""
    with contextlib.suppress(api.AlreadyExists):
        clients.pubsub(PublisherClient).create_topic(name=topic)
    if subscription is None:
        return
    with contextlib.suppress(api.AlreadyExists):
        clients.pubsub(SubscriberClient).create_subscription(
            request={
                "name": subscription,
                "topic": topic,
                "ack_deadline_seconds": 60,
                "enable_message_ordering": ordered,
            }
        )


def create_audit_table(name: TableName) -> None:
    """Makes the audit table, its dataset, and beside it the view ``…_latest`` that shows each message once."""
    client = clients.bigquery_client(name.project)
    client.create_dataset(f"{name.project}.{name.dataset}", exists_ok=True)
    table = bigquery.Table(str(name), [bigquery.SchemaField.from_api_repr(column) for column in AUDIT_SCHEMA])
    table.time_partitioning = bigquery.TimePartitioning(field=AUDIT_PARTITION_FIELD)
    table.clustering_fields = AUDIT_CLUSTERING
    client.create_table(table, exists_ok=True)
    view = bigquery.Table(f"{name}_latest")
    view.view_query = latest_query(name)
    client.create_table(view, exists_ok=True)


def latest_query(name: TableName) -> str:
    """The query of the view ``…_latest``."""
    return Template(_LATEST.read_text("utf-8")).substitute(table=name)
