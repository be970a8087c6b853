"""The messages of templates/smoke.sh, and what must have become of them: ``python templates/smoke.py WHAT FLAGS``.

publish    ten messages: seven texts, one body that is no JSON, a picture of 8 MB, and the first text once more
check      waits until each has ended, and holds results, dead letters and rows against what was sent
one        publishes one more text, and waits for its result
waiting    publishes one more text, and takes it from the input subscription itself, where a drained job left it

Prints a line for each thing proved, ``ok`` or ``FAILED`` first, and exits with 1 if any failed. It needs an owner's
rights, or the emulator variables.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import PubsubMessage
from PIL import Image

from pipeline import clients
from pipeline.options import TableName

#: Names a message of a run; the job is launched with it as --id_attribute, so that the same name twice is a repeat.
ID, RUN = "smoke_id", "smoke_run"
TEXTS = 7
BAD, PICTURE, REPEATED = "bad", "picture", "text-1"
#: Width and height of the picture; noise does not compress, so three bytes a pixel are what it weighs.
SIDE = 1_634


@dataclass(frozen=True, slots=True)
class Sent:
    """One message, and how it must end: as a result, or as a dead letter of a stage."""

    name: str
    data: bytes
    stage: str | None = None
    content_type: str | None = None


def messages(run: str) -> list[Sent]:
    """The ten, the repeat last."""
    texts = [
        Sent(f"text-{n}", json.dumps({"inputs": f"Parcel {n} of {run} is late"}).encode()) for n in range(1, TEXTS + 1)
    ]
    bad = Sent(BAD, b"this is no JSON", "decode")
    return [*texts, bad, Sent(PICTURE, picture(run), "predict", "image/png"), texts[0]]


def picture(run: str) -> bytes:
    """Noise as a PNG of 8 MB, the same for the same run."""
    noise = hashlib.shake_256(run.encode()).digest(SIDE * SIDE * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), noise).save(file, "PNG", compress_level=0)
    return file.getvalue()


@dataclass
class Found:
    """What came out so far, once a message id: names of results and dead letters, as Pub/Sub delivers them."""

    results: dict[str, PubsubMessage] = field(default_factory=dict)
    dead_letters: dict[str, PubsubMessage] = field(default_factory=dict)
    nameless: int = 0

    def add(self, message: PubsubMessage, kind: str) -> None:
        """Keeps one of an id, as a crash may repeat results and dead letters; without an id they all stay."""
        name = "message_id" if kind == "results" else "dead_letter_message_id"
        identity = message.attributes.get(name, "")
        self.nameless += not identity
        getattr(self, kind)[identity or f"nameless {self.nameless}"] = message

    def ended(self, name: str) -> list[str]:
        """Ids under which a message of this name has ended."""
        both = {**self.results, **self.dead_letters}
        return [identity for identity, message in both.items() if message.attributes.get(ID) == name]


def publish(topic: str, run: str, sent: list[Sent]) -> None:
    for message in sent:
        attributes = {
            ID: message.name,
            RUN: run,
            **({"content-type": message.content_type} if message.content_type else {}),
        }
        request = {"topic": topic, "messages": [PubsubMessage(data=message.data, attributes=attributes)]}
        clients.pubsub(PublisherClient).publish(request=request, timeout=120)


def pull(subscription: str, run: str, timeout: float = 2.0) -> Iterator[PubsubMessage]:
    """Takes what is there of this run, and acknowledges it."""
    client = clients.pubsub(SubscriberClient)
    answer = client.pull(subscription=subscription, max_messages=10, timeout=timeout)
    if answer.received_messages:
        ids = [received.ack_id for received in answer.received_messages]
        client.acknowledge(subscription=subscription, ack_ids=ids)
    yield from (m.message for m in answer.received_messages if m.message.attributes.get(RUN) == run)


def collect(prefix: str, run: str, done: Callable[[Found], bool], wait_s: float) -> Found:
    """Pulls results and dead letters until ``done`` or ``wait_s`` are over."""
    found, deadline = Found(), time.monotonic() + wait_s
    while time.monotonic() < deadline and not done(found):
        for kind, subscription in (("results", f"{prefix}-output"), ("dead_letters", f"{prefix}-dead-letter")):
            try:
                for message in pull(subscription, run):
                    found.add(message, kind)
            except Exception as error:  # nothing there within the time given, or a service that is away for a moment
                if not clients.transient(error):
                    raise
                time.sleep(0.2)
    return found


def rows(table: TableName, ids: list[str], wait_s: float) -> dict[str, dict[str, str]]:
    """Rows by message id; those streamed a moment ago may take some seconds to be seen."""
    asked = ", ".join(f"'{identity}'" for identity in ids if identity.isalnum())
    query = f"SELECT message_id, status, stage, device FROM `{table}` WHERE message_id IN ({asked or 'NULL'})"  # noqa: S608
    deadline = time.monotonic() + wait_s
    while True:
        seen = {row["message_id"]: dict(row) for row in clients.bigquery_client(table.project).query(query).result()}
        if len(seen) >= len(ids) or time.monotonic() > deadline:
            return seen
        time.sleep(2)


def verdicts(
    sent: list[Sent], found: Found, seen: dict[str, dict[str, str]], device: str | None, repeats: bool
) -> Iterator[tuple[bool, str]]:
    """What was sent against what came out and what the audit table holds: a truth and its words, one by one.

    Where ``repeats`` are allowed, as at-least-once allows them, anything may have ended more than once.
    """
    once = {message.name: message for message in sent}
    results = sorted(message.attributes[ID] for message in found.results.values())
    expected = sorted(name for name, message in once.items() if message.stage is None)
    same = sorted(set(results)) == expected if repeats else results == expected
    yield same, f"{len(expected)} results, one for each text: {', '.join(results) or 'none'}"
    for name in (BAD, PICTURE):
        letters = [m for m in found.dead_letters.values() if m.attributes[ID] == name]
        stages = [m.attributes.get("dead_letter_stage") for m in letters]
        whole = [m.data == once[name].data for m in letters]
        size = len(once[name].data)
        alone = set(stages) == {once[name].stage} if repeats else stages == [once[name].stage]
        yield alone, f"{name}: one dead letter of stage {once[name].stage}: {stages or 'none'}"
        yield bool(whole) and all(whole), f"{name}: its {size:,} bytes came back untouched"
    times = len(found.ended(REPEATED))
    if repeats:
        yield times >= 1, f"repeats may stay: {REPEATED} ended {times} times"
    else:
        yield times == 1, f"the repeat was dropped: {REPEATED} ended {times} times"
    ids = [*found.results, *found.dead_letters]
    yield not found.nameless and bool(ids), f"{len(ids)} message ids, {found.nameless} of them empty"
    wrong = [i for i in found.results if seen.get(i, {}).get("status") != "ok"]
    wrong += [i for i in found.dead_letters if seen.get(i, {}).get("status") != "dead_letter"]
    yield not wrong and bool(ids), f"{len(seen)} audit rows for {len(ids)} messages, {len(wrong)} missing or different"
    if device:
        devices = {row["device"] for row in seen.values() if row["status"] == "ok"}
        yield bool(devices) and all(str(d).startswith(device) for d in devices), f"ran on {device}: {devices or 'none'}"


def check(
    prefix: str, table: TableName, run: str, wait_s: float, settle_s: float, device: str | None, repeats: bool
) -> Iterator[tuple[bool, str]]:
    sent = messages(run)
    names = {message.name for message in sent}
    found = collect(prefix, run, lambda found: all(found.ended(name) for name in names), wait_s)
    # A repeat that was not dropped may come a little later than its first.
    later = collect(prefix, run, lambda _: False, settle_s)
    for kind in ("results", "dead_letters"):
        getattr(found, kind).update(getattr(later, kind))
    seen = rows(table, [*found.results, *found.dead_letters], min(60.0, wait_s))
    yield from verdicts(sent, found, seen, device, repeats)


def one(topic: str, prefix: str, run: str, wait_s: float) -> Iterator[tuple[bool, str]]:
    name = f"one-{time.time_ns()}"
    publish(topic, run, [Sent(name, b'{"inputs": "After the update"}')])
    found = collect(prefix, run, lambda found: bool(found.ended(name)), wait_s)
    kinds = [m for m in found.results.values() if m.attributes[ID] == name]
    yield len(kinds) == 1, f"one more message became {len(kinds)} result"


def waiting(topic: str, prefix: str, run: str, wait_s: float) -> Iterator[tuple[bool, str]]:
    name, data = f"waiting-{time.time_ns()}", b'{"inputs": "After the drain"}'
    publish(topic, run, [Sent(name, data)])
    mine: list[bytes] = []
    deadline = time.monotonic() + wait_s
    while not mine and time.monotonic() < deadline:
        try:
            mine = [m.data for m in pull(f"{prefix}-input", run) if m.attributes[ID] == name]
        except Exception as error:
            if not clients.transient(error):
                raise
            time.sleep(0.2)
    yield mine == [data], f"after the drain a message stays in the subscription: found {len(mine)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("publish", "check", "one", "waiting"))
    parser.add_argument("--project", required=True)
    parser.add_argument("--name", required=True, help="beginning of the names that Terraform made")
    parser.add_argument("--run", required=True, help="tells this run's messages from any other's")
    parser.add_argument("--wait_s", type=float, default=900.0)
    parser.add_argument("--settle_s", type=float, default=30.0, help="how long check looks on for repeats")
    parser.add_argument("--repeats", action="store_true", help="allow them, as the mode at_least_once does")
    parser.add_argument("--device", help="what the audit rows must say that the model ran on")
    asked = parser.parse_args()
    topic = f"projects/{asked.project}/topics/{asked.name}-input"
    prefix = f"projects/{asked.project}/subscriptions/{asked.name}"
    table = TableName(asked.project, asked.name.replace("-", "_"), "audit")
    if asked.what == "publish":
        publish(topic, asked.run, messages(asked.run))
        told = iter([(True, "ten messages published")])
    elif asked.what == "check":
        told = check(prefix, table, asked.run, asked.wait_s, asked.settle_s, asked.device, asked.repeats)
    else:
        told = {"one": one, "waiting": waiting}[asked.what](topic, prefix, asked.run, asked.wait_s)
    failed = 0
    for true, words in told:
        failed += not true
        print("ok    " if true else "FAILED", words, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
