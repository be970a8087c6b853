"""Publishing the tickets and watching what becomes of them: results, dead letters, audit rows."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import PubsubMessage

from pipeline import clients, publish
from pipeline.demo.answers import Answer, describe
from pipeline.demo.tickets import EXPECTED
from pipeline.emulators.setup import Resources
from transforms.records import Message


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Where and why a ticket failed."""

    stage: str
    error_type: str
    error: str


@dataclass
class Ledger:
    """What became of every ticket, by message id; a repeat of a result counts once."""

    tickets: dict[str, Message] = field(default_factory=dict)
    results: dict[str, Answer] = field(default_factory=dict)
    dead_letters: dict[str, DeadLetter] = field(default_factory=dict)
    audited: set[str] = field(default_factory=set)

    def adds_up(self) -> bool:
        """Whether each ticket has a result or a dead letter, never both, and an audit row; and nothing else has."""
        ended = len(self.results) + len(self.dead_letters)
        return (
            ended == len(self.tickets)
            and self.results.keys() | self.dead_letters.keys() == self.tickets.keys()
            and self.audited == self.tickets.keys()
        )

    def line(self) -> str:
        """The counts, as the demo's last line has them."""
        return (
            f"messages={len(self.tickets)} results={len(self.results)} "
            f"dead_letters={len(self.dead_letters)} audit_rows={len(self.audited)}"
        )

    def verdicts(self) -> dict[str, bool]:
        """For each answered ticket that a person labelled: whether it got that label. Empty for any other model."""
        labels = {ticket.attributes.get(EXPECTED) for ticket in self.tickets.values()} - {None}
        if not labels & {answer.label for answer in self.results.values()}:
            return {}
        return {
            message_id: answer.label == self.tickets[message_id].attributes[EXPECTED]
            for message_id, answer in self.results.items()
            if message_id in self.tickets and EXPECTED in self.tickets[message_id].attributes
        }


class Stream:
    """The demo's end of the topics and of the table. ``poll`` brings ``ledger`` up to date and never waits."""

    def __init__(self, resources: Resources) -> None:
        self.ledger = Ledger()
        #: Seconds from publishing a ticket to its result's publication, of the latest ones.
        self.latencies: deque[float] = deque(maxlen=200)
        self._resources = resources
        self._published: dict[str, float] = {}
        self._audit_asked = 0.0

    def publish(self, tickets: Sequence[Message]) -> None:
        """Publishes ``tickets``, the ones of an ordering key in order."""
        before = time.time()
        for message_id, ticket in zip(publish.publish_all(self._resources.input_topic, tickets), tickets, strict=True):
            self.ledger.tickets[message_id] = ticket
            self._published[message_id] = before

    def poll(self) -> None:
        """Takes what has arrived of the tickets; asks the audit table once a second.

        What a person typed or replayed on the demo's page is no ticket, and is left out of the ledger.
        """
        now = time.monotonic()
        for message in _pull(self._resources.output_subscription):
            message_id = message.attributes["message_id"]
            if message_id in self._published:
                self.ledger.results[message_id] = describe(json.loads(message.data)["prediction"])
                self.latencies.append(message.publish_time.timestamp() - self._published[message_id])
        for message in _pull(self._resources.dead_letter_subscription):
            notes = {key: message.attributes.get(f"dead_letter_{key}", "") for key in ("stage", "error_type", "error")}
            if message.attributes["dead_letter_message_id"] in self._published:
                self.ledger.dead_letters[message.attributes["dead_letter_message_id"]] = DeadLetter(**notes)
        if now - self._audit_asked > 1:
            self._audit_asked = now
            rows = query(self._resources, "SELECT DISTINCT message_id FROM {audit}")
            self.ledger.audited = {row["message_id"] for row in rows} & self._published.keys()


def query(resources: Resources, sql: str) -> list[dict[str, Any]]:
    """The rows of a query in which ``{audit}`` stands for the audit table."""
    client = clients.bigquery_client(resources.audit_table.project)
    return [dict(row) for row in client.query(sql.replace("{audit}", f"`{resources.audit_table}`")).result()]


def _pull(subscription: str) -> list[PubsubMessage]:
    """What is there now, acknowledged."""
    client = clients.pubsub(SubscriberClient)
    request = {"subscription": subscription, "max_messages": 1000, "return_immediately": True}
    received = client.pull(request=request).received_messages
    if received:
        client.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in received])
    return [one.message for one in received]
