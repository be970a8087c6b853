"""Fuzzing: decode, the whole job, and the wire formats of both embedded servers."""

from __future__ import annotations

import http.client
import importlib.util
import json
import pickle
import socket
import subprocess
import sys
from random import Random

import grpc
import jmespath
import pytest
from chaos import Collector, account
from fake_job import fake_job
from fuzz import payload
from google.pubsub_v1 import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams import ROOT, fresh

from pipeline import publish
from transforms.decode import InvalidBody, decode
from transforms.records import Message, Request

pytestmark = pytest.mark.usefixtures("servers")

SERVED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
attributes = st.dictionaries(text, text, max_size=5) | st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json", "text/plain", "image/png", "TEXT/PLAIN;x", "", "/"]) | text}
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=15,
)
bodies = (
    st.binary(max_size=200)
    | values.map(lambda value: json.dumps(value).encode())
    | st.builds(lambda inputs, more: json.dumps({"inputs": inputs, "parameters": more}).encode(), values, values)
    | st.integers(1, 3000).map(lambda depth: b"[" * depth + b"]" * depth)
    | st.integers(1, 3000).map(lambda depth: b'{"inputs":' * depth + b"1" + b"}" * depth)
)
paths = st.sampled_from(
    ["inputs", "a.b", "[0]", "*", "length(@)", "sort_by(@, &n)", "sum(@)", "to_string(@)", "keys(@)"]
)


@settings(max_examples=500, deadline=None)
@given(bodies, attributes, st.none() | paths)
def test_decode_takes_anything(data, own, path):
    """Any bytes with any attributes are a request that can travel, or InvalidBody in one line; nothing else."""
    message = Message(data, own)
    try:
        request = decode(message, path and jmespath.compile(path))
    except InvalidBody as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert isinstance(request, Request) and request.message is message
        pickle.dumps(request)


def test_decode_under_coverage_guided_fuzzing(tmp_path):
    """Atheris finds no input in 30,000 on which decode raises anything but InvalidBody."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate([b'{"inputs": "x", "parameters": {"a": 1}}', b"[1, 2]", b'{"a": {"b": [{"n": 1}]}}']):
        (corpus / str(number)).write_bytes(b"\x00\x00" + seed)
    script = ROOT / "tests" / "support" / "atheris_decode.py"
    fuzz = [sys.executable, str(script), "-atheris_runs=30000", "-seed=5", f"-artifact_prefix={tmp_path}/", str(corpus)]
    done = subprocess.run(
        # By way of a shell that forks: a process's peak of memory, which the fuzzer bounds, begins with its parent's.
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", *fuzz],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_fuzzed_payloads_are_all_accounted_for(tmp_path):
    """Two thousand messages that nobody should send: each one result or dead letter with its row; the job lives on."""
    resources, source = fresh("fuzz"), Random(5)
    with (
        Collector(resources) as collected,
        fake_job([*resources.flags(), "--timestamp_attribute=ts", "--audit_input=full"], tmp_path / "log") as job,
    ):
        sent = publish.publish_all(resources.input_topic, [payload(source) for _ in range(2000)])
        assert collected.wait_for(sent, 120), job.words()[-3000:]
        assert job.drain() == 0, job.words()
        found = account(resources, sent, collected)
    assert found.kept, found
    assert found.results and found.dead_letters


def ask_bigquery(address: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of one request to the embedded BigQuery."""
    connection = http.client.HTTPConnection(address.rpartition("/")[2], timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


odd_rows = st.lists(
    st.fixed_dictionaries(
        {"json": st.dictionaries(st.sampled_from(["message_id", "status", "total_ms", "attributes", "x"]), values)}
    )
    | values,
    max_size=4,
)


@SERVED
@given(
    st.sampled_from(["insertAll", "tables", "queries", "datasets", "jobs"]),
    odd_rows | values,
    st.sampled_from([{}, {"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}]),
)
def test_bigquery_answers_any_body(servers, fuzzed_table, where, body, headers):
    """Any JSON, on the methods that write and query, gets an answer that is no internal error."""
    project, dataset, table = fuzzed_table.split(".")
    path = {
        "insertAll": f"/projects/{project}/datasets/{dataset}/tables/{table}/insertAll",
        "tables": f"/projects/{project}/datasets/{dataset}/tables",
        "datasets": f"/projects/{project}/datasets",
        "queries": f"/projects/{project}/queries",
        "jobs": f"/projects/{project}/jobs",
    }[where]
    sent = {"rows": body} if where == "insertAll" else {"query": body} if where == "queries" else body
    data = json.dumps(sent).encode()
    assert ask_bigquery(servers.bigquery.address, "POST", f"/bigquery/v2{path}", data, headers) != 500


@SERVED
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"POST / HTTP/1.1\r\n", b"GET /bigquery/v2/projects HTTP/1.1\r\nContent-Length: "]),
)
def test_bigquery_survives_any_bytes(servers, fuzzed_table, data, start):
    """Whatever a connection carries, the next one is answered."""
    host, _, port = servers.bigquery.address.rpartition("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(start + data)
    assert ask_bigquery(servers.bigquery.address, "GET", "/bigquery/v2/projects", b"", {}) == 200


@pytest.fixture(scope="module")
def fuzzed_table(servers) -> str:
    return str(fresh("wire").audit_table)


METHODS = {
    "Publisher": ["CreateTopic", "Publish", "GetTopic", "UpdateTopic", "ListTopics", "ListTopicSubscriptions"],
    "Subscriber": [
        *("CreateSubscription", "GetSubscription", "UpdateSubscription", "ListSubscriptions", "Acknowledge"),
        *("ModifyAckDeadline", "Seek"),
    ],
}
NAMES = [f"/google.pubsub.v1.{service}/{method}" for service, methods in METHODS.items() for method in methods]


@pytest.fixture(scope="module")
def channel(servers):
    with grpc.insecure_channel(servers.pubsub.address) as made:
        yield made


def call(channel: grpc.Channel, name: str, request: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(name)(request, timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@SERVED
@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_pubsub_survives_any_bytes(channel, name, request):
    """Bytes that are no request of the method are refused, and the next call is answered."""
    assert call(channel, name, request) is not grpc.StatusCode.UNAVAILABLE
    assert call(channel, NAMES[4], types.ListTopicsRequest.serialize({"project": "projects/p"})) is grpc.StatusCode.OK


names = (
    st.sampled_from(
        ["projects/my-project/topics/fuzzed", "projects//topics/", "", "a/b/c/d/e", "projects/p/topics/goog"]
    )
    | text
)
messages = st.builds(
    lambda data, own, key: {"data": data, "attributes": own, "ordering_key": key},
    st.binary(max_size=20),
    st.dictionaries(text, text, max_size=3),
    text,
)
ANSWERS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
}


@SERVED
@given(names, st.lists(messages, max_size=4), st.lists(text, max_size=3), st.integers(-(2**31), 2**31 - 1), text)
def test_pubsub_answers_any_request(channel, name, batch, ack_ids, number, odd):
    """Well-formed requests with odd values get an answer of the service's kind: never UNKNOWN or INTERNAL."""
    requests = {
        "Publisher/CreateTopic": types.Topic.serialize({"name": name, "labels": {odd: odd}}),
        "Publisher/Publish": types.PublishRequest.serialize({"topic": name, "messages": batch}),
        "Publisher/ListTopics": types.ListTopicsRequest.serialize(
            {"project": odd, "page_size": number, "page_token": odd}
        ),
        "Subscriber/CreateSubscription": types.Subscription.serialize(
            {"name": name, "topic": name, "ack_deadline_seconds": number, "filter": odd}
        ),
        "Subscriber/Acknowledge": types.AcknowledgeRequest.serialize({"subscription": name, "ack_ids": ack_ids}),
        "Subscriber/ModifyAckDeadline": types.ModifyAckDeadlineRequest.serialize(
            {"subscription": name, "ack_ids": ack_ids, "ack_deadline_seconds": number}
        ),
    }
    for method, request in requests.items():
        assert call(channel, f"/google.pubsub.v1.{method}", request) in ANSWERS, method
