"""What these credentials may do with each resource, asked of the resource itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient

from pipeline import clients
from pipeline.checks import cloud, schemas
from pipeline.checks.finding import Finding, Wrong, asking, flag
from pipeline.checks.resources import TIMEOUT_S
from pipeline.options import Settings

_SERVICES = {
    "bigquery": "BigQuery",
    "pubsub": "Pub/Sub",
    "secretmanager": "Secret Manager",
    "storage": "Cloud Storage",
}
_Ask = Callable[[list[str]], Collection[str]]


@dataclass(frozen=True, slots=True)
class _Need:
    """Permissions on one resource, the role that has them, and the command that grants it, but for member and role."""

    subject: str
    permissions: Collection[str]
    role: str
    grant: str
    ask: _Ask

    @property
    def service(self) -> str:
        """What is asked, by the name of its role."""
        return _SERVICES[self.role.removeprefix("roles/").partition(".")[0]]


def check(settings: Settings, options: PipelineOptions) -> Iterator[Finding]:
    """A finding for each resource."""
    for need in _needs(settings, options):
        try:
            with asking(need.subject, "", need.service):
                granted = need.ask(list(need.permissions))
        except Wrong as wrong:
            # That it is missing or cannot be reached was told by the look at the resource itself, of the same cause.
            found = f"does not say what is allowed: it {wrong.finding.found}"
            yield replace(wrong.finding, ok=None, subject=need.subject, found=found, way_out="")
            continue
        lacking = sorted(set(need.permissions) - set(granted))
        if lacking:
            way_out = f"run: {need.grant} --member=MEMBER --role={need.role}"
            yield Finding(False, need.subject, f"{' and '.join(lacking)} not allowed", way_out)
        else:
            yield Finding(True, need.subject, f"{' and '.join(need.permissions)} allowed")


def _needs(settings: Settings, options: PipelineOptions) -> Iterator[_Need]:
    subscription = settings.input_subscription
    yield _Need(
        flag("input_subscription", subscription),
        ["pubsub.subscriptions.consume"],
        "roles/pubsub.subscriber",
        f"gcloud pubsub subscriptions add-iam-policy-binding {subscription}",
        _pubsub(SubscriberClient, subscription),
    )
    schema = schemas.of_topic(settings)
    if schema and schema.schema.startswith("projects/"):
        yield _Need(
            f"schema {schema.schema!r}",
            ["pubsub.schemas.get"],
            "roles/pubsub.viewer",
            f"gcloud projects add-iam-policy-binding {schema.schema.split('/')[1]}",
            _pubsub(SchemaServiceClient, schema.schema),
        )
    for name in ("output_topic", "dead_letter_topic", "summary_topic"):
        topic = getattr(settings, name)
        if topic is None:
            continue
        yield _Need(
            flag(name, topic),
            ["pubsub.topics.publish"],
            "roles/pubsub.publisher",
            f"gcloud pubsub topics add-iam-policy-binding {topic}",
            _pubsub(PublisherClient, topic),
        )
    for name in ("audit_table", "summary_table"):
        table = getattr(settings, name)
        if table is None:
            continue
        yield _Need(
            flag(name, table),
            ["bigquery.tables.get", "bigquery.tables.updateData"],
            "roles/bigquery.dataEditor",
            f"bq add-iam-policy-binding {table.project}:{table.dataset}.{table.table}",
            _table(str(table), table.project),
        )
    if settings.hf_token_source and settings.hf_token_source.startswith("secret:"):
        secret = settings.hf_token_source.removeprefix("secret:").rpartition("/versions/")[0]
        yield _Need(
            flag("hf_token_source", settings.hf_token_source),
            ["secretmanager.versions.access"],
            "roles/secretmanager.secretAccessor",
            f"gcloud secrets add-iam-policy-binding {secret}",
            _secret(secret),
        )
    for name, bucket in cloud.buckets(options):
        yield _Need(
            flag(name, f"gs://{bucket}"),
            ["storage.buckets.get", "storage.objects.create", "storage.objects.get"],
            "roles/storage.objectUser (and roles/storage.legacyBucketReader)",
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket}",
            _bucket(bucket, getattr(options.view_as(GoogleCloudOptions), name)),
        )


def _pubsub(kind: type[PublisherClient | SchemaServiceClient | SubscriberClient], resource: str) -> _Ask:
    def ask(permissions: list[str]) -> Collection[str]:
        request = TestIamPermissionsRequest(resource=resource, permissions=permissions)
        answer = clients.pubsub(kind).test_iam_permissions(request, retry=None, timeout=TIMEOUT_S)
        return list(answer.permissions)

    return ask


def _table(table: str, project: str) -> _Ask:
    def ask(permissions: list[str]) -> Collection[str]:
        client = clients.bigquery_client(project)
        reference = bigquery.TableReference.from_string(table)
        answer = client.test_iam_permissions(reference, permissions, retry=clients.ONCE, timeout=TIMEOUT_S)
        return list(answer.get("permissions", []))

    return ask


def _secret(secret: str) -> _Ask:
    def ask(permissions: list[str]) -> Collection[str]:
        # Imported here: few jobs have a secret, and the client takes a second to import.
        from google.cloud.secretmanager import SecretManagerServiceClient

        request = TestIamPermissionsRequest(resource=secret, permissions=permissions)
        answer = SecretManagerServiceClient().test_iam_permissions(request, retry=None, timeout=TIMEOUT_S)
        return list(answer.permissions)

    return ask


def _bucket(bucket: str, location: str) -> _Ask:
    def ask(permissions: list[str]) -> Collection[str]:
        handle: Any = cloud.storage_client().bucket(bucket)
        granted = set(handle.test_iam_permissions(permissions, timeout=TIMEOUT_S))
        # Rights on one folder only, as templates/terraform grants them, are none of the bucket's: they are told by use.
        blob = handle.blob(f"{location.removeprefix(f'gs://{bucket}').strip('/')}/doctor".lstrip("/"))
        # An upload that is begun and never sent leaves no object.
        uses: dict[str, Callable[[], object]] = {
            "storage.objects.create": lambda: blob.create_resumable_upload_session(size=0, timeout=TIMEOUT_S),
            "storage.objects.get": lambda: blob.exists(timeout=TIMEOUT_S, retry=None),
        }
        for permission, use in uses.items():
            if permission in permissions and permission not in granted:
                with contextlib.suppress(api.Forbidden):
                    use()
                    granted.add(permission)
        return granted

    return ask
