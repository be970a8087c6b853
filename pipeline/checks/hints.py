"""Ways out that make or reach what is missing: on Google Cloud, or on the emulators where they are what is used."""

from __future__ import annotations

import os

from pipeline.matchers import TableName
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD

#: Services by what points clients to an emulator of it.
EMULATORS = {"Pub/Sub": "PUBSUB_EMULATOR_HOST", "BigQuery": "BIGQUERY_EMULATOR_HOST"}
_HOSTS = {
    "Pub/Sub": "pubsub.googleapis.com",
    "BigQuery": "bigquery.googleapis.com",
    "Cloud Storage": "storage.googleapis.com",
}


def emulator(service: str) -> str | None:
    """The address of the emulator that ``service`` is asked on, if it is."""
    return os.environ.get(EMULATORS.get(service, "")) or None


def reach(service: str) -> str:
    """The way out where ``service`` does not answer."""
    if emulator(service):
        return f"start `beam-hf-inference emulators`, or unset {EMULATORS[service]}"
    host = _HOSTS.get(service, "googleapis.com")
    return f"let this machine reach https://{host} (network, proxy, DNS), and try again"


def make_topic(flag: str, topic: str) -> str:
    """The command that makes ``topic``, which ``--flag`` names."""
    if emulator("Pub/Sub"):
        return f"create it with: beam-hf-inference emulators create --{flag}={topic}"
    return f"create it with: gcloud pubsub topics create {topic}"


def make_subscription(flag: str, subscription: str, topic: str) -> str:
    """The command that makes ``subscription`` of ``topic``, which may be a placeholder."""
    if emulator("Pub/Sub"):
        given = "" if topic.isupper() else f" --topic={topic}"
        return f"create it with: beam-hf-inference emulators create --{flag}={subscription}{given}"
    return f"create it with: gcloud pubsub subscriptions create {subscription} --topic={topic}"


def make_table(name: TableName) -> str:
    """The command that makes the audit table."""
    if emulator("BigQuery"):
        return f"create it with: beam-hf-inference emulators create --audit_table={_given(name)}"
    return f"create it with: {create_table(name)}"


def create_table(name: TableName) -> str:
    """What BigQuery's own tool makes the audit table with."""
    return (
        "python -m transforms.records > audit_schema.json && bq mk --table "
        f"--time_partitioning_field={AUDIT_PARTITION_FIELD} --clustering_fields={','.join(AUDIT_CLUSTERING)} "
        f"{_given(name)} audit_schema.json"
    )


def make_dataset(flag: str, name: TableName) -> str:
    """The command that makes the dataset of ``name``, which ``--flag`` names, and what is in it."""
    if emulator("BigQuery"):
        return f"create it with: beam-hf-inference emulators create --{flag}={_given(name)}"
    table = f" && {create_table(name)}" if flag == "audit_table" else ""
    return f"create it with: bq mk --dataset {name.project}:{name.dataset}{table}"


def ask(sql: str) -> str:
    """The command that runs ``sql``."""
    address = emulator("BigQuery")
    return f"run: bq {f'--api={address} ' if address else ''}query --use_legacy_sql=false '{sql}'"


def log_in() -> str:
    """The way out where credentials are missing or are not taken any more."""
    key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    login = "run: gcloud auth application-default login"
    if not key:
        return login
    if "{" in key:
        return "point GOOGLE_APPLICATION_CREDENTIALS to a file with the key: it has the key itself"
    return f"point GOOGLE_APPLICATION_CREDENTIALS ({key!r}) to a key that is valid, or unset it and {login}"


def _given(name: TableName) -> str:
    return f"{name.project}:{name.dataset}.{name.table}"
