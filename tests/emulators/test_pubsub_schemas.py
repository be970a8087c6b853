"""Schemas of the embedded Pub/Sub: definitions, their revisions, and topics that take only what fits them."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from google.api_core import exceptions
from google.pubsub_v1 import SchemaServiceClient, types
from hypothesis import given, settings
from hypothesis import strategies as st
from pubsub_emulators import PROJECT, Cloud, bodies, fresh_id

from pipeline.emulators import pubsub

PARENT = f"projects/{PROJECT}"
AVRO, PROTOBUF = types.Schema.Type.AVRO, types.Schema.Type.PROTOCOL_BUFFER
JSON, BINARY = types.Encoding.JSON, types.Encoding.BINARY
TICKET: dict[str, Any] = {
    "type": "record",
    "name": "Ticket",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "priority", "type": ["null", "int"], "default": None},
    ],
}
PROTO = 'syntax = "proto3"; message Ticket { string text = 1; optional int32 priority = 2; }'


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with pubsub.start() as server:
        yield Cloud("embedded", server.address)


@pytest.fixture(scope="module")
def schemas(cloud: Cloud) -> SchemaServiceClient:
    return client_of(cloud)


def client_of(cloud: Cloud) -> SchemaServiceClient:
    with cloud.environment():
        return SchemaServiceClient()


def create(schemas: SchemaServiceClient, type_: types.Schema.Type, definition: Any) -> types.Schema:
    text = definition if isinstance(definition, str) else json.dumps(definition)
    schema = types.Schema(type_=type_, definition=text)
    return schemas.create_schema(parent=PARENT, schema=schema, schema_id=fresh_id("schema"))


def topic_of(cloud: Cloud, schema: str, encoding: types.Encoding, **bounds: str) -> tuple[str, str]:
    """A topic with the schema, and a subscription of it."""
    name = f"{PARENT}/topics/{fresh_id('topic')}"
    given = {"schema": schema, "encoding": encoding, **bounds}
    cloud.publisher.create_topic(request={"name": name, "schema_settings": given})
    return name, cloud.subscription(name)


def avro(record: dict[str, Any], schema: dict[str, Any] = TICKET) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), record)
    return body.getvalue()


def protobuf(text: bytes, priority: int) -> bytes:
    return b"\x0a" + bytes([len(text)]) + text + b"\x10" + bytes([priority])


_FITTING = [
    (AVRO, TICKET, BINARY, avro({"text": "hello", "priority": 3})),
    (AVRO, TICKET, JSON, b'{"text": "hello", "priority": {"int": 3}}'),
    (PROTOBUF, PROTO, BINARY, protobuf(b"hello", 3)),
    (PROTOBUF, PROTO, JSON, b'{"text": "hello", "priority": 3}'),
]


@pytest.mark.parametrize(("type_", "definition", "encoding", "body"), _FITTING, ids=range(4))
def test_a_fitting_message_says_what_it_is(
    cloud: Cloud, schemas: SchemaServiceClient, type_: Any, definition: Any, encoding: Any, body: bytes
) -> None:
    """A message arrives byte for byte, with its own attributes and the schema's name, revision and encoding."""
    schema = create(schemas, type_, definition)
    topic, subscription = topic_of(cloud, schema.name, encoding)
    cloud.publish(topic, body, attributes={"own": "kept"})
    (received,) = cloud.pull(subscription)
    assert received.message.data == body
    assert dict(received.message.attributes) == {
        "own": "kept",
        "googclient_schemaname": schema.name,
        "googclient_schemaencoding": encoding.name,
        "googclient_schemarevisionid": schema.revision_id,
    }
    found = schemas.get_schema(name=f"{schema.name}@{schema.revision_id}")
    assert (found.type_, found.definition) == (type_, schema.definition)


_UNFITTING = [
    (AVRO, TICKET, BINARY, [b"", b"\x02", avro({"text": "a", "priority": None}) + b"\0", b'{"text": "a"}']),
    (AVRO, TICKET, JSON, [b"", b"{}", b"[]", b"7", b'{"text": 7}', b'{"text": "a", "priority": 3}', b"\xff", b"{} {}"]),
    (AVRO, TICKET, JSON, [b'{"text": "a", "priority": {"int": 99999999999}}', b'{"text": "a", "priority": {}}']),
    (PROTOBUF, PROTO, BINARY, [b"\x0a\x7f", b"\xff", protobuf(b"\xff", 1)]),
    (PROTOBUF, PROTO, JSON, [b"", b"[]", b'{"text": 7}', b'{"other": 1}', b'{"priority": 99999999999}']),
]


@pytest.mark.parametrize(("type_", "definition", "encoding", "unfitting"), _UNFITTING, ids=range(5))
def test_a_message_that_does_not_fit_is_refused(
    cloud: Cloud, schemas: SchemaServiceClient, type_: Any, definition: Any, encoding: Any, unfitting: list[bytes]
) -> None:
    """One message that is none of the schema's refuses the whole request, and ValidateMessage says the same."""
    schema = create(schemas, type_, definition)
    topic, subscription = topic_of(cloud, schema.name, encoding)
    fitting = next(body for *kind, body in _FITTING if kind == [type_, definition, encoding])
    for body in unfitting:
        with pytest.raises(exceptions.InvalidArgument, match="failed schema validation"):
            cloud.publish(topic, fitting, body, attributes={"a": "b"})
        request = {"parent": PARENT, "name": schema.name, "message": body, "encoding": encoding}
        with pytest.raises(exceptions.InvalidArgument, match="failed schema validation"):
            schemas.validate_message(request=request)
    assert cloud.pull_now(subscription) == []
    schemas.validate_message(
        request={"parent": PARENT, "schema": schema, "message": fitting, "encoding": encoding},
    )


@pytest.mark.parametrize(
    ("type_", "definition"),
    [
        (AVRO, ""),
        (AVRO, "{"),
        (AVRO, "[]x"),
        (AVRO, '{"type": "nothing"}'),
        (AVRO, '{"type": "record", "fields": []}'),
        (AVRO, "7"),
        (PROTOBUF, "message {"),
        (PROTOBUF, 'syntax = "proto3";'),
        (PROTOBUF, 'syntax = "proto3"; message A {} message B {}'),
        (PROTOBUF, 'syntax = "proto3"; import "google/protobuf/any.proto"; message A { google.protobuf.Any a = 1; }'),
        (PROTOBUF, 'syntax = "proto3"; import "/etc/passwd"; message A {}'),
        (types.Schema.Type.TYPE_UNSPECIFIED, '"string"'),
    ],
)
def test_unsound_definitions_are_refused(schemas: SchemaServiceClient, type_: Any, definition: str) -> None:
    """What is no definition of its type is INVALID_ARGUMENT, by ValidateSchema and when it is to be kept."""
    with pytest.raises(exceptions.InvalidArgument, match="Invalid schema"):
        schemas.validate_schema(parent=PARENT, schema=types.Schema(type_=type_, definition=definition))
    with pytest.raises(exceptions.InvalidArgument, match="Invalid schema"):
        create(schemas, type_, definition)


def test_revisions(cloud: Cloud, schemas: SchemaServiceClient) -> None:
    """Revisions are committed, listed newest first, read, rolled back to and deleted, down to the last."""
    first = create(schemas, AVRO, TICKET)
    wider = {**TICKET, "fields": [*TICKET["fields"], {"name": "lang", "type": "string"}]}
    change = types.Schema(name=first.name, type_=AVRO, definition=json.dumps(wider))
    second = schemas.commit_schema(name=first.name, schema=change)
    assert first.revision_id != second.revision_id
    listed = list(schemas.list_schema_revisions(name=first.name))
    assert [schema.revision_id for schema in listed] == [second.revision_id, first.revision_id]
    assert {schema.definition for schema in listed} == {""}
    full = schemas.list_schema_revisions(request={"name": first.name, "view": types.SchemaView.FULL})
    assert [schema.definition for schema in full] == [second.definition, first.definition]
    assert schemas.get_schema(name=first.name).definition == second.definition
    basic = schemas.get_schema(request={"name": first.name, "view": types.SchemaView.BASIC})
    assert (basic.definition, basic.type_) == ("", AVRO)

    topic, subscription = topic_of(cloud, first.name, BINARY)
    cloud.publish(topic, avro({"text": "old"}), avro({"text": "new", "lang": "en"}, wider))
    revisions = {m.message.data: m.message.attributes["googclient_schemarevisionid"] for m in cloud.pull(subscription)}
    assert list(revisions.values()) == [first.revision_id, second.revision_id]
    bounded, _ = topic_of(cloud, first.name, BINARY, first_revision_id=second.revision_id)
    with pytest.raises(exceptions.InvalidArgument, match="failed schema validation"):
        cloud.publish(bounded, avro({"text": "old"}))

    with pytest.raises(exceptions.InvalidArgument, match="same type"):
        schemas.commit_schema(name=first.name, schema=types.Schema(type_=PROTOBUF, definition=PROTO))
    third = schemas.rollback_schema(name=first.name, revision_id=first.revision_id)
    assert third.definition == first.definition
    for revision in (first, second):
        schemas.delete_schema_revision(request={"name": f"{first.name}@{revision.revision_id}"})
    with pytest.raises(exceptions.FailedPrecondition, match="only revision"):
        schemas.delete_schema_revision(request={"name": f"{first.name}@{third.revision_id}"})
    with pytest.raises(exceptions.NotFound):
        schemas.get_schema(name=f"{first.name}@{second.revision_id}")


def test_schema_life(cloud: Cloud, schemas: SchemaServiceClient) -> None:
    """A schema is made once, listed in its project, and deleted; its topic stays and takes no more messages."""
    schema = create(schemas, AVRO, TICKET)
    with pytest.raises(exceptions.AlreadyExists):
        schemas.create_schema(parent=PARENT, schema=schema, schema_id=schema.name.rpartition("/")[2])
    assert schema.name in [found.name for found in schemas.list_schemas(parent=PARENT)]
    assert list(schemas.list_schemas(parent="projects/other-project")) == []
    topic, _ = topic_of(cloud, schema.name, JSON)
    assert cloud.publisher.get_topic(topic=topic).schema_settings.schema == schema.name
    schemas.delete_schema(name=schema.name)
    with pytest.raises(exceptions.NotFound):
        schemas.get_schema(name=schema.name)
    assert cloud.publisher.get_topic(topic=topic).schema_settings.schema == "_deleted-schema_"
    with pytest.raises(exceptions.InvalidArgument, match="schema of the topic was deleted"):
        cloud.publish(topic, b'{"text": "a"}')


def test_topics_name_a_schema_that_is_there(cloud: Cloud, schemas: SchemaServiceClient) -> None:
    """A topic's schema must exist and its encoding be given; an update gives a topic a schema, or takes it away."""
    schema = create(schemas, AVRO, TICKET)
    with pytest.raises(exceptions.NotFound):
        topic_of(cloud, f"{PARENT}/schemas/none-such", JSON)
    with pytest.raises(exceptions.InvalidArgument, match="encoding"):
        topic_of(cloud, schema.name, types.Encoding.ENCODING_UNSPECIFIED)
    with pytest.raises(exceptions.NotFound):
        topic_of(cloud, schema.name, JSON, first_revision_id="12345678")
    topic = cloud.topic()
    cloud.publish(topic, b"anything")
    change = {"name": topic, "schema_settings": {"schema": schema.name, "encoding": JSON}}
    cloud.publisher.update_topic(topic=change, update_mask={"paths": ["schema_settings"]})
    with pytest.raises(exceptions.InvalidArgument):
        cloud.publish(topic, b"anything")
    cloud.publisher.update_topic(topic={"name": topic}, update_mask={"paths": ["schema_settings"]})
    cloud.publish(topic, b"anything")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_schemas_survive(tmp_path: Path, signum: int) -> None:
    """With a state file, schemas, their revisions and the topics that have them are there after a restart."""
    with pubsub.start(state=tmp_path / "state") as server:
        cloud = Cloud("embedded", server.address)
        schema = create(client_of(cloud), AVRO, TICKET)
        second = client_of(cloud).commit_schema(name=schema.name, schema=schema)
        gone = create(client_of(cloud), AVRO, TICKET)
        topic, subscription = topic_of(cloud, schema.name, JSON)
        client_of(cloud).delete_schema(name=gone.name)
        server.process.send_signal(signum)
        server.process.wait(60)
    with pubsub.start(state=tmp_path / "state") as server:
        cloud = Cloud("embedded", server.address)
        assert [found.name for found in client_of(cloud).list_schemas(parent=PARENT)] == [schema.name]
        revisions = [found.revision_id for found in client_of(cloud).list_schema_revisions(name=schema.name)]
        assert revisions == [second.revision_id, schema.revision_id]
        with pytest.raises(exceptions.InvalidArgument):
            cloud.publish(topic, b"{}")
        cloud.publish(topic, b'{"text": "a", "priority": null}')
        assert bodies(cloud.pull(subscription)) == [b'{"text": "a", "priority": null}']


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_body_fits_or_is_refused(cloud: Cloud, schemas: SchemaServiceClient, body: Any) -> None:
    """Bytes and JSON of any shape are a message or INVALID_ARGUMENT, in every type and encoding."""
    message = body if isinstance(body, bytes) else body.encode()
    for type_, definition, encoding, _ in _FITTING[:2]:
        schema = types.Schema(type_=type_, definition=json.dumps(definition))
        request = {"parent": PARENT, "schema": schema, "message": message, "encoding": encoding}
        try:
            schemas.validate_message(request=request)
        except exceptions.InvalidArgument as error:
            assert "failed schema validation" in str(error)
