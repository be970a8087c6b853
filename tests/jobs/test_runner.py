"""The local source: a message is acknowledged once it is completely processed, and never before."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import grpc
import pytest
import streams
from fake_job import Behaviour, fake_job
from faults import GrpcProxy
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import AcknowledgeRequest
from hypothesis import given
from hypothesis import strategies as st
from streams import audit_rows, collect, fresh, pull, text_message

from pipeline import clients
from pipeline.direct import in_work, leases, subscriber
from pipeline.direct.received import parse_timestamp
from pipeline.direct.subscriber import Subscriber
from pipeline.publish import publish_all
from transforms.records import Message

pytestmark = pytest.mark.usefixtures("servers")

QUICK = Behaviour(lease_s=10)


@pytest.fixture
def source():
    """Makes subscribers, and closes them at the end."""
    made: list[Subscriber] = []

    def make(resources, **options) -> Subscriber:
        made.append(Subscriber(resources.input_subscription, clients.pubsub(SubscriberClient), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def take(found: Subscriber, count: int, timeout: float = 120) -> list[Message]:
    """At least ``count`` messages, or what came within ``timeout`` seconds."""
    messages: list[Message] = []
    deadline = time.monotonic() + timeout
    while len(messages) < count and time.monotonic() < deadline:
        messages += found.take(0.1)
    return messages


def left(resources) -> list[bytes]:
    """What the input subscription would hand to somebody else right now."""
    return sorted(message.data for message in streams.left(resources.input_subscription))


def test_only_what_is_done_is_acknowledged(source, monkeypatch):
    """Of ten messages taken, the four that are done are gone; the other six come back when their leases end."""
    monkeypatch.setattr(leases, "LEASE_S", 10)
    resources = fresh("done")
    publish_all(resources.input_topic, [Message(b"%d" % n) for n in range(10)])
    first = source(resources)
    messages = take(first, 10)
    first.done([message for message in messages if int(message.data) < 4])
    assert left(resources) == []
    first.close()
    assert left(resources) == []
    assert sorted(message.data for message in pull(resources.input_subscription, 6, 15)) == [
        b"%d" % n for n in range(4, 10)
    ]


def test_leases_are_kept_while_the_rest_is_given_back(source, monkeypatch):
    """From stop() on, what was not begun is others' at once; what is in work stays this one's until it is done."""
    monkeypatch.setattr(leases, "LEASE_S", 10)
    monkeypatch.setattr(leases, "RENEW_S", 1)
    monkeypatch.setattr(subscriber, "BUNDLE_MESSAGES", 4)
    resources = fresh("stop")
    publish_all(resources.input_topic, [Message(b"%d" % n) for n in range(8)])
    first = source(resources)
    begun = first.take(10)
    time.sleep(0.5)
    first.stop()
    assert first.take(0.1) == []
    begun_data = {message.data for message in begun}
    back = {message.data for message in pull(resources.input_subscription, 8 - len(begun), 5)}
    assert begun and back == {b"%d" % n for n in range(8)} - begun_data
    time.sleep(11)
    assert left(resources) == []
    first.done(begun)
    first.close()
    assert left(resources) == []


def test_nothing_is_fetched_before_it_is_asked_for(source):
    """A source that is made, and stopped and closed, has had no delivery: the first pull by another is attempt one."""
    resources = fresh("lazy")
    policy = {"dead_letter_topic": resources.dead_letter_topic, "max_delivery_attempts": 5}
    name = resources.input_subscription + "-strict"
    client = clients.pubsub(SubscriberClient)
    client.create_subscription(request={"name": name, "topic": resources.input_topic, "dead_letter_policy": policy})
    publish_all(resources.input_topic, [Message(b"x")])
    idle = Subscriber(name, client)
    time.sleep(0.5)
    idle.stop()
    assert idle.take(0.1) == []
    idle.close()
    (received,) = client.pull(subscription=name, max_messages=10, timeout=10).received_messages
    assert received.delivery_attempt == 1


def test_a_lost_acknowledgement_is_no_second_message(source, servers, monkeypatch):
    """A message that is done and is delivered again all the same is acknowledged again, and handed to nobody."""
    monkeypatch.setattr(leases, "LEASE_S", 10)
    resources = fresh("lost-ack")
    publish_all(resources.input_topic, [Message(b"x")])
    with GrpcProxy(servers.pubsub.address) as proxy:
        until = time.monotonic() + 14
        proxy.fault = lambda method, request: (
            grpc.StatusCode.UNAVAILABLE if method == "Acknowledge" and time.monotonic() < until else None
        )
        channel = grpc.insecure_channel(proxy.address)
        client = SubscriberClient(transport=SubscriberClient.get_transport_class("grpc")(channel=channel))
        found = Subscriber(resources.input_subscription, client)
        found.done(take(found, 1))
        assert take(found, 1, 16) == []
        found.close()
        assert proxy.faults > 3
    time.sleep(11)
    assert left(resources) == []


@given(st.lists(st.text(max_size=40).map(lambda text: text * 5_000), max_size=30))
def test_requests_hold_what_one_may_hold(ack_ids):
    """However long ack ids are, every request is within the service's 512 KiB, or has one id; none is lost."""
    found = list(leases.requests(ack_ids))
    assert [ack_id for chunk in found for ack_id in chunk] == ack_ids
    for chunk in found:
        request = AcknowledgeRequest(subscription="projects/p/subscriptions/" + "s" * 255, ack_ids=chunk)
        assert len(chunk) == 1 or AcknowledgeRequest.pb(request).ByteSize() <= 512 * 1024


def test_requests_hold_a_thousand():
    """Short ack ids go a thousand at a time."""
    assert [len(chunk) for chunk in leases.requests(str(n) for n in range(2_500))] == [1_000, 1_000, 500]


def test_leases_are_renewed_while_the_work_lasts(source, monkeypatch):
    """Work that takes longer than the lease is not delivered to anybody else."""
    monkeypatch.setattr(leases, "LEASE_S", 10)
    monkeypatch.setattr(leases, "RENEW_S", 2)
    resources = fresh("renew")
    publish_all(resources.input_topic, [Message(b"slow")])
    first = source(resources)
    (message,) = take(first, 1)
    time.sleep(11)
    assert left(resources) == []
    first.done([message])
    first.close()
    assert left(resources) == []


def test_an_acknowledgement_is_tried_again(source, servers):
    """An acknowledgement that fails for a while is not forgotten."""
    resources = fresh("ack")
    publish_all(resources.input_topic, [Message(b"x")])
    with GrpcProxy(servers.pubsub.address) as proxy:
        failures = iter([grpc.StatusCode.UNAVAILABLE] * 3)
        proxy.fault = lambda method, request: next(failures, None) if method == "Acknowledge" else None
        channel = grpc.insecure_channel(proxy.address)
        client = SubscriberClient(transport=SubscriberClient.get_transport_class("grpc")(channel=channel))
        found = Subscriber(resources.input_subscription, client)
        found.done(take(found, 1))
        found.close()
        assert proxy.faults == 3
    assert left(resources) == []


def test_a_stuck_bundle_is_said(source, monkeypatch, caplog):
    """A bundle that stays in work for long is warned of, with what can be done; one that moves on is not."""
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    monkeypatch.setattr(in_work, "SLOW_S", 0.5)
    resources = fresh("stuck")
    publish_all(resources.input_topic, [Message(b"x")])
    found = source(resources)
    messages = take(found, 1)
    said = "1 messages have been in work for"
    deadline = time.monotonic() + 60
    while said not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said in caplog.text
    found.done(messages)
    found.take(0.1)
    before = caplog.text.count(said)
    time.sleep(1.2)
    assert caplog.text.count(said) == before


def test_repeats_by_attribute_are_dropped(source):
    """Of messages with the same id attribute the first is handed over; a replayed one is another, and no id is none."""
    resources = fresh("repeats")
    ids = ["a", "b", "a", "a", "c", "b", "", ""]
    messages = [Message(b"%d" % n, {"key": key}) for n, key in enumerate(ids)]
    messages += [Message(b"none"), Message(b"none"), Message(b"replayed", {"key": "a", "dead_letter_attempt": "1"})]
    publish_all(resources.input_topic, messages)
    found = source(resources, id_attribute="key")
    taken = take(found, 8)
    taken += found.take(0.5)
    assert Counter(m.attributes.get("key", m.data) for m in taken) == {"a": 2, "b": 1, "c": 1, "": 2, b"none": 2}
    found.done(taken)
    found.close()
    assert left(resources) == []


def test_a_repeat_of_what_was_not_done_is_kept(source, monkeypatch):
    """Deduplication is the memory of one source: what it did not do is handed over by the next."""
    resources = fresh("given-back")
    publish_all(resources.input_topic, [Message(b"x", {"key": "a"})])
    monkeypatch.setattr(leases, "LEASE_S", 10)
    first = source(resources, id_attribute="key")
    assert len(take(first, 1)) == 1
    first.close()
    assert len(take(source(resources, id_attribute="key"), 1)) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-01T00:00:00Z", 1_704_067_200.0),
        ("2024-01-01T01:00:00.500+01:00", 1_704_067_200.5),
        ("1704067200500", 1_704_067_200.5),
        ("-1000", -1.0),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800.123456),
        ("2026-01-31t12:00:00.1z", 1_769_860_800.1),
        ("2026-01-31T12:00:00", 7.0),
        ("2026-01-31", 7.0),
        ("9999-12-31T23:59:59-01:00", 7.0),
        ("0001-01-01T00:00:00+01:00", 7.0),
        ("", 7.0),
        ("yesterday", 7.0),
        ("²", 7.0),
        ("--5", 7.0),
        ("9" * 30, 7.0),
        ("9" * 5000, 7.0),
        ("2024-02-30T00:00:00Z", 7.0),
    ],
)
def test_timestamps_are_read_or_passed_over(text, seconds):
    """RFC 3339 and milliseconds are read as Dataflow does; anything else falls back to the publish time."""
    assert parse_timestamp(text, 7.0) == seconds


def test_the_timestamp_attribute_is_the_event_time(source):
    """With --timestamp_attribute the event time is the message's own."""
    resources = fresh("times")
    publish_all(resources.input_topic, [Message(b"x", {"at": "2024-01-01T00:00:00Z"}), Message(b"y", {"at": "no"})])
    times = {m.data: (m.event_time, m.publish_time) for m in take(source(resources, timestamp_attribute="at"), 2)}
    assert times[b"x"][0] == 1_704_067_200.0
    assert times[b"y"][0] == times[b"y"][1] > 1_704_067_200.0


def test_lingering_waits_for_company(source):
    """With a linger time a bundle gathers what comes within it."""
    resources = fresh("linger")
    found = source(resources, linger_s=4.0)
    publish_all(resources.input_topic, [Message(b"first")])
    threading.Timer(0.3, publish_all, (resources.input_topic, [Message(b"second")])).start()
    deadline, bundle = time.monotonic() + 60, []
    while not bundle and time.monotonic() < deadline:
        bundle = found.take(0.1)
    assert {message.data for message in bundle} == {b"first", b"second"}


def test_a_subscription_that_is_gone_ends_the_job(tmp_path):
    """A subscription deleted under the job is an error that waiting cannot mend: exit code 1, one error line."""
    resources = fresh("gone")
    with fake_job(resources.flags(), tmp_path / "log", QUICK) as job:
        job.until_running()
        clients.pubsub(SubscriberClient).delete_subscription(subscription=resources.input_subscription)
        assert job.wait(120) == 1
        assert "the job failed" in job.words()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_draining_gives_back_what_was_not_begun(tmp_path, number):
    """SIGTERM and Ctrl-C finish the bundle in work and exit 0; all else is there for the next at once, none twice."""
    resources = fresh("drain")
    ids = publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(4000)])
    with fake_job(resources.flags(), tmp_path / "log", Behaviour(delay_ms=3)) as job:
        job.until_running()
        pull(resources.output_subscription, 1, 60)
        os.kill(job.process.pid, number)
        assert job.wait(120) == 0, job.words()
    done = {row["message_id"] for row in audit_rows(resources)}
    assert 0 < len(done) < 4000
    back = {message.message_id for message in streams.left(resources.input_subscription)}
    assert back and back <= set(ids) - done


def test_a_start_that_fails_costs_no_message_a_delivery(tmp_path):
    """Starts whose model cannot be loaded end with one line and exit code 2, and were delivered no message."""
    resources = fresh("start")
    given_up = fresh("given-up")
    policy = {"dead_letter_topic": given_up.input_topic, "max_delivery_attempts": 10}
    name = resources.input_subscription + "-strict"
    client = clients.pubsub(SubscriberClient)
    client.create_subscription(
        request={
            "name": name,
            "topic": resources.input_topic,
            "dead_letter_policy": policy,
            "ack_deadline_seconds": 60,
        }
    )
    publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(20)])
    for _ in range(11):
        with fake_job(
            [*resources.flags(), f"--input_subscription={name}"], tmp_path / "log", Behaviour(unloadable=True)
        ) as job:
            assert job.wait(60) == 2
        errors = [line for line in job.words().splitlines() if "error" in line.lower()]
        assert errors == ["error: model 'fake' cannot be loaded: RuntimeError: header too large or so"], job.words()
        assert "running" not in job.words()
    answer = client.pull(subscription=name, max_messages=100, timeout=10)
    assert {received.delivery_attempt for received in answer.received_messages} == {1}
    assert pull(given_up.input_subscription, 1, 1) == []


def test_a_step_that_fails_on_one_message_costs_that_one(tmp_path):
    """Of 300 messages the three on which a step raises are dead letters, told in the log; the job runs on."""
    resources = fresh("halves")
    texts = [f"message {n}" + (" with a bug" if n in (7, 8, 250) else "") for n in range(300)]
    ids = publish_all(resources.input_topic, [text_message(text) for text in texts])
    with fake_job(resources.flags(), tmp_path / "log", Behaviour(bug="bug")) as job:
        ledger = collect(resources, len(ids), 120)
        later = publish_all(resources.input_topic, [text_message("and on")])
        assert collect(resources, 1, 60).ended() == Counter(later)
        assert job.drain() == 0
    assert "KeyError at " in job.words() and "with a bug" not in job.words(), "an error's text may quote a message"
    assert ledger.ended() == ledger.audited() == Counter(ids)
    letters = {letter.attributes["dead_letter_message_id"]: letter.attributes for letter in ledger.dead_letters}
    assert set(letters) == {ids[7], ids[8], ids[250]}
    assert {(each["dead_letter_stage"], each["dead_letter_error_type"]) for each in letters.values()} == {
        ("predict", "Unexpected")
    }


def test_a_failed_bundle_is_never_acknowledged(tmp_path):
    """A bundle whose step raises fails the job; its messages come to the next as their leases end, and end once."""
    resources = fresh("failed")
    ids = publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(30)])
    with fake_job(resources.flags(), tmp_path / "log", Behaviour(allocate_mb=1 << 22, lease_s=20)) as job:
        assert job.wait(120) == 1
    # Not at once: a job that is started again and again would use up their deliveries.
    assert left(resources) == []
    assert audit_rows(resources) == []
    with fake_job(resources.flags(), tmp_path / "log", QUICK) as job:
        ledger = collect(resources, len(ids), 120)
        assert job.drain() == 0
    assert ledger.ended() == ledger.audited() == Counter(ids)


def test_order_survives_the_pipeline_and_its_faults(servers, tmp_path):
    """Results of an ordering key come in the order of its messages, also when publishing fails now and then."""
    resources = fresh("order")
    keys, each = 5, 60
    messages = [
        Message(b'{"inputs": "%d"}' % n, {"n": str(n)}, ordering_key=f"k{n % keys}") for n in range(keys * each)
    ]
    with GrpcProxy(servers.pubsub.address) as proxy:
        count = iter(range(1_000_000))
        proxy.fault = lambda method, request: (
            grpc.StatusCode.UNAVAILABLE if method == "Publish" and next(count) % 3 == 0 else None
        )
        with fake_job(resources.flags(), tmp_path / "log", QUICK, {"PUBSUB_EMULATOR_HOST": proxy.address}) as job:
            publish_all(resources.input_topic, messages)
            results = pull(resources.output_subscription, len(messages), 60)
            assert job.drain() == 0
    by_key: dict[str, list[int]] = {}
    for result in results:
        by_key.setdefault(result.ordering_key, []).append(int(result.attributes["n"]))
    assert proxy.faults > 0
    assert by_key == {f"k{k}": list(range(k, keys * each, keys)) for k in range(keys)}
    assert {row["ordering_key"] for row in audit_rows(resources)} == set(by_key)
