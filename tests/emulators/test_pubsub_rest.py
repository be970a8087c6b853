"""REST on the embedded Pub/Sub's one port: the official client's REST transport, plain HTTP, and ``gcloud pubsub``."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports.rest import PublisherRestTransport
from google.pubsub_v1.services.schema_service.transports.rest import SchemaServiceRestTransport
from google.pubsub_v1.services.subscriber.transports.rest import SubscriberRestTransport
from hypothesis import given, settings
from hypothesis import strategies as st
from pubsub_emulators import PROJECT, Cloud, bodies, fresh_id

from pipeline.emulators import pubsub
from pipeline.emulators.process import Server
from pipeline.emulators.pubsub.routes import _RULES


class RestCloud(Cloud):
    """The same, through the clients' REST transport."""

    def __init__(self, address: str) -> None:
        super().__init__("embedded", address)
        given: Any = {"host": address, "credentials": AnonymousCredentials(), "url_scheme": "http"}
        self.publisher = PublisherClient(transport=PublisherRestTransport(**given))
        self.subscriber = SubscriberClient(transport=SubscriberRestTransport(**given))
        self.schemas = SchemaServiceClient(transport=SchemaServiceRestTransport(**given))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pubsub.start() as started:
        yield started


@pytest.fixture(scope="module")
def cloud(server: Server) -> Cloud:
    return Cloud("embedded", server.address)


@pytest.fixture(scope="module")
def rest(server: Server) -> RestCloud:
    return RestCloud(server.address)


def call(server: Server, verb: str, path: str, body: Any = None, **options: Any) -> requests.Response:
    return requests.request(verb, f"http://{server.address}/v1/{path}", json=body, timeout=30, **options)


# The official client over REST


def test_resources_over_rest(rest: RestCloud) -> None:
    """Topics and subscriptions live their lives over REST, with labels, durations, policies and pages."""
    dead = rest.topic()
    topic, name = rest.pair(
        labels={"team": "ml"},
        message_retention_duration={"seconds": 1200},
        dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 7},
        filter='attributes.kind = "a"',
        enable_message_ordering=True,
    )
    found = rest.subscriber.get_subscription(subscription=name)
    assert (found.topic, dict(found.labels), found.filter) == (topic, {"team": "ml"}, 'attributes.kind = "a"')
    assert (found.message_retention_duration.total_seconds(), found.dead_letter_policy.max_delivery_attempts) == (
        1200,
        7,
    )
    assert (found.state, found.enable_message_ordering) == (types.Subscription.State.ACTIVE, True)
    change = {"name": name, "topic": topic, "ack_deadline_seconds": 33}
    updated = rest.subscriber.update_subscription(subscription=change, update_mask={"paths": ["ack_deadline_seconds"]})
    assert (updated.ack_deadline_seconds, dict(updated.labels)) == (33, {"team": "ml"})
    listed = rest.publisher.list_topics(request={"project": f"projects/{PROJECT}", "page_size": 1})
    assert {topic, dead} <= {item.name for item in listed}
    assert list(rest.publisher.list_topic_subscriptions(topic=topic)) == [name]
    rest.publisher.detach_subscription(request={"subscription": name})
    assert rest.subscriber.get_subscription(subscription=name).detached
    rest.subscriber.delete_subscription(subscription=name)
    rest.publisher.delete_topic(topic=topic)
    with pytest.raises(exceptions.NotFound):
        rest.publisher.get_topic(topic=topic)
    with pytest.raises(exceptions.Conflict):
        rest.publisher.create_topic(name=dead)
    with pytest.raises(exceptions.BadRequest):
        rest.publisher.create_topic(name=f"projects/{PROJECT}/topics/goog")


def test_messages_over_rest_and_grpc_are_the_same(rest: RestCloud, cloud: Cloud) -> None:
    """What is published over one arrives over the other, byte for byte, and is acknowledged or given back by either."""
    topic, name = cloud.pair(ack_deadline_seconds=600)
    body = bytes(range(256))
    for one, other in ((rest, cloud), (cloud, rest)):
        (message_id,) = one.publish(topic, body, attributes={"grüße": "日本"}, ordering_key="key")
        (received,) = other.pull(name)
        message = received.message
        assert (message.data, message.message_id, message.ordering_key) == (body, message_id, "key")
        assert dict(message.attributes) == {"grüße": "日本"} and len(received.ack_id.encode()) <= 171
        one.modify(name, [received], 0)
        (again,) = one.pull(name)
        other.acknowledge(name, [again])
        assert other.pull_now(name) == []
    rest.publish(topic, *[b"%d" % number for number in range(1000)])
    received = rest.pull_all(name, 1000)
    assert sorted(map(int, bodies(received))) == list(range(1000))
    rest.acknowledge(name, received)
    rest.subscriber.seek(request={"subscription": name, "time": {"seconds": int(time.time()) + 60}})


def test_schemas_over_rest(rest: RestCloud) -> None:
    """Schemas are made, revised, validated against and deleted over REST too."""
    parent = f"projects/{PROJECT}"
    schema = types.Schema(type_=types.Schema.Type.AVRO, definition='"string"')
    made = rest.schemas.create_schema(parent=parent, schema=schema, schema_id=fresh_id("schema"))
    second = rest.schemas.commit_schema(name=made.name, schema=schema)
    assert [s.revision_id for s in rest.schemas.list_schema_revisions(name=made.name)] == [
        second.revision_id,
        made.revision_id,
    ]
    assert rest.schemas.get_schema(name=f"{made.name}@{made.revision_id}").definition == '"string"'
    request = {"parent": parent, "name": made.name, "encoding": types.Encoding.JSON}
    rest.schemas.validate_message(request={**request, "message": b'"text"'})
    with pytest.raises(exceptions.BadRequest, match="failed schema validation"):
        rest.schemas.validate_message(request={**request, "message": b"7"})
    rest.schemas.delete_schema(name=made.name)
    assert made.name not in [found.name for found in rest.schemas.list_schemas(parent=parent)]


@pytest.mark.parametrize("transport", ["rest", "cloud"])
def test_what_is_not_here(request: pytest.FixtureRequest, transport: str) -> None:
    """No snapshot is listed, and one cannot be made; push is refused as unsupported, at creation and by updates."""
    client: Cloud = request.getfixturevalue(transport)
    topic, name = client.pair()
    assert list(client.subscriber.list_snapshots(project=f"projects/{PROJECT}")) == []
    assert list(client.publisher.list_topic_snapshots(topic=topic)) == []
    with pytest.raises(exceptions.MethodNotImplemented, match="CreateSnapshot"):
        client.subscriber.create_snapshot(name=f"projects/{PROJECT}/snapshots/abc", subscription=name)
    push = {"push_endpoint": "https://example.com"}
    with pytest.raises(exceptions.MethodNotImplemented, match="push_config"):
        client.pair(push_config=push)
    change = {"name": name, "topic": topic, "push_config": push}
    with pytest.raises(exceptions.MethodNotImplemented, match="push_config"):
        client.subscriber.update_subscription(subscription=change, update_mask={"paths": ["push_config"]})
    with pytest.raises(exceptions.MethodNotImplemented, match="push_config"):
        client.subscriber.modify_push_config(subscription=name, push_config=push)
    client.subscriber.modify_push_config(subscription=name, push_config={})
    exactly = {"name": name, "topic": topic, "enable_exactly_once_delivery": True}
    with pytest.raises(exceptions.MethodNotImplemented, match="enable_exactly_once_delivery"):
        paths = ["enable_exactly_once_delivery"]
        client.subscriber.update_subscription(subscription=exactly, update_mask={"paths": paths})


# Plain HTTP


def test_curl(server: Server) -> None:
    """The requests of Pub/Sub's REST reference, as one would type them, give the reference's answers."""
    topic, name = f"projects/{PROJECT}/topics/{fresh_id('t')}", f"projects/{PROJECT}/subscriptions/{fresh_id('s')}"
    assert call(server, "PUT", topic).json() == {"name": topic}
    made = call(server, "PUT", name, {"topic": topic, "ackDeadlineSeconds": 30}).json()
    assert (made["topic"], made["ackDeadlineSeconds"], made["state"]) == (topic, 30, "ACTIVE")
    message = {"data": base64.b64encode(b"hello").decode(), "attributes": {"a": "b"}, "orderingKey": "k"}
    (message_id,) = call(server, "POST", f"{topic}:publish", {"messages": [message]}).json()["messageIds"]
    (received,) = call(server, "POST", f"{name}:pull", {"maxMessages": 5}).json()["receivedMessages"]
    assert {**received["message"], "publishTime": ""} == {**message, "messageId": message_id, "publishTime": ""}
    assert call(server, "POST", f"{name}:acknowledge", {"ackIds": [received["ackId"]]}).json() == {}
    assert call(server, "POST", f"{name}:pull", {"maxMessages": 5, "returnImmediately": True}).json() == {}
    assert call(server, "GET", name, params={"$alt": "json;enum-encoding=int"}).json()["state"] == 1
    assert call(server, "GET", f"projects/{PROJECT}/topics", params={"pageSize": 1}).json()["topics"]
    assert call(server, "DELETE", topic).json() == {}
    error = call(server, "GET", topic).json()["error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("verb", "path", "body", "code", "status"),
    [
        ("GET", "projects/p/nothing", None, 404, "NOT_FOUND"),
        ("DELETE", "projects/p/topics", None, 404, "NOT_FOUND"),
        ("GET", "projects/p/topics/abc/def", None, 404, "NOT_FOUND"),
        ("POST", "projects/p/topics/abc:publish", {"messages": []}, 404, "NOT_FOUND"),
        ("GET", "projects/p/topics/abc:getIamPolicy", None, 501, "UNIMPLEMENTED"),
        ("POST", "projects/p/topics/abc:nothing", {}, 501, "UNIMPLEMENTED"),
        ("GET", "projects/p/topics?pageSize=-1", None, 400, "INVALID_ARGUMENT"),
        ("GET", "projects/p/topics?pageToken=x", None, 400, "INVALID_ARGUMENT"),
        *(
            ("POST", "projects/p/topics/abc:publish", {"messages": [{"data": data}]}, 400, "INVALID_ARGUMENT")
            for data in ("Where is it?", "YQ==YQ==", "é", "YWJj ZGVm", "a+_b")
        ),
        ("PUT", "projects/p/topics/abcd", [], 400, "INVALID_ARGUMENT"),
        ("PUT", "projects/p/topics/abcd", {"labels": "x"}, 400, "INVALID_ARGUMENT"),
        ("PUT", "projects/p/topics/abcd", {"unknown": 1}, 400, "INVALID_ARGUMENT"),
        ("POST", "projects/p/topics/abcd:publish", {"messages": [{"data": "x"}]}, 400, "INVALID_ARGUMENT"),
        ("GET", "projects/p/topics?pageSize=x", None, 400, "INVALID_ARGUMENT"),
        ("GET", "projects/p/topics?pageSize=2&pageSize.x=1", None, 400, "INVALID_ARGUMENT"),
        ("PUT", "projects/p/snapshots/abc", {}, 501, "UNIMPLEMENTED"),
        ("BREW", "projects/p/topics", None, 501, "UNIMPLEMENTED"),
    ],
)
def test_wrong_requests(server: Server, verb: str, path: str, body: Any, code: int, status: str) -> None:
    """What is no request of the API gets Google's error envelope with the fitting status."""
    answer = call(server, verb, path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (code, code, status) and error["message"]


def test_bodies_in_every_wrapping(server: Server) -> None:
    """Gzip and chunked bodies are read; cut short, too large or nonsense, they are refused and nothing else happens."""
    topic = f"projects/{PROJECT}/topics/{fresh_id('t')}"
    call(server, "PUT", topic)
    body = json.dumps({"messages": [{"data": "aGk="}]}).encode()
    url = f"http://{server.address}/v1/{topic}:publish"
    packed = gzip.compress(body)
    zipped = {"Content-Encoding": "gzip"}
    assert requests.post(url, packed, headers=zipped, timeout=30).json()["messageIds"]
    assert requests.post(url, iter([body[:5], body[5:]]), timeout=30).json()["messageIds"]
    assert requests.post(url, iter([packed[:9], packed[9:]]), headers=zipped, timeout=30).json()["messageIds"]
    for wrong in (packed[:-9], body, gzip.compress(bytes(100_000_000))):
        assert requests.post(url, wrong, headers=zipped, timeout=30).status_code == 400
    for length in ("-1", "x", "99999999999999"):
        assert requests.post(url, b"", headers={"Content-Length": length}, timeout=30).status_code == 400
    large = {"messages": [{"data": base64.b64encode(bytes(9_000_000)).decode()}]}
    assert call(server, "POST", f"{topic}:publish", large).status_code == 200
    large = {"messages": [{"data": base64.b64encode(bytes(11_000_000)).decode()}]}
    assert "exceeds the limit" in call(server, "POST", f"{topic}:publish", large).json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "rebound.example.com"}, {"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=str,
)
def test_web_pages_are_refused(server: Server, headers: dict[str, str]) -> None:
    """A web page can neither publish nor delete: by a name that resolves here, or by a request across sites."""
    topic = f"projects/{PROJECT}/topics/{fresh_id('t')}"
    call(server, "PUT", topic)
    assert call(server, "DELETE", topic, headers=headers).status_code == 403
    assert call(server, "GET", topic).status_code == 200


def test_a_waiting_pull_that_was_given_up_takes_nothing(server: Server, cloud: Cloud) -> None:
    """A REST client that left while its pull waited gets no message; those go to the living."""
    topic, name = cloud.pair(ack_deadline_seconds=600)
    for _ in range(3):
        with pytest.raises(requests.Timeout):
            requests.post(f"http://{server.address}/v1/{name}:pull", json={"maxMessages": 9}, timeout=0.3)
    time.sleep(1)
    cloud.publish(topic, b"1", b"2", b"3")
    assert len(cloud.pull_all(name, 3)) == 3


def test_a_pull_waits_for_messages(server: Server, cloud: Cloud) -> None:
    """A REST pull answers when a message comes, on a connection that goes on to the next request."""
    topic, name = cloud.pair()
    threading.Timer(0.5, lambda: cloud.publish(topic, b"late")).start()
    with requests.Session() as session:
        answer = session.post(f"http://{server.address}/v1/{name}:pull", json={"maxMessages": 1}, timeout=30).json()
        assert base64.b64decode(answer["receivedMessages"][0]["message"]["data"]) == b"late"
        assert session.get(f"http://{server.address}/v1/{name}", timeout=30).status_code == 200


# One port


_HTTP2 = [b"P", b"R", b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
_HTTP1 = [b"G", b"ET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]


@pytest.mark.parametrize("parts", [_HTTP2, _HTTP1], ids=["HTTP/2", "HTTP/1.1"])
def test_first_bytes_in_parts(server: Server, parts: list[bytes]) -> None:
    """A connection whose first bytes come one by one reaches the server that they ask for."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        answer = connection.recv(9)
    assert (answer == b"HTTP/1.1 ") if parts is _HTTP1 else (answer[3:4] == b"\x04")  # HTTP/2's SETTINGS


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=300))
def test_random_connections_leave_the_server_up(server: Server, cloud: Cloud, data: bytes) -> None:
    """Bytes that are neither end their connection, not the server."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(data)
    assert call(server, "GET", "projects/p/topics").status_code == 200


def test_large_answers_and_slow_readers(cloud: Cloud, server: Server) -> None:
    """What a client reads slowly waits for it, whole, and holds up nobody else."""
    topic, name = cloud.pair(ack_deadline_seconds=600)
    for _ in range(3):
        cloud.publish(topic, *[os.urandom(100_000) for _ in range(80)])
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), 60) as slow:
        body = b'{"maxMessages": 1000}'
        slow.sendall(b"POST /v1/%s:pull HTTP/1.1\r\nHost: localhost\r\n" % name.encode())
        slow.sendall(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        assert call(server, "GET", "projects/p/topics").status_code == 200  # while the other reads nothing
        received = b""
        while part := slow.recv(1_000_000):
            received += part
    answer = json.loads(received.partition(b"\r\n\r\n")[2])
    assert 25 < len(answer["receivedMessages"]) < 240  # as many as fit one answer


def test_without_its_door_the_server_ends() -> None:
    """A server whose door process was killed ends too, rather than live on where nobody reaches it."""
    with pubsub.start() as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("needs /proc to find the process")
        (door,) = map(int, children.read_text().split())
        os.kill(door, 9)
        assert server.process.wait(30) is not None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["topic", "messages", "data", "attributes", "ackIds", "labels", "schema", "definition", "time"]
)


@settings(max_examples=150, deadline=None)
@given(method=st.sampled_from(sorted(_RULES)), body=_JSON | st.dictionaries(_NAMES, _JSON, max_size=4))
def test_random_bodies_are_answered(server: Server, method: str, body: Any) -> None:
    """JSON of any shape to any method is answered or refused, and never an internal error."""
    verb, path, _ = _RULES[method]
    name = path.partition("=")[2].replace("}", "").replace("*", "abc")
    assert call(server, verb, name, body).status_code in (200, 400, 404, 409, 501)


# gcloud


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs the Google Cloud CLI")
def test_gcloud(server: Server, tmp_path: Path) -> None:
    """``gcloud pubsub`` makes a topic with a schema, publishes, refuses, pulls, acknowledges and lists."""
    (tmp_path / "token").write_text("none")
    environment = {
        **os.environ,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{server.address}/",
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }

    def gcloud(*arguments: str, code: int = 0) -> str:
        command = ["gcloud", "pubsub", *arguments, "--format=json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    topic, name, schema = fresh_id("topic"), fresh_id("subscription"), fresh_id("schema")
    definition = '{"type": "record", "name": "A", "fields": [{"name": "text", "type": "string"}]}'
    gcloud("schemas", "create", schema, "--type=avro", f"--definition={definition}")
    gcloud("topics", "create", topic, f"--schema={schema}", "--message-encoding=json")
    gcloud("subscriptions", "create", name, f"--topic={topic}", "--ack-deadline=30")
    gcloud("topics", "publish", topic, '--message={"text": "hello"}', "--attribute=a=b")
    assert "failed schema validation" in gcloud("topics", "publish", topic, "--message=hello", code=1)
    (pulled,) = json.loads(gcloud("subscriptions", "pull", name, "--auto-ack"))
    assert base64.b64decode(pulled["message"]["data"]) == b'{"text": "hello"}'
    assert pulled["message"]["attributes"]["a"] == "b"
    assert "googclient_schemarevisionid" in pulled["message"]["attributes"]
    assert json.loads(gcloud("snapshots", "list")) == []
