"""Conformance: the embedded Pub/Sub and Google's emulator answer the same client the same way.

Where Google's emulator itself leaves the documented service, a test is for ours alone and says why.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.types import FlowControl, PublisherOptions
from google.pubsub_v1 import types
from pubsub_emulators import PROJECT, Cloud, bodies, fresh_id, google_emulator

from pipeline.emulators import pubsub


@pytest.fixture(scope="session", params=["embedded", "google"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if request.param == "embedded":
        with pubsub.start() as server:
            yield Cloud("embedded", server.address)
    else:
        with google_emulator(tmp_path_factory.mktemp("emulator")) as address:
            yield Cloud("google", address)


def ours_only(reason: str) -> pytest.MarkDecorator:
    """Runs a test on the embedded server alone; ``reason`` says what Google's emulator does instead."""
    return pytest.mark.parametrize("cloud", ["embedded"], indirect=True, ids=[f"embedded: {reason}"])


# Topics and subscriptions


def test_topic_life(cloud: Cloud) -> None:
    """A topic can be read and listed once created, and neither once deleted."""
    topic = cloud.topic()
    assert cloud.publisher.get_topic(topic=topic).name == topic
    assert topic in [found.name for found in cloud.publisher.list_topics(project=f"projects/{PROJECT}")]
    cloud.publisher.delete_topic(topic=topic)
    with pytest.raises(exceptions.NotFound):
        cloud.publisher.get_topic(topic=topic)
    assert topic not in [found.name for found in cloud.publisher.list_topics(project=f"projects/{PROJECT}")]


def test_subscription_life(cloud: Cloud) -> None:
    """A subscription has the service's defaults, is listed in its project and topic, and is gone once deleted."""
    topic, name = cloud.pair()
    config = cloud.subscriber.get_subscription(subscription=name)
    assert (config.topic, config.ack_deadline_seconds) == (topic, 10)
    assert config.message_retention_duration.total_seconds() == 7 * 24 * 3600
    assert name in [found.name for found in cloud.subscriber.list_subscriptions(project=f"projects/{PROJECT}")]
    assert list(cloud.publisher.list_topic_subscriptions(topic=topic)) == [name]
    cloud.subscriber.delete_subscription(subscription=name)
    with pytest.raises(exceptions.NotFound):
        cloud.subscriber.get_subscription(subscription=name)
    assert list(cloud.publisher.list_topic_subscriptions(topic=topic)) == []


def test_pages(cloud: Cloud) -> None:
    """Listing by pages of two gives each topic of a project once."""
    project = fresh_id("pages")
    names = [f"projects/{project}/topics/topic-{number}" for number in range(5)]
    for name in names:
        cloud.publisher.create_topic(name=name)
    pages = cloud.publisher.list_topics(request={"project": f"projects/{project}", "page_size": 2}).pages
    found = [[topic.name for topic in page.topics] for page in pages]
    assert max(map(len, found)) == 2
    assert sorted(sum(found, [])) == names


def test_update_subscription(cloud: Cloud) -> None:
    """An update changes what its mask names, refuses what is fixed, and must name something."""
    topic, name = cloud.pair(labels={"kept": "yes"})
    change = {"name": name, "topic": topic, "ack_deadline_seconds": 33, "labels": {"kept": "no"}}
    updated = cloud.subscriber.update_subscription(subscription=change, update_mask={"paths": ["ack_deadline_seconds"]})
    assert (updated.ack_deadline_seconds, dict(updated.labels)) == (33, {"kept": "yes"})
    for paths in (["topic"], []):
        with pytest.raises(exceptions.InvalidArgument):
            cloud.subscriber.update_subscription(subscription=change, update_mask={"paths": paths})


def test_deleted_topic(cloud: Cloud) -> None:
    """A subscription outlives its topic: it reads _deleted-topic_ and still delivers what it holds."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"held")
    cloud.publisher.delete_topic(topic=topic)
    assert cloud.subscriber.get_subscription(subscription=name).topic == "_deleted-topic_"
    assert bodies(cloud.pull(name)) == [b"held"]
    with pytest.raises(exceptions.NotFound):
        cloud.publish(topic, b"too late")


@ours_only("it goes on delivering to a detached subscription")
def test_detach(cloud: Cloud) -> None:
    """A detached subscription has left its topic and no longer delivers."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"dropped")
    cloud.publisher.detach_subscription(request={"subscription": name})
    assert cloud.subscriber.get_subscription(subscription=name).detached
    assert list(cloud.publisher.list_topic_subscriptions(topic=topic)) == []
    with pytest.raises(exceptions.FailedPrecondition):
        cloud.pull(name)


def test_missing(cloud: Cloud) -> None:
    """Whatever asks for a topic or subscription that is not there gets NOT_FOUND."""
    topic = f"projects/{PROJECT}/topics/{fresh_id('missing')}"
    name = f"projects/{PROJECT}/subscriptions/{fresh_id('missing')}"
    calls = [
        lambda: cloud.publisher.get_topic(topic=topic),
        lambda: cloud.publisher.delete_topic(topic=topic),
        lambda: cloud.publish(topic, b"lost"),
        lambda: cloud.subscriber.create_subscription(name=name, topic=topic),
        lambda: cloud.subscriber.get_subscription(subscription=name),
        lambda: cloud.subscriber.delete_subscription(subscription=name),
        lambda: cloud.pull(name),
        lambda: cloud.pair(dead_letter_policy={"dead_letter_topic": topic, "max_delivery_attempts": 5}),
    ]
    for call in calls:
        with pytest.raises(exceptions.NotFound):
            call()


def test_already_exists(cloud: Cloud) -> None:
    """A name can be taken once."""
    topic, name = cloud.pair()
    with pytest.raises(exceptions.AlreadyExists):
        cloud.publisher.create_topic(name=topic)
    with pytest.raises(exceptions.AlreadyExists):
        cloud.subscriber.create_subscription(name=name, topic=topic)


@pytest.mark.parametrize("name", ["foo", "projects/p/topics/1ab", "projects/p/topics/ab", "projects/p/topics/googab"])
def test_bad_topic_names(cloud: Cloud, name: str) -> None:
    """Names that the service reserves or cannot read are INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument, match=name):
        cloud.publisher.create_topic(name=name)


@ours_only("it takes shorter deadlines, any filter, and push and exactly-once subscriptions")
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"ack_deadline_seconds": 9}, exceptions.InvalidArgument),
        ({"ack_deadline_seconds": 601}, exceptions.InvalidArgument),
        ({"message_retention_duration": {"seconds": 60}}, exceptions.InvalidArgument),
        ({"retry_policy": {"minimum_backoff": {"seconds": 601}}}, exceptions.InvalidArgument),
        ({"filter": "colour = blue"}, exceptions.InvalidArgument),
        ({"push_config": {"push_endpoint": "https://example.com"}}, exceptions.MethodNotImplemented),
        ({"push_config": {"attributes": {"x-goog-version": "v1"}}}, exceptions.MethodNotImplemented),
        ({"enable_exactly_once_delivery": True}, exceptions.MethodNotImplemented),
        ({"cloud_storage_config": {"bucket": "files"}}, exceptions.MethodNotImplemented),
        ({"tags": {"123/environment": "test"}}, exceptions.MethodNotImplemented),
    ],
    ids=str,
)
def test_bad_subscriptions(cloud: Cloud, settings: dict, error: type[Exception]) -> None:
    """Settings out of bounds are INVALID_ARGUMENT; what the embedded server does not have is UNIMPLEMENTED."""
    with pytest.raises(error):
        cloud.pair(**settings)


@ours_only("it takes them")
@pytest.mark.parametrize(
    "settings",
    [
        {"kms_key_name": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
        {"message_storage_policy": {"allowed_persistence_regions": ["europe-west1"]}},
        {"tags": {"123/environment": "test"}},
    ],
    ids=str,
)
def test_topics_that_ask_for_what_is_not_here(cloud: Cloud, settings: dict) -> None:
    """A topic's key, place or tags would be kept and not heeded: they are refused by name."""
    with pytest.raises(exceptions.MethodNotImplemented, match=next(iter(settings))):
        cloud.publisher.create_topic(request={"name": "projects/my-project/topics/asking", **settings})


@ours_only("it keeps what it is told")
def test_what_only_the_service_says_is_not_heard(cloud: Cloud) -> None:
    """A subscription that is made from what another one was shown as is attached, whatever that one was."""
    topic, name = cloud.pair(detached=True)
    assert not cloud.subscriber.get_subscription(subscription=name).detached
    assert len(list(cloud.publisher.list_topic_subscriptions(topic=topic))) == 1


@ours_only("it keeps snapshots")
def test_missing_methods(cloud: Cloud) -> None:
    """A method that is not there is refused by name."""
    with pytest.raises(exceptions.MethodNotImplemented, match="CreateSnapshot"):
        cloud.subscriber.create_snapshot(name="projects/p/snapshots/abc", subscription=cloud.pair()[1])


# Publishing


def test_a_message_arrives_as_it_was_sent(cloud: Cloud) -> None:
    """Bytes, attributes and ordering key arrive unchanged, with the id that the publisher was told and a time."""
    topic, name = cloud.pair()
    body = bytes(range(256)) * 10
    (message_id,) = cloud.publish(topic, body, attributes={"grüße": "日本", "empty": ""}, ordering_key="key")
    (received,) = cloud.pull(name)
    message = received.message
    assert (message.data, message.message_id, message.ordering_key) == (body, message_id, "key")
    assert dict(message.attributes) == {"grüße": "日本", "empty": ""}
    assert message.publish_time.timestamp() > 0
    assert received.delivery_attempt == 0


def test_every_subscription_gets_every_message(cloud: Cloud) -> None:
    """Each subscription gets its own copy, of what was published since it was made."""
    topic, first = cloud.pair()
    cloud.publish(topic, b"before")
    second = cloud.subscription(topic)
    cloud.publish(topic, b"after")
    assert sorted(bodies(cloud.pull_all(first, 2))) == [b"after", b"before"]
    assert bodies(cloud.pull(second)) == [b"after"]


def test_a_thousand_messages(cloud: Cloud) -> None:
    """The largest batch arrives whole, every message once, under ids of its own."""
    topic, name = cloud.pair(ack_deadline_seconds=60)
    sent = [b"%d" % number for number in range(1000)]
    ids = cloud.publish(topic, *sent)
    received = cloud.pull_all(name, 1000)
    assert sorted(bodies(received)) == sorted(sent)
    assert sorted(message.message.message_id for message in received) == sorted(ids)
    assert len(set(ids)) == 1000


@ours_only("it gives at most a hundred messages a pull")
def test_a_thousand_messages_in_one_pull(cloud: Cloud) -> None:
    """One pull gives up to a thousand messages."""
    topic, name = cloud.pair()
    cloud.publish(topic, *[b"body"] * 1000)
    assert len(cloud.pull(name, limit=1000)) == 1000


def test_ten_megabytes(cloud: Cloud) -> None:
    """A message of ten million bytes passes both ways."""
    publisher, subscriber = cloud.large_messages()
    topic, name = cloud.pair()
    body = bytes(1000) * 10_000
    publisher.publish(topic=topic, messages=[types.PubsubMessage(data=body)])
    (received,) = subscriber.pull(subscription=name, max_messages=2, timeout=30).received_messages
    assert received.message.data == body


@ours_only("it sends more than its client takes")
def test_large_backlog_in_small_responses(cloud: Cloud) -> None:
    """A pull never answers with more than its client can take, however large the backlog's messages."""
    topic, name = cloud.pair(ack_deadline_seconds=60)
    for _ in range(3):
        cloud.publish(topic, *[bytes(1_000_000)] * 3)
    assert len(cloud.pull_all(name, 9)) == 9


@pytest.mark.parametrize("count", [0, 1001])
def test_publish_counts(cloud: Cloud, count: int) -> None:
    """A request holds one to a thousand messages."""
    with pytest.raises(exceptions.InvalidArgument):
        cloud.publish(cloud.topic(), *[b"body"] * count)


def test_empty_message(cloud: Cloud) -> None:
    """A message needs data or an attribute; one in a batch that has neither refuses the batch."""
    topic, name = cloud.pair()
    with pytest.raises(exceptions.InvalidArgument, match="empty"):
        cloud.publish(topic, b"fine", b"")
    cloud.publish(topic, b"", attributes={"only": "attributes"})
    assert bodies(cloud.pull(name)) == [b""]


@ours_only("it has no quotas")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"body", {"attributes": {str(number): "" for number in range(101)}}),
        (b"body", {"attributes": {"k" * 257: ""}}),
        (b"body", {"attributes": {"key": "é" * 513}}),
        (b"body", {"attributes": {"": "nameless"}}),
        (b"body", {"attributes": {"googclient": "reserved"}}),
        (b"body", {"ordering_key": "k" * 1025}),
        (bytes(10_485_760), {}),
    ],
    ids=["attributes", "key", "value", "empty key", "goog", "ordering key", "size"],
)
def test_quotas(cloud: Cloud, body: bytes, fields: dict) -> None:
    """A message over a quota is INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument):
        cloud.publish(cloud.topic(), body, **fields)


@ours_only("it has no quotas")
def test_at_the_quotas(cloud: Cloud) -> None:
    """A message exactly at every quota passes."""
    topic, name = cloud.pair()
    attributes = {f"{number:0256}": "é" * 512 for number in range(100)}
    cloud.publish(topic, b"body", attributes=attributes, ordering_key="k" * 1024)
    assert dict(cloud.pull(name)[0].message.attributes) == attributes


def test_the_clients_trace_context_passes(cloud: Cloud) -> None:
    """Keys that begin with goog are reserved, but for the clients' own trace context."""
    topic, name = cloud.pair()
    attributes = {"googclient_traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    cloud.publish(topic, b"body", attributes=attributes)
    assert dict(cloud.pull(name)[0].message.attributes) == attributes


@ours_only("it takes a mixture")
def test_one_ordering_key_a_request(cloud: Cloud) -> None:
    """The messages of one request share their ordering key."""
    messages = [types.PubsubMessage(data=b"body", ordering_key=key) for key in "ab"]
    with pytest.raises(exceptions.InvalidArgument):
        cloud.publisher.publish(topic=cloud.topic(), messages=messages)


# Pulling


def test_pull_limit(cloud: Cloud) -> None:
    """A pull gives no more than asked for, and asking for none is INVALID_ARGUMENT."""
    topic, name = cloud.pair()
    cloud.publish(topic, *[b"body"] * 5)
    assert len(cloud.pull(name, limit=2)) == 2
    with pytest.raises(exceptions.InvalidArgument):
        cloud.pull(name, limit=0)


def test_empty_pull(cloud: Cloud) -> None:
    """A pull of an empty subscription gives nothing, at once or after waiting, and no error."""
    _, name = cloud.pair()
    assert cloud.pull_now(name) == []
    request = {"subscription": name, "max_messages": 1}
    assert not cloud.subscriber.pull(request=request, timeout=2).received_messages


def test_waiting_pull(cloud: Cloud) -> None:
    """A pull that waits gets what is published meanwhile."""
    topic, name = cloud.pair()
    received: queue.Queue[list[bytes]] = queue.Queue()
    waiter = threading.Thread(target=lambda: received.put(bodies(cloud.pull(name, timeout=60))))
    waiter.start()
    cloud.publish(topic, b"awaited")
    assert received.get(timeout=60) == [b"awaited"]
    waiter.join()


def test_acknowledged_is_gone(cloud: Cloud) -> None:
    """What is acknowledged never comes again; what is not does, once its lease ends."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"done", b"open")
    received = cloud.pull_all(name, 2)
    cloud.acknowledge(name, [message for message in received if message.message.data == b"done"])
    cloud.modify(name, received, 1)
    assert bodies(cloud.pull_all(name, 1)) == [b"open"]


def test_nack(cloud: Cloud) -> None:
    """A deadline of 0 gives a message back at once."""
    topic, name = cloud.pair(ack_deadline_seconds=600)
    cloud.publish(topic, b"again")
    cloud.modify(name, cloud.pull(name), 0)
    (again,) = cloud.pull(name)
    assert (again.message.data, again.delivery_attempt) == (b"again", 0)


def test_late_acknowledgement(cloud: Cloud) -> None:
    """An acknowledgement after the lease counts while nobody else has the message."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"late")
    received = cloud.pull(name)
    cloud.modify(name, received, 1)
    time.sleep(1.5)
    cloud.acknowledge(name, received)
    cloud.publish(topic, b"next")
    assert bodies(cloud.pull(name)) == [b"next"]


def test_old_acknowledgement(cloud: Cloud) -> None:
    """An acknowledgement of an earlier delivery is ignored: whoever has the message now decides."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"mine")
    first = cloud.pull(name)
    cloud.modify(name, first, 0)
    second = cloud.pull(name)
    cloud.acknowledge(name, first)
    cloud.modify(name, first, 0)
    assert cloud.pull_now(name) == []
    cloud.modify(name, second, 0)
    assert bodies(cloud.pull(name)) == [b"mine"]


def test_bad_ack_requests(cloud: Cloud) -> None:
    """Ids that are none, and no ids at all, are INVALID_ARGUMENT."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"body")
    cloud.pull(name)
    for ack_ids in ([], ["nonsense"]):
        with pytest.raises(exceptions.InvalidArgument):
            cloud.subscriber.acknowledge(subscription=name, ack_ids=ack_ids)


@ours_only("it takes any lease")
def test_long_lease(cloud: Cloud) -> None:
    """A lease ends within ten minutes."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"body")
    with pytest.raises(exceptions.InvalidArgument, match="601"):
        cloud.modify(name, cloud.pull(name), 601)


@ours_only("it has no quotas")
def test_too_many_ack_ids(cloud: Cloud) -> None:
    """As in the service, some 2,500 ids fit a request and 5,000 do not."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"body")
    (received,) = cloud.pull(name)
    cloud.acknowledge(name, [received] * 2500)
    with pytest.raises(exceptions.InvalidArgument, match="524288"):
        cloud.acknowledge(name, [received] * 5000)


def test_seek_into_a_topics_retention() -> None:
    """What a topic keeps comes again where a subscription seeks back to it, also one made later, by its filter."""
    with pubsub.start() as server:
        cloud = Cloud("embedded", server.address)
        topic = f"{cloud.topic()}-kept"
        cloud.publisher.create_topic(request={"name": topic, "message_retention_duration": {"seconds": 3600}})
        first = cloud.subscription(topic)
        cloud.publish(topic, b"1", b"2", attributes={"kind": "a"})
        cloud.publish(topic, b"3", attributes={"kind": "b"})
        cloud.acknowledge(first, cloud.pull_all(first, 3))
        later, some = cloud.subscription(topic), cloud.subscription(topic, filter='attributes.kind = "b"')
        assert cloud.pull_now(later) == []
        for name, expected in ((first, [b"1", b"2", b"3"]), (later, [b"1", b"2", b"3"]), (some, [b"3"])):
            cloud.subscriber.seek(request={"subscription": name, "time": {"seconds": 1}})
            found = cloud.pull_all(name, len(expected))
            assert sorted(bodies(found)) == expected
            cloud.acknowledge(name, found)
        cloud.publisher.update_topic(
            request={"topic": {"name": topic}, "update_mask": {"paths": ["message_retention_duration"]}}
        )
        cloud.publish(topic, b"4")
        cloud.subscriber.seek(request={"subscription": later, "time": {"seconds": 1}})
        assert bodies(cloud.pull_all(later, 1)) == [b"4"] and cloud.pull_now(later) == []
        with pytest.raises(exceptions.InvalidArgument, match="message_retention_duration is too small"):
            cloud.publisher.create_topic(request={"name": f"{topic}-2", "message_retention_duration": {"seconds": 5}})


def test_seek(cloud: Cloud) -> None:
    """Seeking back brings retained messages again, seeking ahead drops what waits."""
    topic, name = cloud.pair(retain_acked_messages=True)
    cloud.publish(topic, b"done")
    cloud.acknowledge(name, cloud.pull(name))
    cloud.subscriber.seek(request={"subscription": name, "time": {"seconds": 1}})
    assert bodies(cloud.pull(name)) == [b"done"]
    cloud.subscriber.seek(request={"subscription": name, "time": {"seconds": 2**32}})
    cloud.publish(topic, b"new")
    assert bodies(cloud.pull(name)) == [b"new"]
    cloud.subscriber.seek(request={"subscription": name, "time": {"seconds": 1}})
    assert sorted(bodies(cloud.pull_all(name, 2))) == [b"done", b"new"]


# Dead letters, retries, order, filters


def test_dead_letter_policy(cloud: Cloud) -> None:
    """After the last attempt a message moves to the dead-letter topic, marked with where it came from."""
    dead_topic, dead = cloud.pair()
    policy = {"dead_letter_topic": dead_topic, "max_delivery_attempts": 5}
    topic, name = cloud.pair(dead_letter_policy=policy)
    cloud.publish(topic, b"poison", attributes={"own": "kept"})
    for attempt in range(1, 6):
        received = cloud.pull(name)
        assert [message.delivery_attempt for message in received] == [attempt]
        cloud.modify(name, received, 0)
    assert cloud.pull_now(name) == []
    (letter,) = cloud.pull(dead)
    attributes = dict(letter.message.attributes)
    published = attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert published[:10] == received[0].message.publish_time.rfc3339()[:10]
    assert letter.message.data == b"poison"
    assert attributes == {
        "own": "kept",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": name.split("/")[-1],
        "CloudPubSubDeadLetterSourceSubscriptionProject": PROJECT,
    }


def test_order(cloud: Cloud) -> None:
    """The messages of a key come in order, and the rest only after what is out has been acknowledged."""
    topic, name = cloud.pair(enable_message_ordering=True)
    cloud.publish(topic, b"1", b"2", b"3", ordering_key="key")
    first = cloud.pull(name, limit=1)
    assert bodies(first) == [b"1"]
    assert cloud.pull_now(name) == []
    cloud.acknowledge(name, first)
    assert bodies(cloud.pull_all(name, 2)) == [b"2", b"3"]


def test_keys_do_not_wait_for_each_other(cloud: Cloud) -> None:
    """A key that is held up leaves the other keys, and messages without one, free."""
    topic, name = cloud.pair(enable_message_ordering=True)
    cloud.publish(topic, b"held", ordering_key="a")
    assert bodies(cloud.pull(name)) == [b"held"]
    cloud.publish(topic, b"waits", ordering_key="a")
    cloud.publish(topic, b"other", ordering_key="b")
    cloud.publish(topic, b"keyless")
    assert sorted(bodies(cloud.pull_all(name, 2))) == [b"keyless", b"other"]


@ours_only("it redelivers the failed message alone, after those that followed it")
def test_redelivery_keeps_the_order(cloud: Cloud) -> None:
    """When a message of a key comes again, so do those after it, acknowledged or not, in order."""
    topic, name = cloud.pair(enable_message_ordering=True)
    cloud.publish(topic, b"1", b"2", b"3", b"4", ordering_key="key")
    one, two, three, _ = cloud.pull(name)
    cloud.acknowledge(name, [one, three])
    cloud.modify(name, [two], 0)
    assert bodies(cloud.pull(name)) == [b"2", b"3", b"4"]


@ours_only("it filters nothing")
def test_filter(cloud: Cloud) -> None:
    """A subscription gets only the messages that pass its filter."""
    topic, name = cloud.pair(filter='attributes.kind = "wanted" AND NOT attributes:secret')
    cloud.publish(topic, b"yes", attributes={"kind": "wanted"})
    cloud.publish(topic, b"no", attributes={"kind": "wanted", "secret": ""})
    cloud.publish(topic, b"no", attributes={"kind": "other"})
    cloud.publish(topic, b"last", attributes={"kind": "wanted"})
    assert bodies(cloud.pull_all(name, 2)) == [b"yes", b"last"]


# Streaming


def test_subscriber_client(cloud: Cloud) -> None:
    """The client that applications use gets every message its publisher sent, and acknowledges them all."""
    topic, name = cloud.pair()
    publisher, subscriber = cloud.high_level()
    sent = {b"%d" % number for number in range(3000)}
    received: set[bytes] = set()
    complete = threading.Event()

    def receive(message: object) -> None:
        received.add(message.data)
        message.ack_with_response().result(timeout=60)
        if received == sent:
            complete.set()

    for future in [publisher.publish(topic, body) for body in sent]:
        future.result(timeout=60)
    streaming = subscriber.subscribe(name, receive, flow_control=FlowControl(max_messages=500))
    assert complete.wait(60)
    streaming.cancel()
    streaming.result(timeout=60)
    assert cloud.pull_now(name) == []


def test_ordered_client(cloud: Cloud) -> None:
    """The publisher client's ordering keys come through the subscriber client in order, key by key."""
    topic, name = cloud.pair(enable_message_ordering=True)
    publisher, subscriber = cloud.high_level(publisher_options=PublisherOptions(enable_message_ordering=True))
    received: dict[str, list[int]] = {key: [] for key in "abc"}
    complete = threading.Event()

    def receive(message: object) -> None:
        received[message.ordering_key].append(int(message.data))
        message.ack()
        if sum(map(len, received.values())) == 300:
            complete.set()

    futures = [publisher.publish(topic, b"%d" % number, ordering_key=key) for number in range(100) for key in "abc"]
    for future in futures:
        future.result(timeout=60)
    streaming = subscriber.subscribe(name, receive)
    assert complete.wait(60)
    streaming.cancel()
    streaming.result(timeout=60)
    assert received == {key: list(range(100)) for key in "abc"}


class RawStream:
    """A streaming pull without the subscriber client's own leases and acknowledgements."""

    def __init__(self, cloud: Cloud, subscription: str, **settings: int) -> None:
        self._requests: queue.Queue = queue.Queue()
        self.send(subscription=subscription, stream_ack_deadline_seconds=60, **settings)
        self._responses = cloud.subscriber.streaming_pull(iter(self._requests.get, None))

    def send(self, **fields: object) -> None:
        self._requests.put(types.StreamingPullRequest(**fields))

    def receive(self, count: int) -> list[types.ReceivedMessage]:
        """Reads until ``count`` messages have come."""
        received: list[types.ReceivedMessage] = []
        while len(received) < count:
            received += next(self._responses).received_messages
        return received

    def close(self) -> None:
        self._requests.put(None)
        for _ in self._responses:
            pass


def test_stream_acknowledges(cloud: Cloud) -> None:
    """Acknowledgements and nacks sent on the stream count like those of their own calls."""
    topic, name = cloud.pair()
    cloud.publish(topic, b"done", b"again")
    stream = RawStream(cloud, name)
    ids = {message.message.data: message.ack_id for message in stream.receive(2)}
    stream.send(ack_ids=[ids[b"done"]], modify_deadline_ack_ids=[ids[b"again"]], modify_deadline_seconds=[0])
    (again,) = stream.receive(1)
    assert again.message.data == b"again"
    stream.send(ack_ids=[again.ack_id])
    stream.close()
    assert cloud.pull_now(name) == []


@ours_only("it sends more than the stream allows")
def test_stream_flow_control(cloud: Cloud) -> None:
    """A stream has no more messages outstanding than it allows, and gets as many more as it acknowledges."""
    topic, name = cloud.pair()
    cloud.publish(topic, *[b"%d" % number for number in range(50)])
    stream = RawStream(cloud, name, max_outstanding_messages=7)
    first = stream.receive(7)
    cloud.acknowledge(name, first[:3])
    second = stream.receive(3)
    assert len(first) + len(second) == 10
    stream.close()
    assert len(cloud.pull(name, limit=1000)) == 40


@ours_only("it sends more than the stream allows")
def test_stream_flow_control_in_bytes(cloud: Cloud) -> None:
    """A stream stops at its outstanding bytes, yet a message larger than all of them still passes alone."""
    topic, name = cloud.pair()
    cloud.publish(topic, *[bytes(1000)] * 10)
    stream = RawStream(cloud, name, max_outstanding_bytes=500)
    for _ in range(10):
        (received,) = stream.receive(1)
        stream.send(ack_ids=[received.ack_id])
    stream.close()
    assert cloud.pull_now(name) == []


@ours_only("it never ends the stream, or ends it without an error")
def test_stream_of_nothing(cloud: Cloud) -> None:
    """A stream of a subscription that is not there, or is deleted meanwhile, ends with NOT_FOUND."""
    _, name = cloud.pair()
    with pytest.raises(exceptions.NotFound):
        RawStream(cloud, name + "x").receive(1)
    stream = RawStream(cloud, name)
    cloud.subscriber.delete_subscription(subscription=name)
    with pytest.raises(exceptions.NotFound):
        stream.receive(1)


def test_bad_stream(cloud: Cloud) -> None:
    """A stream whose lease is out of bounds, or that acknowledges nonsense, is INVALID_ARGUMENT."""
    _, name = cloud.pair()
    request = types.StreamingPullRequest(subscription=name, stream_ack_deadline_seconds=5)
    with pytest.raises(exceptions.InvalidArgument):
        next(cloud.subscriber.streaming_pull(iter([request])))
    stream = RawStream(cloud, name)
    stream.send(ack_ids=["nonsense"])
    with pytest.raises(exceptions.InvalidArgument):
        stream.receive(1)


@ours_only("whoever asks first may get all")
def test_two_streams_share(cloud: Cloud) -> None:
    """Messages that trickle in go to waiting streams in turn."""
    topic, name = cloud.pair()
    streams = [RawStream(cloud, name) for _ in range(2)]
    shares = [0, 0]
    cloud.publish(topic, b"warm-up")

    def count(index: int) -> None:
        while True:
            for message in streams[index].receive(1):
                if message.message.data == b"end":
                    return
                shares[index] += 1

    counters = [threading.Thread(target=count, args=(index,)) for index in range(2)]
    for counter in counters:
        counter.start()
    for number in range(40):
        cloud.publish(topic, b"%d" % number)
    while any(counter.is_alive() for counter in counters):
        cloud.publish(topic, b"end")
        counters[0].join(0.05)
    for stream in streams:
        stream.close()
    assert sum(shares) == 41
    assert min(shares) > 5
