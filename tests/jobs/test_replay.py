"""Replay: dead letters go back as the messages they were, each at least once, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from fake_job import Behaviour, fake_job
from faults import HttpProxy, RejectRows
from google.pubsub_v1 import SubscriberClient
from hypothesis import given
from hypothesis import strategies as st
from streams import ROOT, audit_rows, collect, fresh, left, pull

from pipeline import clients, publish
from pipeline.dead_letters import Choice, Letters, replay
from pipeline.emulators import setup
from pipeline.replay import main
from transforms.dead_letter import Source, dead_letter, restore, stage
from transforms.encode import encode, rfc3339
from transforms.records import Failure, Limits, Message, ModelInfo, Prediction, Request

pytestmark = pytest.mark.usefixtures("servers")

QUIET = 0.6


NOWHERE = Source()


def letter(data: bytes = b"x", where: str = "decode", kind: str = "InvalidBody", source=NOWHERE, **fields) -> Message:
    return dead_letter(Failure(Message(data, **fields), where, kind, "why", time.time()), clients.LIMITS, source)


def publish_letters(resources, *letters: Message) -> list[str]:
    return publish.publish_all(resources.dead_letter_topic, letters)


def command(resources, *flags: str) -> list[str]:
    """The flags of a replay of ``resources``' dead letters; a later flag wins."""
    names = [f"--dead_letter_subscription={resources.dead_letter_subscription}", f"--topic={resources.input_topic}"]
    return [*names, f"--idle_s={QUIET}", *flags]


def waiting(resources) -> list[Message]:
    """The dead letters that are still on the subscription (and are taken off it)."""
    return left(resources.dead_letter_subscription)


attributes = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    max_size=90,
)


@given(st.binary(max_size=50), attributes, st.text(max_size=9), st.integers(1, 6))
def test_restoring_undoes_the_dead_letter(data, own, key, times):
    """However often a message died, it is restored with its own bytes, attributes and key, and the count."""
    own = {name: value for name, value in own.items() if not name.startswith(("dead_letter_", "CloudPubSub"))}
    message = Message(data, own, "7", ordering_key=key)
    for attempt in range(1, times + 1):
        died = dead_letter(Failure(message, "predict", "ModelError", "why", 0.0), Limits(10_000_000, 200, 1024))
        message = restore(died, clients.LIMITS)
        kept = {"dead_letter_attempt": str(attempt), "dead_letter_first_message_id": "7"}
        assert message == Message(data, {**own, **kept}, ordering_key=key)
        message = Message(data, message.attributes, f"again-{attempt}", ordering_key=key)


def test_what_pubsub_gave_up_is_understood():
    """The attributes of Pub/Sub's own dead-letter policy are taken off, and it counts as one attempt more."""
    own = {"customer": "c-1", "dead_letter_attempt": "2"}
    theirs = {
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": "inference-input",
        "CloudPubSubDeadLetterSourceSubscriptionProject": "my-project",
        "CloudPubSubDeadLetterSourceTopicPublishTime": "2030-01-01T00:00:00.000+00:00",
    }
    given_up = Message(b"x", {**own, **theirs}, ordering_key="k")
    assert stage(given_up) == "pubsub"
    assert restore(given_up, clients.LIMITS) == Message(b"x", {**own, "dead_letter_attempt": "3"}, ordering_key="k")


def test_a_full_message_is_restored_without_a_count():
    """Where a hundred attributes or ten million bytes leave no room for the count, the message goes back as it was."""
    many = {f"k{n}": "v" for n in range(100)}
    assert restore(Message(b"x", many), clients.LIMITS).attributes == many
    assert restore(Message(bytes(clients.LIMITS.message_bytes)), clients.LIMITS).attributes == {}


def test_what_pubsub_really_gives_up_is_replayed(tmp_path):
    """A message that its subscription forwards after five deliveries comes back to the input topic as it was."""
    resources = fresh("policy")
    policy = {"dead_letter_topic": resources.dead_letter_topic, "max_delivery_attempts": 5}
    name = resources.input_subscription + "-strict"
    client = clients.pubsub(SubscriberClient)
    client.create_subscription(request={"name": name, "topic": resources.input_topic, "dead_letter_policy": policy})
    publish.publish_all(resources.input_topic, [Message(b"\xff\x00", {"a": "b"})])
    for _ in range(5):
        received = client.pull(subscription=name, max_messages=1, timeout=60).received_messages
        client.modify_ack_deadline(subscription=name, ack_ids=[received[0].ack_id], ack_deadline_seconds=0)
    pull(resources.input_subscription, 1, 60)
    assert main(command(resources, "--stage=pubsub")) == 0
    (again,) = pull(resources.input_subscription, 1, 60)
    assert (again.data, again.attributes) == (b"\xff\x00", {"a": "b", "dead_letter_attempt": "1"})
    assert waiting(resources) == []


def test_filters_choose_and_the_rest_stays():
    """Only what fits every filter is replayed; all else is back on the subscription at once."""
    resources = fresh("filters")
    publish_letters(
        resources,
        letter(b"1", "decode"),
        letter(b"2", "predict", "OutOfMemory"),
        letter(b"3", "predict", "OutOfMemory", attributes={"customer": "c-1", "tier": "gold"}),
        letter(b"4", "predict", "ModelError", attributes={"customer": "c-1", "tier": "gold"}),
        letter(b"5", "audit", "RowRejected", attributes={"customer": "c-1"}),
    )
    chosen = [
        "--stage=predict",
        "--stage=audit",
        "--error_type=OutOfMemory",
        "--attribute=customer=c-1",
        "--attribute=tier=gold",
    ]
    assert main(command(resources, *chosen)) == 0
    assert [message.data for message in pull(resources.input_subscription, 1, 60)] == [b"3"]
    assert sorted(message.data for message in waiting(resources)) == [b"1", b"2", b"4", b"5"]


def test_times_choose():
    """--since and --until take a time or an age, and look at when the message died."""
    resources = fresh("times")
    publish_letters(resources, letter(b"early"))
    time.sleep(1.1)
    middle = time.time()
    publish_letters(resources, letter(b"late"))
    assert main(command(resources, "--until=1h")) == 0
    assert main(command(resources, f"--since={rfc3339(middle)}")) == 0
    assert [message.data for message in pull(resources.input_subscription, 1, 60)] == [b"late"]
    assert main(command(resources, "--since=1h")) == 0
    assert [message.data for message in pull(resources.input_subscription, 1, 60)] == [b"early"]


def test_a_dry_run_changes_nothing(capsys):
    """--dry_run shows each dead letter with its stage and error, publishes nothing, and leaves all where they are."""
    resources = fresh("dry")
    publish_letters(resources, *[letter(b"%d" % n, message_id=f"id-{n}") for n in range(3)])
    assert main(command(resources, "--dry_run")) == 0
    *shown, kinds, last = capsys.readouterr().out.splitlines()
    assert kinds.split() == ["3", "decode", "InvalidBody"] and last.startswith(
        "dry run, nothing is changed: would be 3 "
    )
    assert len(shown) == 3 and all("decode" in line and "InvalidBody" in line and "why" in line for line in shown)
    assert {f"id-{n}" for n in range(3)} == {line.split()[-2] for line in shown}
    assert left(resources.input_subscription) == []
    assert len(waiting(resources)) == 3


def results(count: int) -> list[Message]:
    """Messages as the job publishes them, the last one of a message that was replayed."""
    model = ModelInfo("text-classification", "m", "r", "cpu", "float32")
    inputs = [Message(b"%d" % n, {"n": str(n)}, str(n)) for n in range(count - 1)]
    inputs.append(restore(letter(message_id="replayed"), clients.LIMITS))
    made = [encode(Prediction(Request("x", {}, each), [n], model), clients.LIMITS) for n, each in enumerate(inputs)]
    return [Message(each.data, each.attributes) for each in made]


@pytest.mark.parametrize("count", [7, 1_500])
def test_the_results_are_not_replayed(caplog, count):
    """Pointed at the results' subscription, a replay publishes nothing, leaves all, says so once, and exits with 2."""
    resources = fresh("results")
    publish.publish_all(resources.output_topic, results(count))
    assert main(command(resources, f"--dead_letter_subscription={resources.output_subscription}")) == 2
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "messages on " + resources.output_subscription in said and "do not say that they are dead letters" in said
    # Where nothing is a dead letter it does not go through all there is.
    assert int(said.split()[0]) == count if count < 1_000 else 1_000 <= int(said.split()[0]) <= count
    assert left(resources.input_subscription) == []
    assert len(left(resources.output_subscription)) == count


def test_a_stranger_among_dead_letters_stays(caplog):
    """What is no dead letter is left and counted, the dead letters beside it are replayed; --unmarked takes all."""
    resources = fresh("strangers")
    full = Message(b"full", {f"k{n}": "v" for n in range(100)})
    publish.publish_all(resources.dead_letter_topic, [letter(b"dead"), full])
    assert main(command(resources)) == 0
    assert [message.data for message in pull(resources.input_subscription, 1, 10)] == [b"dead"]
    assert caplog.text.count("1 messages on ") == 1
    assert main(command(resources, "--unmarked")) == 0
    (again,) = pull(resources.input_subscription, 1, 10)
    assert (again.data, again.attributes) == (b"full", full.attributes)


def test_dead_letters_go_to_their_own_input_alone(caplog):
    """Of a dead-letter topic that two jobs share, each input gets its own; --any_topic sends what is left anywhere."""
    ours, theirs = fresh("ours"), fresh("theirs")
    publish_letters(
        ours,
        letter(b"ours", source=Source("ours", ours.input_subscription)),
        letter(b"theirs", source=Source("theirs", theirs.input_subscription)),
        letter(b"older", source=Source()),
    )
    assert main(command(ours)) == 0
    assert {message.data for message in pull(ours.input_subscription, 2, 10)} == {b"ours", b"older"}
    assert f"1 messages stay where they are, each a dead letter of {theirs.input_subscription}" in caplog.text
    assert main(command(ours)) == 2
    assert left(ours.input_subscription) == []
    assert main(command(ours, "--any_topic")) == 0
    assert [message.data for message in pull(ours.input_subscription, 1, 10)] == [b"theirs"]


def test_dead_letters_of_a_subscription_that_is_gone_go_where_asked(caplog):
    """Where it cannot be told any more which topic their input was, that is said once, and --topic is believed."""
    resources, gone = fresh("gone"), "projects/my-project/subscriptions/no-more"
    publish_letters(resources, *[letter(b"%d" % n, source=Source("gone", gone)) for n in range(3)])
    assert main(command(resources)) == 0
    assert len(pull(resources.input_subscription, 3, 10)) == 3
    assert caplog.text.count(f"which topic {gone} reads cannot be told") == 1


def test_those_that_failed_too_often_stay(caplog):
    """A message that has died --max_attempts times is left on the subscription, and the log says so."""
    resources = fresh("attempts")
    tired = letter(b"tired", attributes={"dead_letter_attempt": "2"})
    publish_letters(resources, tired, letter(b"fresh"))
    assert main(command(resources, "--max_attempts=3")) == 0
    assert [message.data for message in pull(resources.input_subscription, 1, 60)] == [b"fresh"]
    assert "1 dead letters have failed 3 times or more and stay where they are" in caplog.text
    assert [message.data for message in waiting(resources)] == [b"tired"]


def test_limit_and_rate():
    """--limit replays so many and no more; --rate spreads them over time."""
    resources = fresh("limit")
    publish_letters(resources, *[letter(b"%d" % n) for n in range(30)])
    started = time.monotonic()
    assert main(command(resources, "--limit=12", "--rate=8")) == 0
    assert time.monotonic() - started >= 12 / 8
    assert len(left(resources.input_subscription)) == 12
    assert len(waiting(resources)) == 18


def test_what_dies_again_meanwhile_is_left_for_the_next_time():
    """A dead letter younger than the replay is not replayed by it: what keeps dying must not go round and round."""
    resources = fresh("again")
    publish_letters(resources, letter(b"old"))
    asked = []

    def publish(topic, messages):
        asked.extend(messages)
        publish_letters(resources, *[letter(message.data, attributes=message.attributes) for message in messages])

    with Letters(resources.dead_letter_subscription, QUIET) as letters:
        tally = replay(letters, resources.input_topic, Choice(until=time.time()), publish=publish)
    assert (len(asked), tally.replayed, tally.left) == (1, 1, 1)
    assert [message.attributes["dead_letter_attempt"] for message in waiting(resources)] == ["2"]


def test_order_is_kept():
    """The dead letters of an ordering key are published in the order in which they died."""
    resources = fresh("order")
    publish_letters(resources, *[letter(b"%d" % n, ordering_key=f"k{n % 3}") for n in range(60)])
    assert main(command(resources)) == 0
    by_key: dict[str, list[int]] = {}
    for message in pull(resources.input_subscription, 60, 60):
        by_key.setdefault(message.ordering_key, []).append(int(message.data))
    assert by_key == {f"k{n}": list(range(n, 60, 3)) for n in range(3)}


def test_a_failed_publish_acknowledges_nothing():
    """When the topic refuses for good, the replay fails and every dead letter is back on the subscription."""
    resources = fresh("refused")
    publish_letters(resources, *[letter(b"%d" % n) for n in range(5)])

    def refuse(topic, messages):
        raise clients.api.PermissionDenied("no")

    with pytest.raises(clients.api.PermissionDenied), Letters(resources.dead_letter_subscription, QUIET) as letters:
        replay(letters, resources.input_topic, Choice(), publish=refuse)
    assert len(waiting(resources)) == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_interrupted_replay_loses_nothing(number):
    """Ended half way by any signal, the replay leaves each message published or on the subscription."""
    resources = fresh("interrupt")
    sent = {b"%d" % n for n in range(300)}
    publish_letters(resources, *[letter(data) for data in sorted(sent)])
    short = (
        "import sys; from pipeline import dead_letters, replay; dead_letters.leases.LEASE_S = 10;"
        " sys.exit(replay.main())"
    )
    argv = [sys.executable, "-c", short, *command(resources, "--rate=50")]
    process = subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    replayed = pull(resources.input_subscription, 60, 60)
    process.send_signal(number)
    _, words = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number is signal.SIGKILL else 1), words
    replayed += left(resources.input_subscription)
    if number is signal.SIGKILL:
        # What it held comes back when its leases end.
        deadline = time.monotonic() + 120
        rest: set[bytes] = set()
        while rest | {m.data for m in replayed} != sent and time.monotonic() < deadline:
            rest |= {message.data for message in waiting(resources)}
    else:
        assert "the rest is back on the subscription" in words
        rest = {message.data for message in waiting(resources)}
    assert {message.data for message in replayed} | rest == sent
    assert len(replayed) < 300


def test_wrong_usage_is_one_clear_line(capsys):
    """A wrong flag or value, a topic that is not there or that nobody reads, a circle, no time between: exit code 2."""
    resources, unread = fresh("usage"), f"projects/my-project/topics/unread-{time.time_ns()}"
    setup.create_topic(unread)
    for flags, words in (
        ([], "--dead_letter_subscription is missing"),
        (command(resources, "--stagee=decode"), "no such flag"),
        (command(resources, "--stage=decoed"), "--stage 'decoed': use decode or predict"),
        (command(resources, "--since=yesterday"), "--since 'yesterday': use 2030-01-31T12:00:00Z"),
        (command(resources, "--attribute=x"), "use KEY=VALUE"),
        (command(resources, "--limit=0"), "whole number from 1"),
        (command(resources, "--rate=-1"), "a number over 0"),
        (command(resources, "--topic=projects/my-project/topics/nowhere"), "does not exist"),
        (command(resources, f"--topic={unread}"), "has no subscription: what is published to it would be gone"),
        (command(resources, "--since=1m", "--until=1h"), "which is not before --until"),
        (command(resources, "--since=1h", "--until=1h"), "nothing can have died between them"),
        (command(resources, "--since=2999-01-01T00:00:00Z"), "which is not before now"),
        (command(resources, "--until=999999999d", "--since=999999999d"), "before the year 1"),
        (command(resources, f"--topic={resources.dead_letter_topic}"), "is the dead-letter topic itself"),
    ):
        assert main(flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and words in line, line


def test_dead_letters_of_every_stage_become_results(tmp_path, servers):
    """What died at decode, predict, encode and audit comes back once that is mended: all results, same bytes."""
    resources = fresh("stages")
    bodies = {
        "decode": b'{"text": "no inputs here"}',
        "predict": b'{"text": "x", "inputs": "refused by the model"}',
        "encode": b'{"text": "x", "inputs": "' + b"long " * 5 + b'"}',
        "audit": b'{"text": "x", "inputs": "a row that is refused"}',
    }
    inputs = [
        Message(data, {"case": case, **({"pad": "p" * 900} if case == "encode" else {})})
        for case, data in bodies.items()
    ]
    publish.publish_all(resources.input_topic, inputs)
    broken = Behaviour(refuse="refused by the model", message_bytes=3_000)
    with (
        HttpProxy(servers.bigquery.address) as proxy,
        fake_job(resources.flags(), tmp_path / "log", broken, {"BIGQUERY_EMULATOR_HOST": proxy.address}),
    ):
        proxy.fault = lambda method, path: RejectRows(lambda row: row.get("status") == "ok")
        # Not collect(): the dead letters must stay on their subscription.
        deadline = time.monotonic() + 120
        while len(rows := audit_rows(resources)) < 4 and time.monotonic() < deadline:
            time.sleep(0.3)
        time.sleep(0.5)
    assert sorted(row["stage"] for row in rows) == sorted(bodies)

    assert main(command(resources)) == 0
    # The first attempt's results would be told apart by the count.
    with fake_job([*resources.flags(), "--input_path=text"], tmp_path / "log"):
        ledger = collect(resources, 4, 120)
    assert {m.attributes["case"]: m.attributes["dead_letter_attempt"] for m in ledger.results} == dict.fromkeys(
        bodies, "1"
    )
    assert ledger.dead_letters == []
    died = {row["attributes"]["case"]: row["message_id"] for row in rows}
    assert {m.attributes["case"]: m.attributes["dead_letter_first_message_id"] for m in ledger.results} == died
    ok = {row["input_sha256"] for row in ledger.rows if row["status"] == "ok"}
    assert ok == {row["input_sha256"] for row in ledger.rows if row["status"] == "dead_letter"} and len(ok) == 4
