"""Streams for tests: servers, resources of one's own, messages in, and a ledger of what became of them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.pubsub_v1 import SubscriberClient

from pipeline import clients
from pipeline.emulators import setup
from pipeline.emulators.process import Server, spawn
from transforms.records import Message

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"

#: How long a service that is well may take to answer on a machine with much else to do.
PATIENCE_S = 60.0


@dataclass
class Servers:
    """A pair of embedded servers."""

    pubsub: Server
    bigquery: Server

    @classmethod
    @contextlib.contextmanager
    def start(cls, data: Path) -> Iterator[Servers]:
        """Starts both and points this process and its children to them."""
        with (
            spawn("pipeline.emulators.bigquery", "--port", "0", "--data", str(data)) as bigquery,
            spawn("pipeline.emulators.pubsub", "--port", "0", "--bigquery", bigquery.address) as pubsub,
        ):
            before = {server.name: os.environ.get(server.name) for server in (pubsub, bigquery)}
            use_pubsub(pubsub.address)
            os.environ[bigquery.name] = bigquery.address
            clients.bigquery_client.cache_clear()
            try:
                yield cls(pubsub, bigquery)
            finally:
                for name, value in before.items():
                    os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
                clients.pubsub.cache_clear()
                clients.bigquery_client.cache_clear()


def use_pubsub(address: str) -> None:
    """Points this process and its children to the Pub/Sub at ``address``."""
    os.environ["PUBSUB_EMULATOR_HOST"] = address
    clients.pubsub.cache_clear()


def fresh(name: str = "test") -> setup.Resources:
    """Topics, subscriptions and an audit table that nobody else uses."""
    resources = setup.Resources.named("my-project", f"{name}-{uuid.uuid4().hex[:8]}")
    setup.create(resources)
    return resources


@dataclass
class Ledger:
    """What became of messages: Counters by input message id, so that repeats show."""

    results: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def ended(self) -> Counter[str]:
        """How often each input message came out, as result or dead letter."""
        ids = [message.attributes["message_id"] for message in self.results]
        return Counter(ids + [message.attributes["dead_letter_message_id"] for message in self.dead_letters])

    def audited(self) -> Counter[str]:
        return Counter(row["message_id"] for row in self.rows)


def pull(subscription: str, expected: int, timeout: float) -> list[Message]:
    """Pulls until ``expected`` messages are there or ``timeout`` seconds are over."""
    found: list[Message] = []
    deadline = time.monotonic() + timeout
    while len(found) < expected and time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            found += _pull_now(subscription)
        if len(found) < expected:
            time.sleep(0.05)
    return found


def left(subscription: str) -> list[Message]:
    """What there is to be pulled right now."""
    found: list[Message] = []
    while now := _pull_now(subscription):
        found += now
    return found


def _pull_now(subscription: str) -> list[Message]:
    """One pull that does not wait for messages, and is patient for its answer.

    One that waits until its own deadline fails on a busy machine, and loses what it is given until the lease ends.
    """
    client = clients.pubsub(SubscriberClient)
    request = {"subscription": subscription, "max_messages": 1000, "return_immediately": True}
    received = client.pull(request=request, retry=None, timeout=PATIENCE_S).received_messages
    if received:
        ack_ids = [each.ack_id for each in received]
        client.acknowledge(subscription=subscription, ack_ids=ack_ids, timeout=PATIENCE_S)
    return [
        Message(m.data, dict(m.attributes), m.message_id, m.publish_time.timestamp(), 0.0, m.ordering_key)
        for m in (each.message for each in received)
    ]


def audit_rows(resources: setup.Resources) -> list[dict[str, Any]]:
    client = clients.bigquery_client(resources.audit_table.project)
    return [dict(row) for row in client.query(f"SELECT * FROM `{resources.audit_table}`").result()]


def collect(resources: setup.Resources, messages: int, timeout: float = 120) -> Ledger:
    """Waits until ``messages`` inputs came out, one way or the other, and reads their rows."""
    ledger = Ledger()
    deadline = time.monotonic() + timeout
    while len(ledger.ended()) < messages and time.monotonic() < deadline:
        missing = messages - len(ledger.ended())
        ledger.results += pull(resources.output_subscription, missing, 1)
        ledger.dead_letters += pull(resources.dead_letter_subscription, max(messages - len(ledger.ended()), 1), 0.5)
    ledger.rows = audit_rows(resources)
    return ledger


def text_message(text: str, **attributes: str) -> Message:
    return Message(json.dumps({"inputs": text}).encode(), attributes)


@contextlib.contextmanager
def job(resources: setup.Resources, *flags: str, log: Path, resource_flags: bool = True) -> Iterator[subprocess.Popen]:
    """The real job as its own process; killed at the end if it has not ended by itself.

    Weights run on torch where ``flags`` do not say otherwise: which of two engines is faster depends on what else runs.
    """
    command = [sys.executable, "-m", "pipeline.main", *(resources.flags() if resource_flags else []), *flags]
    given = {flag.partition("=")[0] for flag in flags}
    command += ["--engine=torch"] if "--model" in given and "--engine" not in given else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def drain(process: subprocess.Popen, timeout: float = 120) -> int:
    """SIGTERM, and the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout)


def waited(condition: Callable[[], Any], seconds: float = 4 * PATIENCE_S) -> bool:
    """Whether ``condition`` held within so many seconds."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def read_cases(name: str) -> list[dict[str, Any]]:
    """Cases of ``tests/cases/<name>.ndjson``, each with its ``message``."""
    cases = [json.loads(line) for line in (CASES / f"{name}.ndjson").read_text("utf-8").splitlines() if line]
    for case in cases:
        data = base64.b64decode(case["base64"]) if "base64" in case else case["data"].encode()
        case["message"] = Message(data, case.get("attributes", {}), ordering_key=case.get("ordering_key", ""))
    return cases
