"""Pub/Sub's REST API v1: which HTTP request is which method, and protos as JSON.

https://cloud.google.com/pubsub/docs/reference/rest; every route is the ``google.api.http`` rule of the method in
https://github.com/googleapis/googleapis/tree/master/google/pubsub/v1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from pipeline.emulators.pubsub.errors import InvalidArgument, NotFound, Unimplemented

_TOPIC, _SUBSCRIPTION = "projects/*/topics/*", "projects/*/subscriptions/*"
_SNAPSHOT, _SCHEMA = "projects/*/snapshots/*", "projects/*/schemas/*"

#: method: HTTP method, path, the field that is the body (``*``: all of the request; empty: there is none)
_RULES = {
    "Publisher/CreateTopic": ("PUT", f"{{name={_TOPIC}}}", "*"),
    "Publisher/UpdateTopic": ("PATCH", f"{{topic.name={_TOPIC}}}", "*"),
    "Publisher/Publish": ("POST", f"{{topic={_TOPIC}}}:publish", "*"),
    "Publisher/GetTopic": ("GET", f"{{topic={_TOPIC}}}", ""),
    "Publisher/ListTopics": ("GET", "{project=projects/*}/topics", ""),
    "Publisher/ListTopicSubscriptions": ("GET", f"{{topic={_TOPIC}}}/subscriptions", ""),
    "Publisher/ListTopicSnapshots": ("GET", f"{{topic={_TOPIC}}}/snapshots", ""),
    "Publisher/DeleteTopic": ("DELETE", f"{{topic={_TOPIC}}}", ""),
    "Publisher/DetachSubscription": ("POST", f"{{subscription={_SUBSCRIPTION}}}:detach", ""),
    "Subscriber/CreateSubscription": ("PUT", f"{{name={_SUBSCRIPTION}}}", "*"),
    "Subscriber/GetSubscription": ("GET", f"{{subscription={_SUBSCRIPTION}}}", ""),
    "Subscriber/UpdateSubscription": ("PATCH", f"{{subscription.name={_SUBSCRIPTION}}}", "*"),
    "Subscriber/ListSubscriptions": ("GET", "{project=projects/*}/subscriptions", ""),
    "Subscriber/DeleteSubscription": ("DELETE", f"{{subscription={_SUBSCRIPTION}}}", ""),
    "Subscriber/ModifyAckDeadline": ("POST", f"{{subscription={_SUBSCRIPTION}}}:modifyAckDeadline", "*"),
    "Subscriber/Acknowledge": ("POST", f"{{subscription={_SUBSCRIPTION}}}:acknowledge", "*"),
    "Subscriber/Pull": ("POST", f"{{subscription={_SUBSCRIPTION}}}:pull", "*"),
    "Subscriber/ModifyPushConfig": ("POST", f"{{subscription={_SUBSCRIPTION}}}:modifyPushConfig", "*"),
    "Subscriber/Seek": ("POST", f"{{subscription={_SUBSCRIPTION}}}:seek", "*"),
    "Subscriber/ListSnapshots": ("GET", "{project=projects/*}/snapshots", ""),
    "Subscriber/GetSnapshot": ("GET", f"{{snapshot={_SNAPSHOT}}}", ""),
    "Subscriber/CreateSnapshot": ("PUT", f"{{name={_SNAPSHOT}}}", "*"),
    "Subscriber/UpdateSnapshot": ("PATCH", f"{{snapshot.name={_SNAPSHOT}}}", "*"),
    "Subscriber/DeleteSnapshot": ("DELETE", f"{{snapshot={_SNAPSHOT}}}", ""),
    "SchemaService/CreateSchema": ("POST", "{parent=projects/*}/schemas", "schema"),
    "SchemaService/GetSchema": ("GET", f"{{name={_SCHEMA}}}", ""),
    "SchemaService/ListSchemas": ("GET", "{parent=projects/*}/schemas", ""),
    "SchemaService/ListSchemaRevisions": ("GET", f"{{name={_SCHEMA}}}:listRevisions", ""),
    "SchemaService/CommitSchema": ("POST", f"{{name={_SCHEMA}}}:commit", "*"),
    "SchemaService/RollbackSchema": ("POST", f"{{name={_SCHEMA}}}:rollback", "*"),
    "SchemaService/DeleteSchemaRevision": ("DELETE", f"{{name={_SCHEMA}}}:deleteRevision", ""),
    "SchemaService/DeleteSchema": ("DELETE", f"{{name={_SCHEMA}}}", ""),
    "SchemaService/ValidateSchema": ("POST", "{parent=projects/*}/schemas:validate", "*"),
    "SchemaService/ValidateMessage": ("POST", "{parent=projects/*}/schemas:validateMessage", "*"),
}

#: Query parameters of every Google API, which are not the request's: https://cloud.google.com/apis/docs/system-parameters
_SYSTEM = {"access_token", "alt", "callback", "fields", "key", "oauth_token", "prettyPrint", "quotaUser", "userIp"}
_SYSTEM |= {"uploadType", "upload_protocol"}


class Route(NamedTuple):
    """A method and what the request's path says: ``field`` (dotted) has the value ``name``."""

    method: str
    field: str
    name: str
    body: str


def _compile() -> list[tuple[str, str, re.Pattern[str], str, str]]:
    routes = []
    for method, (verb, path, body) in _RULES.items():
        field, pattern, rest = re.fullmatch(r"{([\w.]+)=([^}]+)}(.*)", path).groups()  # type: ignore[union-attr]
        # A name has no colon: what follows one is the verb.
        expression = "/v1/(" + pattern.replace("*", "[^/:]+") + ")" + re.escape(rest)
        routes.append((verb, method, re.compile(expression), field, body))
    return routes


_ROUTES = _compile()


def route(verb: str, path: str) -> Route:
    """The method that ``verb`` and ``path`` (as sent, without the query) ask for; raises ``Refused``."""
    path = unquote(path)
    for method_verb, method, pattern, field, body in _ROUTES:
        if method_verb == verb and (match := pattern.fullmatch(path)):
            return Route(method, field, match[1], body)
    if re.fullmatch(r"/v1/projects/.*:\w+", path):
        # A client may take a 404 for a resource that is not there.
        raise Unimplemented(f"The embedded Pub/Sub has no {verb} {path[:200]}.")
    raise NotFound(f"{verb} {path[:200]} is no method of Pub/Sub's REST API v1.")


def read_request(request_class: Any, found: Route, query: Iterable[tuple[str, str]], body: bytes) -> Message:
    """The request's proto, from the path, the query string and the JSON body; raises ``InvalidArgument``."""
    try:
        given = json.loads(body) if body.strip() else {}
        if not isinstance(given, dict):
            raise InvalidArgument(f"Invalid JSON payload received: expected an object, got {type(given).__name__}.")
        fields: dict[str, Any] = given if found.body in ("", "*") else {found.body: given}
        for name, value in query:
            if name not in _SYSTEM and not name.startswith("$"):
                _put(fields, name, value)
        _put(fields, found.field, found.name)
        request: Message = request_class()
        _check_bytes(fields, request.DESCRIPTOR)
        json_format.ParseDict(fields, request)
    except (json_format.ParseError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"Invalid JSON payload received: {error}") from None
    return request


#: Either alphabet, padded or not.
_BASE64 = re.compile("[A-Za-z0-9+/]*={0,2}|[A-Za-z0-9_-]*={0,2}")


def _check_bytes(fields: dict[str, Any], proto: Descriptor) -> None:
    """Raises ``InvalidArgument`` for bytes that are no base64: protobuf would take what of them is."""
    known = {name: field for field in proto.fields for name in (field.name, field.json_name)}
    for name, value in fields.items():
        field = known.get(name)
        if field is None:
            continue
        for each in value if isinstance(value, list) else [value]:
            if field.type == field.TYPE_BYTES and isinstance(each, str) and not _BASE64.fullmatch(each):
                raise InvalidArgument(f"Invalid value at '{name}' (TYPE_BYTES), Base64 decoding failed: {each[:80]!r}.")
            if isinstance(each, dict) and field.message_type and not field.message_type.GetOptions().map_entry:
                _check_bytes(each, field.message_type)


def _put(fields: dict[str, Any], path: str, value: str) -> None:
    """Sets the field at a dotted path."""
    *parents, last = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
    fields[last] = {"true": True, "false": False}.get(value, value)


def write_answer(answer: Message, query: Iterable[tuple[str, str]]) -> bytes:
    """The answer's JSON; enumerations by name, or as numbers if the client asks (``$alt=json;enum-encoding=int``)."""
    numbers = any(name in ("alt", "$alt") and "enum-encoding=int" in value for name, value in query)
    text: str = json_format.MessageToJson(answer, use_integers_for_enums=numbers, ensure_ascii=False)
    return text.encode()
