"""The embedded Pub/Sub as a process: what it survives, what it leaves behind, and what it makes of nonsense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core import exceptions
from google.pubsub_v1 import types
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pubsub_emulators import Cloud, bodies, free_port

from pipeline.emulators import pubsub
from pipeline.emulators.process import spawn


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with pubsub.start() as server:
        yield Cloud("embedded", server.address)


# The process


def test_stops_when_told() -> None:
    """SIGTERM ends the server with exit code 0; a waiting stream learns that it is to come back later."""
    with pubsub.start() as server:
        cloud = Cloud("embedded", server.address)
        topic, name = cloud.pair()
        request = types.StreamingPullRequest(subscription=name, stream_ack_deadline_seconds=60)
        hold = threading.Event()
        stream = cloud.subscriber.streaming_pull(_then_wait(request, hold))
        cloud.publish(topic, b"the stream is there")
        assert bodies(next(stream).received_messages) == [b"the stream is there"]
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(exceptions.ServiceUnavailable, match="shutting down"):
            next(stream)
        assert server.process.wait(60) == 0
        hold.set()


def _then_wait(request: types.StreamingPullRequest, hold: threading.Event) -> Iterator[types.StreamingPullRequest]:
    """A stream of one request that stays open until ``hold`` is set."""
    yield request
    hold.wait()


def test_ends_with_its_parent() -> None:
    """The server ends by itself when the process that started it is killed."""
    code = "from pipeline.emulators import pubsub; s = pubsub.start(); print(s.process.pid, s.address, flush=1)"
    code += "; input()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        _, address = parent.stdout.readline().split()
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            parent.kill()
            parent.wait()
            connection.settimeout(60)
            while connection.recv(4096):
                pass  # gRPC's greeting; then the end of the connection, as the server closes it


def test_port_taken(cloud: Cloud) -> None:
    """A second server on a port is refused in one clear line, and does not quietly share the calls."""
    port = cloud.address.split(":")[1]
    command = [sys.executable, "-m", "pipeline.emulators.pubsub", "--port", port, "--exit_with_parent"]
    ended = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == f"error: --port {port}: Address already in use; use another, or 0 for any free one\n"


def test_spawn_says_why_it_failed() -> None:
    """A module that does not become a server raises, with its name and what it said."""
    with pytest.raises(RuntimeError, match=r"(?s)python -m this .*Zen of Python"):
        spawn("this")


# Nothing is lost


def test_a_dead_client_takes_no_messages_with_it(cloud: Cloud) -> None:
    """Messages go to the living: pulls that were given up on while they waited get none."""
    topic, name = cloud.pair(ack_deadline_seconds=600)
    channel = grpc.insecure_channel(cloud.address)
    pull = channel.unary_unary("/google.pubsub.v1.Subscriber/Pull")
    request = types.PullRequest.serialize(types.PullRequest(subscription=name, max_messages=10))
    abandoned = [pull.future(request) for _ in range(5)]
    grpc.channel_ready_future(channel).result(60)
    time.sleep(0.3)  # so that they wait at the server
    for call in abandoned:
        call.cancel()
    channel.close()
    cloud.publish(topic, *[b"body"] * 50)
    assert len(cloud.pull_all(name, 50)) == 50


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_state_survives(tmp_path: Path, signum: int) -> None:
    """With a state file, all that was not acknowledged is there after a restart, and nothing else."""
    with pubsub.start(state=tmp_path / "state") as server:
        cloud = Cloud("embedded", server.address)
        topic, name = cloud.pair(enable_message_ordering=True, labels={"kept": "yes"})
        other = cloud.subscription(topic)
        gone_topic, gone = cloud.pair()
        orphan = cloud.subscription(gone_topic)
        cloud.publish(gone_topic, b"held")
        cloud.subscriber.delete_subscription(subscription=gone)
        cloud.publisher.delete_topic(topic=gone_topic)
        cloud.subscriber.create_subscription(name=gone, topic=cloud.topic())
        cloud.publish(topic, b"1", b"2", b"3", attributes={"own": "é"}, ordering_key="key")
        cloud.acknowledge(name, cloud.pull(name, limit=1))
        server.process.send_signal(signum)
        server.process.wait(60)
    with pubsub.start(state=tmp_path / "state") as server:
        cloud = Cloud("embedded", server.address)
        topics = [found.name for found in cloud.publisher.list_topics(project="projects/test-project")]
        assert len(topics) == 2
        assert topic in topics
        assert list(cloud.publisher.list_topic_subscriptions(topic=topic)) == sorted([name, other])
        assert dict(cloud.subscriber.get_subscription(subscription=name).labels) == {"kept": "yes"}
        assert cloud.subscriber.get_subscription(subscription=orphan).topic == "_deleted-topic_"
        assert bodies(cloud.pull(orphan)) == [b"held"]
        assert cloud.pull_now(gone) == []
        received = cloud.pull(name)
        assert bodies(received) == [b"2", b"3"]
        assert {message.message.ordering_key for message in received} == {"key"}
        assert sorted(bodies(cloud.pull(other))) == [b"1", b"2", b"3"]
        (last,) = cloud.publish(topic, b"4")
        assert int(last) > max(int(message.message.message_id) for message in received)


def test_a_state_is_one_servers(tmp_path: Path) -> None:
    """A second server on the file of one that runs, and a file that is no state, are refused in one line."""
    (tmp_path / "notes").write_text("not a database " * 1000)
    with pubsub.start(state=tmp_path / "state"):
        for file, words in (("state", "locked"), ("notes", "not a database"), ("no/such/folder", "unable to open")):
            command = [sys.executable, "-m", "pipeline.emulators.pubsub", "--port=0", f"--state={tmp_path / file}"]
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
            assert ended.stderr.startswith(f"error: --state '{tmp_path / file}': ") and words in ended.stderr


def test_clients_outlive_a_restart(tmp_path: Path) -> None:
    """Publisher and subscriber clients go on through a SIGKILL of a server that comes back on its port."""
    port = free_port()
    received: set[bytes] = set()
    complete = threading.Event()

    def receive(message: object) -> None:
        received.add(message.data)
        message.ack()
        if len(received) == 200:
            complete.set()

    with pubsub.start(port, state=tmp_path / "state") as server:
        cloud = Cloud("embedded", server.address)
        topic, name = cloud.pair()
        publisher, subscriber = cloud.high_level()
        streaming = subscriber.subscribe(name, receive)
        for future in [publisher.publish(topic, b"%d" % number) for number in range(100)]:
            future.result(60)
        server.process.kill()
    with pubsub.start(port, state=tmp_path / "state"):
        for future in [publisher.publish(topic, b"%d" % number) for number in range(100, 200)]:
            future.result(60)
        assert complete.wait(60)
        streaming.cancel()
        streaming.result(60)


def test_memory_is_flat() -> None:
    """What has been acknowledged takes no memory: ten times the messages, the same process."""

    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def flow(batches: int) -> None:
        for _ in range(batches):
            cloud.publish(topic, *[bytes(1000)] * 500)
            cloud.acknowledge(name, cloud.pull(name, limit=500))

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to see another process's memory")
    with pubsub.start() as server:
        cloud = Cloud("embedded", server.address)
        topic, name = cloud.pair()
        flow(10)
        before = resident()
        flow(100)
        assert resident() < before + 10_000, "50 MB of messages went through; at most 10 MB may be left"


# Any input

_METHODS = {
    "Publisher": ["CreateTopic", "UpdateTopic", "Publish", "GetTopic", "ListTopics", "ListTopicSubscriptions"]
    + ["DeleteTopic", "DetachSubscription"],
    "Subscriber": ["CreateSubscription", "GetSubscription", "UpdateSubscription", "ListSubscriptions", "Acknowledge"]
    + ["DeleteSubscription", "ModifyAckDeadline", "Pull", "StreamingPull", "Seek"],
}
_EVERY_METHOD = [f"/google.pubsub.v1.{service}/{method}" for service in _METHODS for method in _METHODS[service]]


@settings(max_examples=400, deadline=None)
@given(method=st.sampled_from(_EVERY_METHOD), body=st.binary(max_size=200))
@example(method="/google.pubsub.v1.Publisher/Publish", body=b"\n\x02\xff\xff")
def test_random_bytes(cloud: Cloud, method: str, body: bytes) -> None:
    """Any bytes as a request get an answer or a fitting refusal; never is it the server that is at fault."""
    with grpc.insecure_channel(cloud.address) as channel:
        try:
            if method.endswith("StreamingPull"):
                list(channel.stream_stream(method)(iter([body]), timeout=10))
            else:
                channel.unary_unary(method)(body, timeout=10)
        except grpc.RpcError as error:
            allowed = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "UNIMPLEMENTED", "FAILED_PRECONDITION"}
            assert error.code().name in allowed, error


_TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["projects/p/topics/abc", "projects/p/subscriptions/abc"]))


@settings(max_examples=300, deadline=None)
@given(
    name=_TEXT,
    topic=_TEXT,
    text=st.text(max_size=100),
    numbers=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4),
)
def test_random_requests(cloud: Cloud, name: str, topic: str, text: str, numbers: list[int]) -> None:
    """Well-formed requests with any values in them get an answer or a fitting refusal, too."""
    a, b, c, d = numbers
    retry = {"minimum_backoff": {"seconds": a, "nanos": b}, "maximum_backoff": {"seconds": c}}
    requests = {
        "Subscriber/CreateSubscription": types.Subscription(
            name=name, topic=topic, filter=text, ack_deadline_seconds=a % 700, retry_policy=retry
        ),
        "Subscriber/UpdateSubscription": types.UpdateSubscriptionRequest(
            subscription={"name": name, "ack_deadline_seconds": b % 700}, update_mask={"paths": [text, "labels"]}
        ),
        "Subscriber/Pull": types.PullRequest(subscription=name, max_messages=c, return_immediately=True),
        "Subscriber/Acknowledge": types.AcknowledgeRequest(subscription=name, ack_ids=[text]),
        "Subscriber/ModifyAckDeadline": types.ModifyAckDeadlineRequest(
            subscription=name, ack_ids=[text], ack_deadline_seconds=d
        ),
        "Subscriber/Seek": types.SeekRequest(subscription=name, time={"seconds": a, "nanos": abs(b) % 10**9}),
        "Subscriber/ListSubscriptions": types.ListSubscriptionsRequest(project=text, page_size=a, page_token=text),
        "Publisher/Publish": types.PublishRequest(
            topic=topic, messages=[{"data": text.encode(), "attributes": {text: text}, "ordering_key": text}]
        ),
    }
    with grpc.insecure_channel(cloud.address) as channel:
        for method, request in requests.items():
            try:
                channel.unary_unary(f"/google.pubsub.v1.{method}")(type(request).serialize(request), timeout=10)
            except grpc.RpcError as error:
                allowed = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "UNIMPLEMENTED"}
                assert error.code().name in allowed, error


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 6)),
        st.tuples(st.just("pull"), st.integers(1, 10)),
        st.tuples(st.sampled_from(["acknowledge", "nack"]), st.integers(0, 9)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS, ordered=st.booleans())
def test_random_histories(cloud: Cloud, steps: list[tuple[str, int]], ordered: bool) -> None:
    """Over the wire too, each message comes until it is acknowledged, then never; keys stay in order."""
    topic, name = cloud.pair(ack_deadline_seconds=600, enable_message_ordering=ordered)
    published, acknowledged, out = [], set(), []
    for step, number in steps:
        if step == "publish":
            sent = [b"%d" % (len(published) + index) for index in range(number)]
            cloud.publish(topic, *sent, ordering_key="key")
            published += sent
        elif step == "pull":
            received = cloud.pull_now(name, limit=number)
            assert not acknowledged & set(bodies(received))
            out += received
            if ordered and received:
                # A batch is a run of the key's messages, and begins at the first not acknowledged.
                start = len(acknowledged)
                assert bodies(received) == published[start : start + len(received)]
        elif out:
            chosen = [out.pop(number % len(out))] if not ordered else out[:number]
            if not chosen:
                continue
            if step == "acknowledge":
                cloud.acknowledge(name, chosen)
                acknowledged |= set(bodies(chosen))
                out = [message for message in out if message not in chosen]
            else:
                cloud.modify(name, chosen, 0)
                out = [] if ordered else out
    if out:
        cloud.modify(name, out, 0)
    rest = published[len(acknowledged) :] if ordered else sorted(set(published) - acknowledged)
    received = cloud.pull_all(name, len(rest))
    assert (bodies(received) if ordered else sorted(bodies(received))) == rest


# Beam


def test_beam_reads_and_writes(cloud: Cloud) -> None:
    """Beam's own Pub/Sub source and sink on the DirectRunner work against it, unchanged."""
    topic, name = cloud.pair()
    result_topic, results = cloud.pair()
    cloud.publish(topic, *[b"%d" % number for number in range(30)], attributes={"own": "kept"})
    with cloud.environment():
        pipeline = beam.Pipeline(options=PipelineOptions(["--runner=DirectRunner", "--streaming", "--project=p"]))
        read = pipeline | beam.io.ReadFromPubSub(subscription=name, with_attributes=True)
        read | beam.io.WriteToPubSub(topic=result_topic, with_attributes=True)
        running = pipeline.run()
        try:
            received = cloud.pull_all(results, 30)
        finally:
            cancelling = threading.Thread(target=running.cancel)
            cancelling.start()
            while cancelling.is_alive():
                cloud.publish(topic, b"31")  # ends the pull that the runner's only worker is waiting in
                cancelling.join(0.2)
    assert sorted(map(int, bodies(received))) == list(range(30))
    assert {message.message.attributes["own"] for message in received} == {"kept"}
