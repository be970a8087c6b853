"""What is looked at before a launch: topics, subscription and table exist, and the table has the audit row's columns."""

from __future__ import annotations

import logging

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient

from pipeline import io
from pipeline.options import Settings, TableName, UsageError
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD, AUDIT_SCHEMA

_LOGGER = logging.getLogger(__name__)
_TIMEOUT_S = 20.0


def check(settings: Settings) -> None:
    """Looks at everything that ``settings`` names.

    Raises:
        UsageError: the first thing that is missing or wrong, with the way out.
    """
    for flag, topic in (("output_topic", settings.output_topic), ("dead_letter_topic", settings.dead_letter_topic)):
        with _Asking(flag, topic, f"create it with: gcloud pubsub topics create {topic}"):
            io.pubsub(PublisherClient).get_topic(topic=topic, retry=None, timeout=_TIMEOUT_S)
    name = settings.input_subscription
    with _Asking("input_subscription", name, f"create it with: gcloud pubsub subscriptions create {name} --topic=TOPIC"):
        found = io.pubsub(SubscriberClient).get_subscription(subscription=name, retry=None, timeout=_TIMEOUT_S)
        if found.topic in (settings.output_topic, settings.dead_letter_topic):
            raise UsageError(f"--input_subscription {name!r} reads {found.topic!r}, which the job writes: an endless loop")
    if settings.audit_table:
        _check_table(settings.audit_table)


def _check_table(name: TableName) -> None:
    with _Asking("audit_table", str(name), f"create it with: {create_table_command(name)}"):
        table = io.bigquery_client(name.project).get_table(str(name), retry=None, timeout=_TIMEOUT_S)
        wrong = schema_differences(table.schema)
        if wrong:
            raise UsageError(f"--audit_table {str(name)!r} has another schema: {'; '.join(wrong)}; use a new table: "
                             f"{create_table_command(name)}")


def create_table_command(name: TableName) -> str:
    """The command that makes the audit table."""
    return (
        "python -m transforms.records > audit_schema.json && bq mk --table "
        f"--time_partitioning_field={AUDIT_PARTITION_FIELD} --clustering_fields={','.join(AUDIT_CLUSTERING)} "
        f"{name.project}:{name.dataset}.{name.table} audit_schema.json"
    )


#: The service answers some types with their newer names.
_SAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}


def schema_differences(schema: list[bigquery.SchemaField]) -> list[str]:
    """How ``schema`` differs from the audit row's: missing columns, other types, and required columns that no row has."""
    have = {field.name: field for field in schema}
    wrong = []
    for column in AUDIT_SCHEMA:
        field = have.pop(column["name"], None)
        if field is None:
            wrong.append(f"column {column['name']!r} is missing")
        elif _SAME.get(field.field_type, field.field_type) != column["type"] or field.mode == "REPEATED":
            wrong.append(f"column {field.name!r} is {field.field_type} {field.mode}, not {column['type']}")
        elif field.mode == "REQUIRED" and column["mode"] == "NULLABLE":
            wrong.append(f"column {field.name!r} is REQUIRED, and can be null")
    return wrong + [f"column {name!r} is REQUIRED and unknown" for name, field in have.items() if field.mode == "REQUIRED"]


class _Asking:
    """Turns what a service answers about ``--flag value`` into one line, and lets a missing right to look pass."""

    def __init__(self, flag: str, value: str, way_out: str):
        self._about = f"--{flag} {value!r}"
        self._way_out = way_out

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, api.NotFound):
            raise UsageError(f"{self._about} does not exist; {self._way_out}") from None
        if isinstance(error, api.Forbidden):
            _LOGGER.warning("%s could not be checked, this account may not look at it: %s", self._about, error.message)
            return True
        if isinstance(error, (api.GoogleAPICallError, api.RetryError, OSError)):
            words = " ".join(str(getattr(error, "message", error)).split())
            raise UsageError(f"{self._about} cannot be reached: {words}") from None
        if isinstance(error, GoogleAuthError):
            raise UsageError(f"{self._about}: no credentials ({' '.join(str(error).split())}); run: gcloud auth "
                             "application-default login") from None
        return False
