"""The methods of Publisher and Subscriber: protos in, protos out, in front of a :class:`Broker`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

from pipeline.emulators.pubsub import limits
from pipeline.emulators.pubsub.broker import Broker, SubscriptionConfig
from pipeline.emulators.pubsub.errors import InvalidArgument, Unavailable, Unimplemented
from pipeline.emulators.pubsub.paging import page
from pipeline.emulators.pubsub.stream import MAX_RESPONSE_BYTES, Stream, change, fill

#: How long a pull waits for messages where its client set no shorter deadline.
_LONG_POLL_SECONDS = 90.0
_TICK_SECONDS = 0.1

_PublishResponse = types.PublishResponse.pb()
_PullResponse = types.PullResponse.pb()

Context: TypeAlias = grpc.aio.ServicerContext


class Service:
    """The methods of both gRPC services; all run on one event loop, so that nothing needs a lock."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.closing = False

    async def tick(self) -> None:
        """Keeps leases ending on time, for as long as the server runs."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.broker.tick(time.time())
            self.broker.commit()

    def close(self) -> None:
        """Ends every waiting pull and stream; clients come back when the server does."""
        self.closing = True
        for subscription in self.broker.subscriptions.values():
            subscription.wake()

    # Publisher

    def create_topic(self, request: Any) -> Any:
        return self.broker.create_topic(request)

    def get_topic(self, request: Any) -> Any:
        return self.broker.topic(request.topic)

    def update_topic(self, request: Any) -> Any:
        return self.broker.update_topic(request.topic, request.update_mask)

    def delete_topic(self, request: Any) -> Any:
        self.broker.delete_topic(request.topic)
        return Empty()

    def list_topics(self, request: Any) -> Any:
        topics, token = page(self.broker.topics, request, f"{request.project}/")
        return types.ListTopicsResponse.pb()(
            topics=[self.broker.topics[name] for name in topics], next_page_token=token
        )

    def list_topic_subscriptions(self, request: Any) -> Any:
        names, token = page(self.broker.topic_subscriptions(request.topic), request, "projects/")
        return types.ListTopicSubscriptionsResponse.pb()(subscriptions=names, next_page_token=token)

    def detach_subscription(self, request: Any) -> Any:
        self.broker.detach_subscription(request.subscription)
        return types.DetachSubscriptionResponse.pb()()

    def publish(self, request: Any) -> Any:
        limits.check_request_size(request.ByteSize(), limits.MAX_PUBLISH_BYTES)
        return _PublishResponse(message_ids=self.broker.publish(request.topic, request.messages))

    # Subscriber

    def create_subscription(self, request: Any) -> Any:
        return self.broker.create_subscription(request)

    def get_subscription(self, request: Any) -> Any:
        return self.broker.subscription(request.subscription).config

    def update_subscription(self, request: Any) -> Any:
        return self.broker.update_subscription(request.subscription, request.update_mask)

    def delete_subscription(self, request: Any) -> Any:
        self.broker.delete_subscription(request.subscription)
        return Empty()

    def list_subscriptions(self, request: Any) -> Any:
        names, token = page(self.broker.subscriptions, request, f"{request.project}/")
        return types.ListSubscriptionsResponse.pb()(
            subscriptions=[self.broker.subscriptions[name].config for name in names], next_page_token=token
        )

    def modify_push_config(self, request: Any) -> Any:
        """An empty configuration has a subscription be pulled, as all here are."""
        change = SubscriptionConfig(name=request.subscription, push_config=request.push_config)
        self.broker.update_subscription(change, FieldMask(paths=["push_config"]))
        return Empty()

    def list_snapshots(self, request: Any) -> Any:
        """There are none."""
        return types.ListSnapshotsResponse.pb()()

    def list_topic_snapshots(self, request: Any) -> Any:
        self.broker.topic(request.topic)
        return types.ListTopicSnapshotsResponse.pb()()

    def seek(self, request: Any) -> Any:
        if request.WhichOneof("target") != "time":
            raise Unimplemented("The embedded Pub/Sub has no snapshots; seek to a time.")
        self.broker.seek(request.subscription, request.time.seconds + request.time.nanos / 1e9)
        return types.SeekResponse.pb()()

    def acknowledge(self, request: Any) -> Any:
        limits.check_ack_request(request)
        self.broker.subscription(request.subscription).acknowledge(request.ack_ids)
        return Empty()

    def modify_ack_deadline(self, request: Any) -> Any:
        limits.check_ack_request(request, request.ack_deadline_seconds)
        seconds = [request.ack_deadline_seconds] * len(request.ack_ids)
        self.broker.subscription(request.subscription).modify(request.ack_ids, seconds, time.time())
        return Empty()

    async def pull(self, request: Any, context: Context) -> Any:
        # Messages are taken in the step that answers: a client that gives up while it waits takes none with it.
        if request.max_messages <= 0:
            raise InvalidArgument("You have passed an invalid argument to the service (argument=max_messages).")
        limit = min(request.max_messages, limits.MAX_MESSAGES_A_PULL)
        give_up = time.monotonic() + (0 if request.return_immediately else _patience(context))
        while True:
            subscription = self.broker.attached_subscription(request.subscription)
            deliveries = subscription.take(limit, MAX_RESPONSE_BYTES, time.time())
            patience = give_up - time.monotonic()
            if deliveries or patience <= 0 or self.closing:
                break
            await change(subscription, patience)
        response = _PullResponse()
        fill(response, subscription, deliveries)
        return response

    async def streaming_pull(self, requests: AsyncIterator[Any], context: Context) -> None:
        first = await anext(requests, types.StreamingPullRequest.pb()())
        subscription = self.broker.attached_subscription(first.subscription)
        limits.check_range(
            first.stream_ack_deadline_seconds, limits.ACK_DEADLINE_SECONDS, "stream_ack_deadline_seconds"
        )
        stream = Stream(subscription, first)
        stream.handle(first)
        reader = asyncio.create_task(self._read(requests, stream))
        reader.add_done_callback(lambda _: subscription.wake())
        try:
            while not reader.done():
                if self.closing:
                    raise Unavailable("The server is shutting down.")
                if self.broker.attached_subscription(first.subscription) is not subscription:
                    return
                deliveries = stream.take()
                if deliveries:
                    await stream.send(context, deliveries)
                else:
                    await change(subscription)
            reader.result()
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[Any], stream: Stream) -> None:
        async for request in requests:
            stream.handle(request)


def _patience(context: Context) -> float:
    """Seconds to wait for messages: nearly as long as the client does, for Beam's stock source dies of a timeout."""
    remaining = min(context.time_remaining() or _LONG_POLL_SECONDS, _LONG_POLL_SECONDS)
    return remaining - min(1.0, remaining / 10)
