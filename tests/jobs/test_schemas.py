"""Schemas over the embedded servers: definitions are asked for once, waited for, and looked at before a launch."""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import schema_messages as sm
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, types
from streams import collect, drain, fresh, job

from pipeline import clients, io, preflight, schemas
from pipeline.checks import permissions
from pipeline.checks import schemas as checks
from pipeline.emulators.process import spawn
from pipeline.emulators.setup import Resources
from pipeline.flags import UsageError
from pipeline.options import Settings
from pipeline.options import parse as parse_flags
from pipeline.publish import publish_all as publish
from transforms.body import Unreadable
from transforms.decode import InvalidBody, decode
from transforms.envelopes.schemas import SchemaUnavailable
from transforms.records import Message

PARENT = "projects/my-project"
AVRO, PROTOBUF = types.Schema.Type.AVRO, types.Schema.Type.PROTOCOL_BUFFER
JSON, BINARY = types.Encoding.JSON, types.Encoding.BINARY


def create(kind: types.Schema.Type, definition: Any) -> types.Schema:
    text = definition if isinstance(definition, str) else json.dumps(definition)
    schema = types.Schema(type_=kind, definition=text)
    name = f"ticket-{uuid.uuid4().hex[:8]}"
    return clients.pubsub(SchemaServiceClient).create_schema(parent=PARENT, schema=schema, schema_id=name)


def marks(schema: types.Schema, encoding: str) -> dict[str, str]:
    return sm.attributes(encoding, schema.name, schema.revision_id)


def read(schema: types.Schema, body: bytes, encoding: str = "BINARY") -> Any:
    """What the job's own Decode makes of a message."""
    settings = Settings("s", "o", "d")
    return decode(Message(body, marks(schema, encoding)), *io.reading(settings)).inputs


def test_a_job_reads_every_envelope(servers, minilm, tmp_path):
    """Schemas of both kinds in both encodings, one by its topic's stamp; events, a push; and what is none."""
    avro, proto = create(AVRO, sm.TICKET), create(PROTOBUF, sm.PROTO)
    topic = f"{PARENT}/topics/stamped-{uuid.uuid4().hex[:8]}"
    given = {"schema": avro.name, "encoding": BINARY}
    clients.pubsub(PublisherClient).create_topic(request={"name": topic, "schema_settings": given})
    event = {"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data": {"inputs": "hi"}}
    good = [
        Message(sm.avro({"inputs": "hi"}), marks(avro, "BINARY")),
        Message(b'{"inputs": "hi", "picture": null}', marks(avro, "JSON")),
        Message(b"\x0a\x02hi", marks(proto, "BINARY")),
        Message(b'{"inputs": "hi"}', marks(proto, "JSON")),
        Message(json.dumps(event).encode(), {"content-type": "application/cloudevents+json"}),
        Message(b'{"message": {"data": "eyJpbnB1dHMiOiAiaGkifQ=="}, "subscription": "projects/p/subscriptions/s"}'),
    ]
    bad = [
        Message(b"\x02", marks(avro, "BINARY")),
        Message(b"\x0a\x02hi", sm.attributes("BINARY", f"{PARENT}/schemas/nobody")),
        Message(b"\x0a\x02hi", {**marks(proto, "BINARY"), "googclient_schemarevisionid": "00000000"}),
    ]
    resources = fresh("schemas")
    good_ids, bad_ids = publish(resources.input_topic, good), publish(resources.input_topic, bad)
    with job(resources, f"--model={minilm}", "--task=feature-extraction", log=tmp_path / "log") as process:
        ledger = collect(resources, len(good) + len(bad))
        later_ids = publish(resources.input_topic, later := _revised(avro))
        after = collect(resources, len(later))
        assert drain(process) == 0, (tmp_path / "log").read_text()
    assert {m.attributes["message_id"] for m in ledger.results} == set(good_ids)
    assert len({json.dumps(json.loads(m.data)["prediction"]) for m in ledger.results}) == 1
    assert not [key for m in ledger.results for key in m.attributes if key.startswith("googclient_")]
    letters = {m.attributes["dead_letter_message_id"]: m for m in ledger.dead_letters}
    assert list(letters) and set(letters) == set(bad_ids)
    for message_id, message in zip(bad_ids, bad, strict=True):
        letter = letters[message_id]
        name = f"{message.attributes[sm.NAME]}@{message.attributes[sm.REVISION]}"
        assert name in letter.attributes["dead_letter_error"] and letter.data == message.data
        assert letter.attributes["dead_letter_stage"] == "decode"
        assert message.attributes.items() <= letter.attributes.items()
    # Revisions that came, and one that went, while the job ran: each message by its own.
    assert {m.attributes["message_id"] for m in after.results} == set(later_ids[:2])
    (letter,) = after.dead_letters
    assert letter.attributes["dead_letter_message_id"] == later_ids[2]
    assert f"{avro.name}@{later[2].attributes[sm.REVISION]}" in letter.attributes["dead_letter_error"]


def _revised(schema: types.Schema) -> list[Message]:
    """Messages of ``schema``, of a newer revision, and of one that is deleted again."""
    wider = {**sm.TICKET, "fields": [{"name": "lang", "type": "string"}, *sm.TICKET["fields"]]}
    client = clients.pubsub(SchemaServiceClient)
    change = types.Schema(name=schema.name, type_=AVRO, definition=json.dumps(wider))
    newer, gone = (client.commit_schema(name=schema.name, schema=change) for _ in range(2))
    client.delete_schema_revision(name=f"{schema.name}@{gone.revision_id}")
    body = sm.avro({"lang": "en", "inputs": "hi"}, wider)
    old = Message(sm.avro({"inputs": "hi"}), marks(schema, "BINARY"))
    return [old, Message(body, marks(newer, "BINARY")), Message(body, marks(gone, "BINARY"))]


def test_a_definition_is_asked_for_once_a_revision(servers):
    """Each revision reads its own messages; one request a revision, and the newest where none is named."""
    schema = create(AVRO, sm.TICKET)
    wider = {**sm.TICKET, "fields": [{"name": "lang", "type": "string"}, *sm.TICKET["fields"]]}
    change = types.Schema(name=schema.name, type_=AVRO, definition=json.dumps(wider))
    newer = clients.pubsub(SchemaServiceClient).commit_schema(name=schema.name, schema=change)
    before = schemas._asked.cache_info().misses
    for _ in range(20):
        assert read(schema, sm.avro({"inputs": "old"})) == "old"
        assert read(newer, sm.avro({"lang": "en", "inputs": "new"}, wider)) == "new"
    assert schemas._asked.cache_info().misses == before + 2
    unnamed = types.Schema(name=schema.name)
    assert read(unnamed, sm.avro({"lang": "en", "inputs": "new"}, wider)) == "new"
    with pytest.raises(InvalidBody, match=f"{schema.name}@{schema.revision_id}"):
        read(schema, sm.avro({"lang": "en", "inputs": "new"}, wider)[:-3])


def test_a_schema_that_is_not_there_is_named_once(servers):
    """A flood of messages of it asks once a minute, and is no reason to stop."""
    before = schemas._asked.cache_info().misses
    for _ in range(20):
        with pytest.raises(Unreadable, match="schemas/nobody@12345678' cannot be had"):
            schemas.definition(f"{PARENT}/schemas/nobody@12345678")
    assert schemas._asked.cache_info().misses <= before + 2


def test_an_outage_of_the_schema_service_is_waited_for(servers, tmp_path, monkeypatch):
    """No message is blamed: it is read once the service is back, and fails the bundle if that takes too long."""
    state = str(tmp_path / "pubsub")
    with spawn("pipeline.emulators.pubsub", "--port", "0", "--state", state) as first:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", first.address)
        clients.pubsub.cache_clear()
        schema = create(AVRO, sm.TICKET)
    body = sm.avro({"inputs": "hi"})
    try:
        with monkeypatch.context() as patch:
            patch.setattr(clients, "PATIENCE_S", 0.5)
            with pytest.raises(SchemaUnavailable, match=schema.name):
                read(schema, body)
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.append(read(schema, body)))
        reader.start()
        port = first.address.rpartition(":")[2]
        with spawn("pipeline.emulators.pubsub", "--port", port, "--state", state):
            reader.join(120)
        assert found == ["hi"]
    finally:
        clients.pubsub.cache_clear()


@pytest.fixture
def stamped(servers) -> Callable[..., Resources]:
    """Resources whose input is a topic with a schema."""

    def make(kind: types.Schema.Type, definition: Any, encoding: types.Encoding) -> Resources:
        resources, schema = fresh("stamped"), create(kind, definition)
        topic = f"{resources.input_topic}-with-schema"
        given = {"schema": schema.name, "encoding": encoding}
        clients.pubsub(PublisherClient).create_topic(request={"name": topic, "schema_settings": given})
        subscription = f"{resources.input_subscription}-with-schema"
        from pipeline.emulators import setup

        setup.create_topic(topic, subscription)
        return dataclasses.replace(resources, input_topic=topic, input_subscription=subscription)

    return make


def settings(resources: Resources, *flags: str) -> Settings:
    return parse_flags([*resources.flags(), "--model=m", *flags])[0]


def test_a_launch_looks_at_the_schema(stamped):
    """Which formats go with a topic's schema and encoding; the others are one line with the way out."""
    avro, proto = stamped(AVRO, sm.TICKET, BINARY), stamped(PROTOBUF, sm.PROTO, JSON)
    for resources, fine, wrong in (
        (avro, ("auto", "avro"), {"protobuf": "use --input_format=avro", "json": "=auto", "cloudevents": "=auto"}),
        (proto, ("auto", "protobuf", "json", "cloudevents"), {"avro": "use --input_format=protobuf"}),
        (fresh("plain"), ("auto", "json", "cloudevents"), {"avro": "=auto", "protobuf": "=auto"}),
    ):
        for form in fine:
            preflight.check(settings(resources, f"--input_format={form}"))
        for form, way_out in wrong.items():
            with pytest.raises(UsageError, match=way_out) as caught:
                preflight.check(settings(resources, f"--input_format={form}"))
            assert repr(form) in str(caught.value)
    (finding,) = checks.check(settings(avro))
    assert finding.ok and "is AVRO, and can be read" in str(finding)


def test_a_deleted_schema_is_told(stamped):
    """Before the job waits for messages that nobody can publish."""
    resources = stamped(AVRO, sm.TICKET, BINARY)
    schema = checks.of_topic(settings(resources)).schema
    clients.pubsub(SchemaServiceClient).delete_schema(name=schema)
    with pytest.raises(UsageError, match="was deleted"):
        preflight.check(settings(resources))


def test_the_doctor_asks_for_the_right_to_read_the_schema(stamped):
    """pubsub.schemas.get on the one schema, where there is one."""
    resources = stamped(AVRO, sm.TICKET, BINARY)
    given, options = parse_flags([*resources.flags(), "--model=m"])
    subjects = {finding.subject for finding in permissions.check(given, options)}
    assert f"schema {checks.of_topic(given).schema!r}" in subjects
    needs = {need.subject: need for need in permissions._needs(given, options)}
    assert needs[f"schema {checks.of_topic(given).schema!r}"].permissions == ["pubsub.schemas.get"]
