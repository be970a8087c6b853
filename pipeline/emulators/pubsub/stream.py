"""One streaming pull, and how a pull waits and answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from google.pubsub_v1 import types

from pipeline.emulators.pubsub import limits
from pipeline.emulators.pubsub.delivery import Delivery, Flow
from pipeline.emulators.pubsub.errors import InvalidArgument
from pipeline.emulators.pubsub.subscription import Subscription

#: The client's own limit for a response is gRPC's 4 MiB when it talks to an emulator; a larger message goes alone.
MAX_RESPONSE_BYTES = 3 * 1024 * 1024

_StreamingPullResponse = types.StreamingPullResponse.pb()


class Stream:
    """One streaming pull: its flow control, the lease its messages get, and what its client says on it."""

    def __init__(self, subscription: Subscription, first: Any) -> None:
        self.subscription = subscription
        self.seconds = first.stream_ack_deadline_seconds
        self.flow = Flow(max(0, first.max_outstanding_messages), max(0, first.max_outstanding_bytes))

    def take(self) -> list[Delivery]:
        return self.subscription.take(
            limits.MAX_MESSAGES_A_PULL, MAX_RESPONSE_BYTES, time.time(), self.flow, self.seconds
        )

    async def send(self, context: grpc.aio.ServicerContext, deliveries: list[Delivery]) -> None:
        response = _StreamingPullResponse()
        config = self.subscription.config
        response.subscription_properties.message_ordering_enabled = config.enable_message_ordering
        fill(response, self.subscription, deliveries)
        try:
            await context.write(response)
        except BaseException:
            self.subscription.undeliver(deliveries, time.time())
            raise

    def handle(self, request: Any) -> None:
        if request.stream_ack_deadline_seconds:
            self.seconds = request.stream_ack_deadline_seconds
        if request.ack_ids:
            self.subscription.acknowledge(request.ack_ids)
        ids, seconds = request.modify_deadline_ack_ids, request.modify_deadline_seconds
        if len(ids) != len(seconds):
            raise InvalidArgument(f"{len(ids)} modify_deadline_ack_ids for {len(seconds)} modify_deadline_seconds.")
        for lease in seconds:
            limits.check_range(lease, limits.LEASE_SECONDS, "modify_deadline_seconds")
        if ids:
            self.subscription.modify(ids, seconds, time.time())


async def change(subscription: Subscription, timeout: float | None = None) -> None:
    """Waits until the subscription may have something to deliver, or has ended, or ``timeout`` seconds have passed."""
    event = asyncio.Event()
    subscription.waiting[event.set] = None
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except asyncio.TimeoutError:
        pass
    finally:
        subscription.waiting.pop(event.set, None)


def fill(response: Any, subscription: Subscription, deliveries: list[Delivery]) -> None:
    """Adds ``deliveries`` to a PullResponse or StreamingPullResponse."""
    counted = bool(subscription.config.dead_letter_policy.dead_letter_topic)
    for delivery in deliveries:
        received = response.received_messages.add(ack_id=subscription.ack_id(delivery))
        received.message.MergeFromString(delivery.message.data)
        if counted:
            received.delivery_attempt = delivery.attempt
