"""Messages of a topic with a schema: Avro and Protocol Buffers in both encodings, and bodies made to harm."""

from __future__ import annotations

import json
import struct
from typing import Any

import jmespath
import pytest
from google.protobuf import descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from schema_messages import PROTO, SCHEMA, TICKET, Kept, attributes, avro

from transforms.decode import InvalidBody, decode
from transforms.encode import encode
from transforms.envelopes import Opener
from transforms.envelopes.protoc import compiled
from transforms.envelopes.schemas import Schema, SchemaUnavailable
from transforms.records import Limits, Message, ModelInfo, Prediction

AVRO, PROTOBUF = Kept(TICKET), Kept(PROTO, "PROTOCOL_BUFFER")
RECORD = {"inputs": "grüß", "picture": b"\xff\0", "at": 1_700_000_000_000, "tags": {"a": [0.5, -1.0]}, "parent": None}


def value(body: bytes, source: Any, encoding: str = "BINARY", form: str = "auto", path: str = "@", **given: str) -> Any:
    """What a message of the source's schema holds, or what ``path`` picks of it."""
    message = Message(body, {**attributes(encoding), **given})
    return decode(message, jmespath.compile(path), Opener(form, source)).inputs


def proto(source: str = PROTO) -> Any:
    """The class of the message of a definition."""
    pool, file = descriptor_pool.DescriptorPool(), compiled(source)
    pool.Add(file)
    name = ".".join(filter(None, (file.package, file.message_type[0].name)))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.mark.parametrize("form", ["auto", "avro"])
def test_avro_is_read_alike_in_both_encodings(form):
    """All of a record: text, bytes, a time as its number, maps, lists, unions and the record in itself."""
    record = {**RECORD, "parent": {**RECORD, "inputs": "inner"}}
    assert value(avro(record), AVRO, form=form) == record
    inner = {"inputs": "inner", "picture": {"bytes": "\xff\0"}, "at": 1_700_000_000_000, "tags": {"a": [0.5, -1]}}
    spelt = {**inner, "inputs": "grüß", "parent": {"Ticket": {**inner, "parent": None}}}
    assert value(json.dumps(spelt).encode(), AVRO, "JSON", form) == record


@pytest.mark.parametrize("form", ["auto", "protobuf"])
def test_protobuf_is_read_alike_in_both_encodings(form):
    """Fields by the definition's names; what keeps no record of being set has its default; numbers are numbers."""
    message = proto()(inputs="grüß", picture=b"\xff\0", count=2**53 + 1, kind=1, scores=[0.5], tags={"a": 1})
    message.parent.inputs = "inner"
    bare = {"inputs": "inner", "picture": b"", "count": 0, "kind": "NONE", "scores": [], "tags": {}, "urgent": False}
    whole = {"inputs": "grüß", "picture": b"\xff\0", "count": 2**53 + 1, "kind": "REFUND", "scores": [0.5]}
    whole |= {"tags": {"a": 1}, "urgent": False, "parent": bare}
    assert value(message.SerializeToString(), PROTOBUF, form=form) == whole
    spelt = {"inputs": "grüß", "picture": "/wA=", "count": str(2**53 + 1), "kind": "REFUND", "scores": [0.5]}
    spelt |= {"tags": {"a": 1}, "parent": {"inputs": "inner"}}
    assert value(json.dumps(spelt).encode(), PROTOBUF, "JSON", form) == whole


def test_a_record_is_a_request():
    """With `inputs` and `parameters` it needs no path; bytes that a path picks are the picture themselves."""
    more = {"name": "parameters", "type": {"type": "map", "values": "int"}}
    schema = {**TICKET, "fields": [TICKET["fields"][0], more]}
    body = avro({"inputs": "hi", "parameters": {"top_k": 2}}, schema)
    request = decode(Message(body, attributes("BINARY")), None, Opener("auto", Kept(schema)))
    assert (request.inputs, request.parameters) == ("hi", {"top_k": 2})
    assert value(avro(RECORD), AVRO, path="picture") == b"\xff\0"


def test_a_result_does_not_say_that_it_is_of_the_schema():
    """A result is JSON of its own: with the input's marks the next job would read it as Avro."""
    message = Message(avro(RECORD), {**attributes("BINARY"), "own": "kept", "ce-dataschema": "x"}, "7")
    request = decode(message, jmespath.compile("inputs"), Opener("auto", AVRO))
    prediction = Prediction(request, [1], ModelInfo("task", "model", "revision", "cpu", "float32"))
    assert encode(prediction, Limits(10_000, 100, 1024)).attributes.keys() == {
        *("own", "content-type", "message_id", "task", "model", "model_revision", "schema_version")
    }


SPELT = {"inputs": "a", "picture": {"bytes": "b"}, "at": 1, "tags": {}, "parent": None}
TWO = {"null": None, "Ticket": SPELT}
WRONG = [
    (AVRO, "BINARY", [b"\x02", b"\xff" * 40, avro(RECORD) + b"\0", avro(RECORD)[:-1], b'{"inputs": "hi"}']),
    (AVRO, "JSON", [b"7", b"{}", b"[]", b"\xff", b'{"inputs": 7}', b'{"inputs": "a"} {}', b"[" * 500]),
    (PROTOBUF, "BINARY", [b"\x0a\x7f", b"\xff", b"\x0a\x01\xff", b"\x42\xff\x7f"]),
    (PROTOBUF, "JSON", [b"[]", b"7", b'{"inputs": 7}', b'{"other": 1}', b'{"count": 1e30}', b'{"picture": 7}']),
    # Of a union's value the reader takes the last member, and of base64 it drops what is none.
    (
        AVRO,
        "JSON",
        [
            json.dumps({**SPELT, "parent": parent}).encode()
            for parent in (TWO, {"Ticket": {**SPELT, "parent": TWO}}, {})
        ],
    ),
    (
        PROTOBUF,
        "JSON",
        [
            json.dumps(each).encode()
            for each in ({"picture": "/w!A="}, {"parent": {"picture": "/wA\n="}}, {"picture": "A"})
        ],
    ),
]


@pytest.mark.parametrize(("source", "encoding", "bodies"), WRONG, ids=range(6))
def test_what_does_not_fit_names_the_schema(source, encoding, bodies):
    """And its revision, kind and encoding, but nothing of the body once what a codec quotes is left out."""
    for body in bodies:
        with pytest.raises(InvalidBody) as caught:
            value(body, source, encoding)
        words = f"none of schema '{SCHEMA}@1a2b3c4d' ({source.schema.kind}, {encoding}): "
        assert words in str(caught.value) and words in caught.value.redacted()


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
NULLS = {"type": "array", "items": "null"}
EMPTY = {"type": "map", "values": {"type": "record", "name": "E", "fields": []}}
FAN = {"type": "record", "name": "R0", "fields": [{"name": n, "type": "null"} for n in "ab"]}
for step in range(1, 25):
    inner: Any = FAN
    FAN = {"type": "record", "name": f"R{step}"}
    FAN["fields"] = [{"name": "a", "type": inner}, {"name": "b", "type": f"R{step - 1}"}]
PROTO_LIST = 'syntax = "proto3"; message L { L next = 1; repeated L many = 2; repeated int32 n = 3; }'


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


@pytest.mark.parametrize(
    ("definition", "body", "words"),
    [
        (LIST, b"\x02" * 3_000_000, "nested deeper than 100"),
        (LIST, b"\x02" * 99 + b"\0", "nested deeper than 100|"),
        (NULLS, varint(2**61 * 2) + b"\0", "over 250,000 values"),
        (NULLS, varint(2**61 * 2 - 1) + b"\0\0", "over 250,000 values"),
        (EMPTY, varint(2**40) + b"\0" * 5_000_000, "over 250,000 values"),
        (FAN, b"\0", "over 250,000 values"),
        ({"type": "array", "items": "int"}, varint(3_000_000) + b"\0" * 1_500_001, "over 250,000 values"),
        ({"type": "bytes"}, varint(2**62) + b"abc", "is cut off"),
        ({"type": "string"}, varint(2**62 - 1) + b"abc", "is cut off"),
        ({"type": "fixed", "name": "F", "size": 10**15}, b"abc", "is cut off"),
        ({"type": "double"}, struct.pack("<d", float("nan")), "NaN or an infinity"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x04", "a number that its type has not"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, b"\x01", "a number that its type has not"),
        ({"type": "int"}, varint(2**32), "a number that its type has not"),
        ({"type": "long"}, b"\xff" * 9 + b"\x7f", "a number that its type has not"),
        ({"type": "boolean"}, b"\x02", "neither 0 nor 1"),
        (["null", "int"], b"\x05", "branch -3 of a union"),
        ({"type": "long"}, b"\xff" * 11, "over ten bytes"),
    ],
)
def test_hostile_avro_is_refused_before_it_is_built(definition, body, words):
    """Recursion that ends a process, lists of 2**60 nulls, records that fan out: counted first, and refused."""
    with pytest.raises(InvalidBody, match=words):
        value(body, Kept(definition))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x12\0" * 2_000_000, "over 250,000 values"),
        (b"\x1a" + varint(3_000_000) + b"\1" * 3_000_000, "over 250,000 values"),
        (b"\x0a\x7f" * 1000, "DecodeError"),
    ],
)
def test_hostile_protobuf_is_refused(body, words):
    """Two bytes a message, packed numbers, and messages in one another."""
    with pytest.raises(InvalidBody, match=words):
        value(body, Kept(PROTO_LIST, "PROTOCOL_BUFFER"))


def test_deep_protobuf_is_refused():
    """A message in a message, a thousand times."""
    body = b""
    for _ in range(1000):
        body = b"\x0a" + varint(len(body)) + body
    with pytest.raises(InvalidBody, match="DecodeError|nested deeper"):
        value(body, Kept(PROTO_LIST, "PROTOCOL_BUFFER"))
    spelt = b'{"next":' * 90 + b"{}" + b"}" * 90
    assert value(spelt, Kept(PROTO_LIST, "PROTOCOL_BUFFER"), "JSON")["next"]["next"]


def test_a_string_of_protobuf_is_text():
    """proto2 lets any bytes through as a string, which would then be taken for a picture."""
    with pytest.raises(InvalidBody, match="a string that is not UTF-8"):
        value(b"\x0a\1\xff", Kept("message A { optional string inputs = 1; }", "PROTOCOL_BUFFER"))


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ("{", "AVRO"),
        ('"nothing"', "AVRO"),
        ('{"type": "array", "items": ' * 3000 + '"int"' + "}" * 3000, "AVRO"),
        ("message {", "PROTOCOL_BUFFER"),
        ('syntax = "proto3"; import "/etc/passwd"; message A {}', "PROTOCOL_BUFFER"),
        ('syntax = "proto3"; import "google/protobuf/any.proto"; message A {}', "PROTOCOL_BUFFER"),
        ('syntax = "proto3"; message A {} message B {}', "PROTOCOL_BUFFER"),
        ("{}", "TYPE_UNSPECIFIED"),
    ],
)  # fmt: skip
def test_definitions_that_are_none_are_named(definition, kind):
    """The message is a dead letter that names the schema."""
    named = f"schema '{SCHEMA}@1a2b3c4d' (has a definition|is TYPE_UNSPECIFIED)"
    with pytest.raises(InvalidBody, match=named) as caught:
        value(b"x", Kept(definition, kind))
    assert "absl" not in str(caught.value), "what protoc logs of itself is none of the faults"


def test_a_required_field_that_is_missing():
    """Of proto2, whose parser lets it pass."""
    source = Kept('syntax = "proto2"; message A { required string a = 1; optional int32 b = 2; }', "PROTOCOL_BUFFER")
    assert value(b"\x0a\x01x", source) == {"a": "x"}
    with pytest.raises(InvalidBody, match="lacks a"):
        value(b"\x10\x01", source)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"googclient_schemaencoding": "binary"}, "encoding 'binary'; use BINARY or JSON"),
        ({"googclient_schemaencoding": ""}, "encoding ''"),
        ({"googclient_schemaname": "../secrets/x"}, "names no schema"),
        ({"googclient_schemaname": "_deleted-schema_"}, "names no schema"),
        ({"googclient_schemaname": "x" * 10_000}, "names no schema"),
        ({"googclient_schemarevisionid": "a/b"}, "names no schema"),
        ({"googclient_schemaname": ""}, "no attribute googclient_schemaname"),
    ],
)
def test_marks_that_name_nothing_are_refused(changed, words):
    """Before anybody is asked for it."""
    source = Kept(TICKET)
    with pytest.raises(InvalidBody, match=words) as caught:
        value(avro(RECORD), source, **changed)
    assert source.asked == [] and len(str(caught.value)) < 300


def test_a_format_takes_its_own_kind_alone():
    """`avro` refuses Protocol Buffers and messages of no schema, and the other way round; `json` looks at none."""
    for form, source in (("avro", PROTOBUF), ("protobuf", AVRO)):
        with pytest.raises(InvalidBody, match=f"4d' is {source.schema.kind}, and the messages read here are"):
            value(b"x", source, form=form)
        with pytest.raises(InvalidBody, match="no attribute googclient_schemaname"):
            decode(Message(b'{"inputs": "hi"}'), None, Opener(form, source))
    assert value(b'{"inputs": "hi"}', AVRO, "JSON", "json") == {"inputs": "hi"}


def test_a_definition_is_compiled_once():
    """Protoc is a process: it must not start for each message."""
    source = Kept(PROTO_LIST + "\n// once", "PROTOCOL_BUFFER")
    from transforms.envelopes import schemas

    before = schemas._definition.cache_info().misses
    for _ in range(50):
        value(b"\x18\x01", source)
    assert schemas._definition.cache_info().misses == before + 1


def test_an_outage_is_not_the_messages_fault():
    """Where the definition cannot be had, the bundle fails and no message is blamed."""

    def away(name: str) -> Schema:
        raise SchemaUnavailable("away")

    with pytest.raises(SchemaUnavailable):
        value(avro(RECORD), away)


ANY = st.recursive(
    st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string", "Ticket"]),
    lambda each: (
        st.builds(lambda items: {"type": "array", "items": items}, each)
        | st.builds(lambda values: {"type": "map", "values": values}, each)
        | st.lists(each, min_size=1, max_size=3)
        | st.builds(
            lambda kinds: {
                "type": "record",
                "name": "Ticket",
                "fields": [{"name": f"f{n}", "type": k} for n, k in kinds],
            },
            st.lists(each, max_size=3).map(lambda kinds: list(enumerate(kinds))),
        )
    ),
    max_leaves=6,
)


@given(ANY, st.binary(min_size=1, max_size=40), st.sampled_from(["BINARY", "JSON"]))
def test_any_body_of_any_definition_is_read_or_refused(definition, body, encoding):
    """Nothing else is raised, whatever the two hold."""
    try:
        value(body, Kept(definition), encoding)
    except InvalidBody as error:
        assert SCHEMA in str(error) or "finds nothing" in str(error)


@given(st.binary(min_size=1, max_size=60), st.sampled_from(["BINARY", "JSON"]))
def test_any_body_of_a_protobuf_is_read_or_refused(body, encoding):
    """The same, of the message that has a field of each kind."""
    try:
        assert "inputs" in value(body, PROTOBUF, encoding)
    except InvalidBody as error:
        assert SCHEMA in str(error)
