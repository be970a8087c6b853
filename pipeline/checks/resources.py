"""Topics, subscription and audit table: that they exist, are not crossed, and are fit for the job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from google.api_core import exceptions as api
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import Subscription

from pipeline import clients
from pipeline.checks import hints
from pipeline.checks.finding import Finding, Wrong, asking, flag
from pipeline.matchers import TableName
from pipeline.options import Settings
from transforms.records import AUDIT_SCHEMA
from transforms.summary_row import SUMMARY_SCHEMA

TIMEOUT_S = 20.0

#: A lease shorter than this runs out while a model is still loading.
LEAST_ACK_DEADLINE_S = 30

#: A bundle that fails is delivered again, which counts as a delivery of every message in it.
LEAST_DELIVERY_ATTEMPTS = 10


def check(settings: Settings) -> Iterator[Finding]:
    """Everything that the flags name, in the order of the flow."""
    for check in (_subscription, _output_topic, _dead_letter_topic, _table, _summary_topic, _summary_table):
        try:
            yield from check(settings)
        except Wrong as wrong:
            yield wrong.finding


def _output_topic(settings: Settings) -> Iterator[Finding]:
    return _topic("output_topic", settings.output_topic)


def _dead_letter_topic(settings: Settings) -> Iterator[Finding]:
    return _topic("dead_letter_topic", settings.dead_letter_topic)


def _topic(name: str, topic: str) -> Iterator[Finding]:
    subject = flag(name, topic)
    with asking(subject, hints.make_topic(name, topic), "Pub/Sub"):
        clients.pubsub(PublisherClient).get_topic(topic=topic, retry=None, timeout=TIMEOUT_S)
    if _is_read(topic):
        yield Finding(True, subject, "exists")
        return
    way_out = hints.make_subscription(name, topic.replace("/topics/", "/subscriptions/"), topic)
    if hints.emulator("Pub/Sub"):
        way_out = hints.make_topic(name, topic)
    yield Finding(None, subject, "has no subscription: what the job publishes to it is gone", way_out)


def _is_read(topic: str) -> bool:
    """Whether a subscription reads ``topic``, or that cannot be told."""
    try:
        found = clients.pubsub(PublisherClient).list_topic_subscriptions(topic=topic, retry=None, timeout=TIMEOUT_S)
        return any(True for _ in found)
    except clients.API_ERRORS:
        return True


def _subscription(settings: Settings) -> Iterator[Finding]:
    name = settings.input_subscription
    subject = flag("input_subscription", name)
    with asking(subject, hints.make_subscription("input_subscription", name, "TOPIC"), "Pub/Sub"):
        found = clients.pubsub(SubscriberClient).get_subscription(subscription=name, retry=None, timeout=TIMEOUT_S)
    wrong = list(wrong_settings(found, settings))
    yield from (Finding(False, subject, words, way_out) for words, way_out in wrong)
    if not wrong:
        yield Finding(True, subject, f"reads {found.topic}, {found.ack_deadline_seconds} s to acknowledge")


def wrong_settings(found: Subscription, settings: Settings) -> Iterator[tuple[str, str]]:
    """What about the subscription would harm the job, each with the way out."""
    update = f"run: gcloud pubsub subscriptions update {found.name}"
    ours = (settings.output_topic, settings.dead_letter_topic, settings.summary_topic)
    if found.topic in ours:
        yield f"reads {found.topic!r}, which the job writes: an endless loop", "use the subscription of another topic"
    if found.topic == "_deleted-topic_":
        yield "lost its topic, and gets no messages any more", "create it anew on a topic that exists"
    if found.push_config.push_endpoint:
        yield f"pushes to {found.push_config.push_endpoint!r}; the job pulls", f"{update} --push-endpoint=''"
    written = found.bigquery_config.table or found.cloud_storage_config.bucket
    if written:
        yield f"writes to {written!r}; the job pulls", "use a subscription that is pulled"
    if found.detached:
        yield "is detached from its topic, and gets no messages any more", "create it anew"
    if found.enable_message_ordering and not settings.local:
        yield (
            "keeps the order of ordering keys, which Dataflow does not",
            "use a subscription without --enable-message-ordering, or --runner=DirectRunner",
        )
    if found.enable_exactly_once_delivery and not settings.local:
        yield (
            "has exactly-once delivery, with which Dataflow stalls; it deduplicates by itself",
            f"{update} --no-enable-exactly-once-delivery",
        )
    if found.ack_deadline_seconds < LEAST_ACK_DEADLINE_S:
        yield (
            f"gives {found.ack_deadline_seconds} s to acknowledge, less than a model takes to load",
            f"{update} --ack-deadline=600",
        )
    # https://cloud.google.com/dataflow/docs/concepts/streaming-with-cloud-pubsub#unsupported-features
    if found.retry_policy and not settings.local:
        yield "has a retry policy, which Dataflow does not support", f"{update} --clear-retry-policy"
    policy = found.dead_letter_policy
    if policy.dead_letter_topic and not settings.local:
        yield (
            f"has a dead-letter policy (to {policy.dead_letter_topic!r}), which Dataflow does not support: it "
            "acknowledges before it works, and what is delivered again did not fail",
            f"{update} --clear-dead-letter-policy; what fails goes to --dead_letter_topic",
        )
    elif policy.dead_letter_topic in (*ours, found.topic):
        yield (
            f"sends what it gives up on to {policy.dead_letter_topic!r}, which is the job's own",
            f"{update} --dead-letter-topic=ANOTHER_TOPIC",
        )
    elif policy.dead_letter_topic and policy.max_delivery_attempts < LEAST_DELIVERY_ATTEMPTS:
        yield (
            f"gives up after {policy.max_delivery_attempts} deliveries, and a retried bundle counts for all in it",
            f"{update} --max-delivery-attempts=100",
        )


def _table(settings: Settings) -> Iterator[Finding]:
    name = settings.audit_table
    if name is None:
        return
    subject = flag("audit_table", name)
    with asking(subject, hints.make_table(name), "BigQuery"), _in_dataset("audit_table", name):
        table = clients.bigquery_client(name.project).get_table(str(name), retry=clients.ONCE, timeout=TIMEOUT_S)
    _check_kind(subject, table)
    wrong = schema_differences(table.schema)
    if wrong:
        yield Finding(False, subject, f"has another schema: {'; '.join(wrong)}", mend_table_command(name, table.schema))
    else:
        yield Finding(True, subject, f"has all {len(AUDIT_SCHEMA)} columns")


def _summary_topic(settings: Settings) -> Iterator[Finding]:
    return _topic("summary_topic", settings.summary_topic) if settings.summary_topic else iter(())


def _summary_table(settings: Settings) -> Iterator[Finding]:
    name = settings.summary_table
    if name is None:
        return
    subject = flag("summary_table", name)
    with asking(subject, "", "BigQuery"), _in_dataset("summary_table", name):
        client = clients.bigquery_client(name.project)
        try:
            table = client.get_table(str(name), retry=clients.ONCE, timeout=TIMEOUT_S)
        except api.NotFound:
            client.get_dataset(f"{name.project}.{name.dataset}", retry=clients.ONCE, timeout=TIMEOUT_S)
            yield Finding(True, subject, "is made by the job")
            return
    _check_kind(subject, table)
    wrong = schema_differences(table.schema, SUMMARY_SCHEMA)
    if wrong:
        way_out = f"use a new table, or run: bq rm --table {name.project}:{name.dataset}.{name.table}"
        yield Finding(False, subject, f"has another schema: {'; '.join(wrong)}", way_out)
    else:
        yield Finding(True, subject, f"has all {len(SUMMARY_SCHEMA)} columns")


def _check_kind(subject: str, table: bigquery.Table) -> None:
    """Raises :class:`Wrong` where ``table`` is one in name only: a view, say, has the columns, and takes no rows."""
    kind = table.table_type or "TABLE"
    if kind != "TABLE":
        raise Wrong(Finding(False, subject, f"is a {kind}, which takes no rows", "name the table itself"))


@contextlib.contextmanager
def _in_dataset(flag_name: str, name: TableName) -> Iterator[None]:
    """A dataset that is missing is another cause than a table that is, and is told once for all its tables."""
    try:
        yield
    except api.NotFound as error:
        if "Not found: Dataset" not in str(error):
            raise
        subject, cause = flag(flag_name, name), f"dataset {name.project}.{name.dataset}"
        way_out = hints.make_dataset(flag_name, name)
        found = f"is in dataset {name.project}:{name.dataset}, which does not exist"
        raise Wrong(Finding(False, subject, found, way_out, cause)) from None


#: The service answers some types with their newer names.
_SAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_SQL = {old: new for new, old in _SAME.items()}


def schema_differences(schema: list[bigquery.SchemaField], ours: Sequence[dict[str, str]] = AUDIT_SCHEMA) -> list[str]:
    """How ``schema`` differs from ``ours``: missing columns, other types, required columns that no row has."""
    have = {field.name: field for field in schema}
    wrong = []
    for column in ours:
        field = have.pop(column["name"], None)
        if field is None:
            wrong.append(f"column {column['name']!r} is missing")
        elif _other_type(field, column):
            wrong.append(f"column {field.name!r} is {field.field_type} {field.mode}, not {column['type']}")
        elif field.mode == "REQUIRED" and column["mode"] == "NULLABLE":
            wrong.append(f"column {field.name!r} is REQUIRED, and can be null")
    return wrong + [
        f"column {name!r} is REQUIRED and unknown" for name, field in have.items() if field.mode == "REQUIRED"
    ]


def _other_type(field: bigquery.SchemaField, column: dict[str, str]) -> bool:
    return _SAME.get(field.field_type, field.field_type) != column["type"] or field.mode == "REPEATED"


def mend_table_command(name: TableName, schema: list[bigquery.SchemaField]) -> str:
    """The command that gives the table with ``schema`` our columns; a column's type cannot be changed in place."""
    have, ours = {field.name: field for field in schema}, {column["name"]: column for column in AUDIT_SCHEMA}
    if any(_other_type(have[column], ours[column]) for column in have.keys() & ours.keys()):
        return f"use a new table: {hints.create_table(name)}"
    changes = [f"ADD COLUMN {c} {_SQL.get(ours[c]['type'], ours[c]['type'])}" for c in ours if c not in have]
    changes += [
        f"ALTER COLUMN {field.name} DROP NOT NULL"
        for field in schema
        if field.mode == "REQUIRED" and ours.get(field.name, {"mode": "NULLABLE"})["mode"] == "NULLABLE"
    ]
    return hints.ask(f"ALTER TABLE `{name}` {', '.join(changes)}")
