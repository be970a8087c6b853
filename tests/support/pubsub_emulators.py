"""Pub/Sub servers to test against, and clients of them that keep tests short."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import grpc
import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "test-project"
_counter = itertools.count()


def fresh_id(prefix: str) -> str:
    """A name no other test or run has used."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}-{next(_counter)}"


class Cloud:
    """One server at ``address``, through the clients that google-cloud-pubsub makes for an emulator.

    ``publisher`` and ``subscriber`` are the generated clients, one call a request; :meth:`high_level` makes those that
    batch and stream, as applications use them.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        with self.environment():
            self.publisher = PublisherClient()
            self.subscriber = SubscriberClient()

    def environment(self):
        """Points clients made within it here."""
        return mock.patch.dict(os.environ, PUBSUB_EMULATOR_HOST=self.address)

    def high_level(self, **options: object) -> tuple[pubsub_v1.PublisherClient, pubsub_v1.SubscriberClient]:
        with self.environment():
            return pubsub_v1.PublisherClient(**options), pubsub_v1.SubscriberClient()

    def large_messages(self) -> tuple[PublisherClient, SubscriberClient]:
        """Clients without the 4 MiB limit that gRPC sets on what an emulator's client receives."""
        channel = grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", -1)])
        return (
            PublisherClient(transport=PublisherGrpcTransport(channel=channel)),
            SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)),
        )

    def topic(self) -> str:
        return self.publisher.create_topic(name=f"projects/{PROJECT}/topics/{fresh_id('topic')}").name

    def subscription(self, topic: str, **settings: object) -> str:
        name = f"projects/{PROJECT}/subscriptions/{fresh_id('subscription')}"
        return self.subscriber.create_subscription(request={"name": name, "topic": topic, **settings}).name

    def pair(self, **settings: object) -> tuple[str, str]:
        """A fresh topic and its subscription."""
        topic = self.topic()
        return topic, self.subscription(topic, **settings)

    def publish(self, topic: str, *bodies: bytes, **fields: object) -> list[str]:
        """Publishes one message a body, all with the same other ``fields``, in one request; returns their ids."""
        messages = [types.PubsubMessage(data=body, **fields) for body in bodies]
        return list(self.publisher.publish(topic=topic, messages=messages).message_ids)

    def pull(self, subscription: str, limit: int = 100, timeout: float = 20) -> list[types.ReceivedMessage]:
        """One pull, which waits for messages."""
        request = {"subscription": subscription, "max_messages": limit}
        try:
            return list(self.subscriber.pull(request=request, timeout=timeout, retry=None).received_messages)
        except DeadlineExceeded:
            return []

    def pull_now(self, subscription: str, limit: int = 100) -> list[types.ReceivedMessage]:
        """One pull, which does not wait."""
        request = {"subscription": subscription, "max_messages": limit, "return_immediately": True}
        return list(self.subscriber.pull(request=request, timeout=20).received_messages)

    def pull_all(self, subscription: str, count: int) -> list[types.ReceivedMessage]:
        """Pulls until ``count`` messages have come."""
        received: list[types.ReceivedMessage] = []
        while len(received) < count:
            received += self.pull(subscription)
        return received

    def acknowledge(self, subscription: str, received: list[types.ReceivedMessage]) -> None:
        ids = [message.ack_id for message in received]
        self.subscriber.acknowledge(subscription=subscription, ack_ids=ids)

    def modify(self, subscription: str, received: list[types.ReceivedMessage], seconds: int) -> None:
        """Sets the leases to end ``seconds`` from now; 0 nacks."""
        ids = [message.ack_id for message in received]
        self.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=seconds)


def bodies(received: list[types.ReceivedMessage]) -> list[bytes]:
    return [message.message.data for message in received]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def google_emulator(folder: Path) -> Iterator[str]:
    """Google's emulator as long as the block lasts; gives its address. Skips where it is not installed."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("Google's Pub/Sub emulator needs the Google Cloud CLI")
    address = f"127.0.0.1:{free_port()}"
    command = [
        gcloud,
        "beta",
        "emulators",
        "pubsub",
        "start",
        f"--project={PROJECT}",
        f"--host-port={address}",
        "--quiet",
    ]
    log = folder / "emulator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--data-dir={folder}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while "Server started" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"Google's Pub/Sub emulator does not start here: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.2)
        yield address
    finally:
        # gcloud is a shell script around Python around Java: only the group as a whole can be ended.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
