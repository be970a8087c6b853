"""Load, and the account of what became of it: who ended how, how often, and with which audit rows."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient
from streams import PATIENCE_S

from pipeline import clients, publish
from pipeline.emulators.setup import Resources
from transforms.records import Message


class Load:
    """Publishes ``rate`` messages a second to ``topic`` in the background until stopped; ``sent`` has their ids."""

    def __init__(self, topic: str, rate: float, make: Callable[[int], Message] | None = None):
        self.sent: list[str] = []
        self.times: list[float] = []
        self._topic = topic
        self._rate = rate
        self._make = make or (lambda n: Message(json.dumps({"inputs": f"message {n}"}).encode(), {"n": str(n)}))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(0.1):
            due = int((time.monotonic() - started) * self._rate) - len(self.sent)
            if due > 0:
                batch = [self._make(len(self.sent) + n) for n in range(due)]
                self.sent += publish.publish_all(self._topic, batch)
                self.times += [time.time()] * due


class Collector:
    """Pulls results and dead letters in the background; ``results`` and ``letters`` count them by input message id."""

    def __init__(self, resources: Resources):
        self.results: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()
        self.first: dict[str, float] = {}
        self.foreign = 0
        self.order: list[Message] = []
        self._resources = resources
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=arguments, daemon=True)
            for arguments in (
                (resources.output_subscription, "message_id", self.results),
                (resources.dead_letter_subscription, "dead_letter_message_id", self.letters),
            )
        ]

    def __enter__(self) -> Collector:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, subscription: str, key: str, counter: Counter[str]) -> None:
        while not self._stop.is_set():
            client = clients.pubsub(SubscriberClient)
            try:
                request = {"subscription": subscription, "max_messages": 1000, "return_immediately": True}
                answer = client.pull(request=request, retry=None, timeout=PATIENCE_S)
                ack_ids = [received.ack_id for received in answer.received_messages]
                if ack_ids:
                    client.acknowledge(subscription=subscription, ack_ids=ack_ids, retry=None, timeout=PATIENCE_S)
                else:
                    self._stop.wait(0.05)
            except api.GoogleAPICallError:
                time.sleep(0.1)
                continue
            now = time.time()
            for received in answer.received_messages:
                message = received.message
                message_id = message.attributes.get(key)
                if message_id is None:
                    self.foreign += 1
                    continue
                counter[message_id] += 1
                self.first.setdefault(message_id, now)
                if message.ordering_key:
                    self.order.append(Message(b"", dict(message.attributes), ordering_key=message.ordering_key))

    def wait_for(self, sent: list[str], timeout: float) -> bool:
        """Whether every one of ``sent`` came out within ``timeout`` seconds."""
        missing, deadline = set(sent), time.monotonic() + timeout
        while True:
            missing -= self.first.keys()
            if not missing or time.monotonic() > deadline:
                return not missing
            time.sleep(0.1)


@dataclass(frozen=True)
class Account:
    """Inputs against results, dead letters and audit rows. A repeat has the ``message_id`` of its first."""

    sent: int
    results: int
    dead_letters: int
    lost: int
    both: int
    without_row: int
    contradicted: int
    repeated_results: int
    repeated_rows: int
    unrecognised: int
    latest_rows: int

    @property
    def kept(self) -> bool:
        """Whether every message is one result or one dead letter, has its row, and repeats are recognisable."""
        faults = (self.lost, self.both, self.without_row, self.contradicted, self.unrecognised)
        return not any(faults) and self.latest_rows == self.sent

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.kept}


def account(resources: Resources, sent: list[str], collected: Collector) -> Account:
    """The account of ``sent``, from what was collected and what the audit table has."""
    ids = set(sent)
    results, letters = collected.results, collected.letters
    client = clients.bigquery_client(resources.audit_table.project)
    rows: Counter[str] = Counter()
    for row in client.query(f"SELECT message_id, COUNT(*) AS n FROM `{resources.audit_table}` GROUP BY 1").result():
        rows[row["message_id"]] = row["n"]
    latest = {
        row["message_id"]: row["status"]
        for row in client.query(f"SELECT message_id, status FROM `{resources.audit_table}_latest`").result()
    }
    ended = dict.fromkeys(letters, "dead_letter") | dict.fromkeys(results, "ok")
    return Account(
        sent=len(sent),
        results=len(results),
        dead_letters=len(letters),
        lost=len(ids - ended.keys()),
        both=len(results.keys() & letters.keys()),
        without_row=len(ids - rows.keys()),
        contradicted=sum(latest.get(key) != status for key, status in ended.items()),
        repeated_results=sum(results.values()) + sum(letters.values()) - len(results) - len(letters),
        repeated_rows=sum(rows.values()) - len(rows),
        unrecognised=len((rows.keys() | ended.keys()) - ids) + collected.foreign,
        latest_rows=len(latest),
    )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """A source of random numbers that names its seed when a test fails."""
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"seed {seed}") if hasattr(error, "add_note") else None
        raise
