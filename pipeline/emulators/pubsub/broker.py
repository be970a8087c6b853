"""Topics and subscriptions by name, and what passes between them. No gRPC; one thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1 import types

from pipeline.emulators.pubsub import limits
from pipeline.emulators.pubsub.delivery import Message
from pipeline.emulators.pubsub.errors import FailedPrecondition, Unimplemented, exists, missing
from pipeline.emulators.pubsub.journal import Journal
from pipeline.emulators.pubsub.retention import Retention
from pipeline.emulators.pubsub.schemas import DELETED_SCHEMA, Schemas
from pipeline.emulators.pubsub.settings import (
    MUTABLE_SUBSCRIPTION,
    MUTABLE_TOPIC,
    as_asked,
    check,
    check_topic,
    complete,
    merged,
)
from pipeline.emulators.pubsub.subscription import Subscription

PubsubMessage = types.PubsubMessage.pb()
SubscriptionConfig = types.Subscription.pb()
TopicConfig = types.Topic.pb()

#: What a subscription's topic reads after that topic was deleted.
DELETED_TOPIC = "_deleted-topic_"


class Broker:
    """All state of the server. Errors are ``google.api_core.exceptions``, worded as the service words them."""

    def __init__(self, journal: Journal, exports: bool = False) -> None:
        self.topics: dict[str, Any] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self._by_topic: dict[str, dict[str, Subscription]] = {}
        self.schemas = Schemas(journal)
        self._journal = journal
        self._retention = Retention()
        self._exports = exports
        # Ids grow across restarts too, and look like the service's: a long number.
        self._seqs = itertools.count(time.time_ns() // 1000)
        self._restore()

    def _restore(self) -> None:
        for config in self._journal.configs("topics"):
            topic = TopicConfig.FromString(config)
            self.topics[topic.name] = topic
        for config in self._journal.configs("subscriptions"):
            subscription = self._attach(SubscriptionConfig.FromString(config))
            subscription.add(self._journal.messages(subscription.config.name))

    def commit(self) -> None:
        """Makes everything so far outlive the process."""
        self._journal.commit()

    def close(self) -> None:
        self._journal.close()

    def tick(self, now: float) -> None:
        """Ends leases whose time is up."""
        for subscription in list(self.subscriptions.values()):
            subscription.tick(now)

    # Topics

    def create_topic(self, topic: Any) -> Any:
        limits.check_name(topic.name, "topics")
        if topic.name in self.topics:
            raise exists(topic.name)
        self._check_topic(as_asked(topic))
        self.topics[topic.name] = topic
        self._journal.save("topics", topic.name, topic.SerializeToString())
        return topic

    def topic(self, name: str) -> Any:
        limits.check_name(name, "topics")
        if name not in self.topics:
            raise missing(name)
        return self.topics[name]

    def update_topic(self, topic: Any, mask: Any) -> Any:
        updated = merged(self.topic(topic.name), topic, mask, MUTABLE_TOPIC)
        self._check_topic(updated)
        self.topics[topic.name] = updated
        self._journal.save("topics", topic.name, updated.SerializeToString())
        return updated

    def delete_topic(self, name: str) -> None:
        """Deletes the topic; its subscriptions stay, with what they hold."""
        self.topic(name)
        del self.topics[name]
        self._retention.forget(name)
        self._journal.delete("topics", name)
        for subscription in self._by_topic.pop(name, {}).values():
            subscription.config.topic = DELETED_TOPIC
            self._save(subscription)

    def delete_schema(self, name: str) -> None:
        """Deletes the schema; its topics stay, and take no more messages."""
        self.schemas.delete(name)
        for topic in self.topics.values():
            if topic.schema_settings.schema == name:
                topic.schema_settings.schema = DELETED_SCHEMA
                self._journal.save("topics", topic.name, topic.SerializeToString())

    def _check_topic(self, topic: Any) -> None:
        check_topic(topic)
        self.schemas.check_settings(topic)

    def topic_subscriptions(self, topic: str) -> list[str]:
        self.topic(topic)
        return sorted(self._by_topic.get(topic, {}))

    # Subscriptions

    def create_subscription(self, config: Any) -> Any:
        limits.check_name(config.name, "subscriptions")
        if config.name in self.subscriptions:
            raise exists(config.name)
        self.topic(config.topic)
        self._check(as_asked(config))
        subscription = self._attach(config)
        self._save(subscription)
        return config

    def subscription(self, name: str) -> Subscription:
        limits.check_name(name, "subscriptions")
        if name not in self.subscriptions:
            raise missing(name)
        return self.subscriptions[name]

    def attached_subscription(self, name: str) -> Subscription:
        """The subscription ``name``, to take messages from."""
        subscription = self.subscription(name)
        if subscription.config.detached:
            raise FailedPrecondition(f"Subscription is detached (resource={name}).")
        if subscription.config.bigquery_config.table:
            raise FailedPrecondition(f"The subscription writes to BigQuery, and gives no messages (resource={name}).")
        return subscription

    def update_subscription(self, config: Any, mask: Any) -> Any:
        subscription = self.subscription(config.name)
        updated = merged(subscription.config, config, mask, MUTABLE_SUBSCRIPTION)
        self._check(updated)
        subscription.config = updated
        self._save(subscription)
        return updated

    def delete_subscription(self, name: str) -> None:
        subscription = self.subscription(name)
        del self.subscriptions[name]
        self._by_topic.get(subscription.config.topic, {}).pop(name, None)
        self._journal.delete("subscriptions", name)
        subscription.close()

    def detach_subscription(self, name: str) -> None:
        """Cuts the subscription from its topic and drops what it holds."""
        subscription = self.subscription(name)
        self._by_topic.get(subscription.config.topic, {}).pop(name, None)
        subscription.config.detached = True
        self._save(subscription)
        self._journal.clear(name)
        subscription.close()

    def seek(self, name: str, moment: float) -> None:
        """Rewinds or forwards the subscription to ``moment``, in seconds since the epoch."""
        subscription = self.attached_subscription(name)
        topic = self.topics.get(subscription.config.topic)
        kept = self._retention.since(topic, moment, time.time()) if topic else ()
        again, passed = subscription.seek(moment, kept)
        self._journal.add(name, again)
        self._journal.remove(name, passed)

    def _check(self, config: Any) -> None:
        complete(config)
        check(config)
        if config.bigquery_config.table and not self._exports:
            raise Unimplemented("The embedded Pub/Sub has no bigquery_config unless it is started with --bigquery.")
        if config.HasField("dead_letter_policy"):
            self.topic(config.dead_letter_policy.dead_letter_topic)

    def _attach(self, config: Any) -> Subscription:
        subscription = Subscription(config, dead_letter=self._dead_letter, finished=self._finished)
        self.subscriptions[config.name] = subscription
        if config.topic != DELETED_TOPIC and not config.detached:
            self._by_topic.setdefault(config.topic, {})[config.name] = subscription
        return subscription

    def _save(self, subscription: Subscription) -> None:
        config = subscription.config
        self._journal.save("subscriptions", config.name, config.SerializeToString())

    # Messages

    def publish(self, topic: str, messages: Sequence[Any]) -> list[str]:
        """Hands ``messages`` (protos) to every subscription of ``topic`` whose filter they pass; returns their ids."""
        config = self.topic(topic)
        limits.check_publish(messages)
        if config.HasField("schema_settings"):
            self.schemas.stamp(config, messages)
        return self._publish(topic, messages)

    def _publish(self, topic: str, messages: Iterable[Any]) -> list[str]:
        stamp, ids, stored = Timestamp(), [], []
        stamp.FromNanoseconds(time.time_ns() // 1_000_000 * 1_000_000)
        published = stamp.seconds + stamp.nanos / 1e9
        subscriptions = self._by_topic.get(topic, {}).values()
        config = self.topics[topic]
        filtered = any(subscription.matches for subscription in subscriptions)
        for proto in messages:
            seq = next(self._seqs)
            proto.message_id = str(seq)
            proto.publish_time.CopyFrom(stamp)
            ids.append(proto.message_id)
            message = Message(seq, proto.SerializeToString(), proto.ordering_key, published)
            stored.append((message, dict(proto.attributes) if filtered else {}))
        self._retention.keep(config, [message for message, _ in stored])
        for subscription in subscriptions:
            accepted = [message for message, attributes in stored if subscription.accepts(attributes)]
            self._journal.add(subscription.config.name, accepted)
            subscription.add(accepted)
        return ids

    def _dead_letter(self, subscription: Subscription, message: Message, attempts: int) -> bool:
        """Forwards what used up its delivery attempts; not if the topic for it is gone, as in the service."""
        topic = subscription.config.dead_letter_policy.dead_letter_topic
        if topic not in self.topics:
            return False
        proto = PubsubMessage.FromString(message.data)
        _, project, _, name = subscription.config.name.split("/")
        source = "CloudPubSubDeadLetterSource"
        proto.attributes[f"{source}DeliveryCount"] = str(attempts)
        proto.attributes[f"{source}Subscription"] = name
        proto.attributes[f"{source}SubscriptionProject"] = project
        proto.attributes[f"{source}TopicPublishTime"] = proto.publish_time.ToJsonString()
        self._publish(topic, [proto])
        return True

    def _finished(self, subscription: Subscription, seqs: list[int]) -> None:
        self._journal.remove(subscription.config.name, seqs)
