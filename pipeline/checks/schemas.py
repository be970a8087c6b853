"""The schema of the input's topic, if it has one: that it can be read, and goes with ``--input_format``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from google.api_core import exceptions as api
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient
from google.pubsub_v1.types import Encoding, SchemaSettings
from google.pubsub_v1.types import Schema as PubsubSchema

from pipeline import clients
from pipeline.checks.finding import Finding, Wrong, asking, flag
from pipeline.checks.resources import TIMEOUT_S
from pipeline.options import Settings
from transforms.envelopes import KINDS
from transforms.envelopes.schemas import Schema, fault

_DELETED = "_deleted-schema_"


def check(settings: Settings) -> Iterator[Finding]:
    """Nothing for a topic without a schema, whose messages need none."""
    settings_of_topic = of_topic(settings)
    if settings_of_topic is None:
        return
    schema = settings_of_topic.schema
    if not schema:
        if settings.input_format in ("avro", "protobuf"):
            found = "reads messages of a topic with a schema, and the subscription's topic has none"
            yield Finding(False, flag("input_format", settings.input_format), found, "use --input_format=auto")
        return
    subject = f"schema {schema!r} of the input's topic"
    if schema == _DELETED:
        yield Finding(False, subject, "was deleted: nothing can be published to it", "give the topic another schema")
        return
    try:
        yield _schema(subject, settings_of_topic, settings)
    except Wrong as wrong:
        # On this machine the job asks with the very credentials that were refused.
        way_out = "grant roles/pubsub.viewer on the schema, which has pubsub.schemas.get"
        refused = wrong.finding.ok is None and settings.local
        yield replace(wrong.finding, ok=False, way_out=way_out) if refused else wrong.finding


def of_topic(settings: Settings) -> SchemaSettings | None:
    """The schema settings of the input's topic; None where they cannot be seen, which a job need not be able to."""
    with contextlib.suppress(*clients.API_ERRORS):
        subscription = clients.pubsub(SubscriberClient).get_subscription(
            subscription=settings.input_subscription, retry=None, timeout=TIMEOUT_S
        )
        topic = clients.pubsub(PublisherClient).get_topic(topic=subscription.topic, retry=None, timeout=TIMEOUT_S)
        found: SchemaSettings = topic.schema_settings
        return found
    return None


def _schema(subject: str, topic: SchemaSettings, settings: Settings) -> Finding:
    with asking(subject, "give the topic another schema", "Pub/Sub"):
        request = {"name": topic.schema, "view": "FULL"}
        client = clients.pubsub(SchemaServiceClient)
        try:
            found = client.get_schema(request=request, retry=None, timeout=TIMEOUT_S)
        except api.InvalidArgument as error:
            return Finding(False, subject, f"cannot be asked for: {clients.words(error)}")
    schema = Schema(PubsubSchema.Type(found.type_).name, found.definition)
    wanted = settings.input_format
    if wanted in KINDS and schema.kind not in KINDS[wanted]:
        way_out = f"use --input_format={'avro' if schema.kind == 'AVRO' else 'protobuf'}, or auto"
        return Finding(False, subject, f"is {schema.kind}, which --input_format {wanted!r} does not read", way_out)
    if wanted not in KINDS and topic.encoding == Encoding.BINARY:
        found = f"has messages in BINARY, which --input_format {wanted!r} takes for text"
        return Finding(False, subject, found, "use --input_format=auto")
    if why := fault(schema):
        return Finding(False, subject, f"has a definition that cannot be used: {why}")
    return Finding(True, subject, f"is {schema.kind}, and can be read")
