"""The rules of leases, order, retries and filters, by themselves: no server, and a clock that only the test moves."""

from __future__ import annotations

from collections import defaultdict

import pytest
from google.pubsub_v1 import types
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.emulators.pubsub.delivery import Delivery, Flow, Message
from pipeline.emulators.pubsub.errors import InvalidArgument
from pipeline.emulators.pubsub.filter import parse_filter
from pipeline.emulators.pubsub.settings import complete
from pipeline.emulators.pubsub.subscription import Subscription


class Bench:
    """A subscription whose dead letters and finished messages are written down, and its clock."""

    def __init__(self, **config: object) -> None:
        proto = types.Subscription.pb(types.Subscription(name="projects/p/subscriptions/s", **config))
        complete(proto)
        self.now = 1000.0
        self.dead: list[tuple[int, int]] = []
        self.finished: list[int] = []
        self.dead_topic_exists = True
        self.subscription = Subscription(proto, self._dead_letter, lambda _, seqs: self.finished.extend(seqs))

    def _dead_letter(self, subscription: Subscription, message: Message, attempts: int) -> bool:
        if self.dead_topic_exists:
            self.dead.append((message.seq, attempts))
        return self.dead_topic_exists

    def publish(self, *seqs: int, key: str = "", size: int = 1) -> None:
        self.subscription.add([Message(seq, bytes(size), key, self.now) for seq in seqs])

    def take(self, limit: int = 1000, max_bytes: float = 1e9, flow: Flow | None = None) -> list[Delivery]:
        return self.subscription.take(limit, max_bytes, self.now, flow)

    def acknowledge(self, *deliveries: Delivery) -> None:
        self.subscription.acknowledge([self.subscription.ack_id(delivery) for delivery in deliveries])

    def modify(self, seconds: int, *deliveries: Delivery) -> None:
        ids = [self.subscription.ack_id(delivery) for delivery in deliveries]
        self.subscription.modify(ids, [seconds] * len(ids), self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.subscription.tick(self.now)

    @property
    def held(self) -> int:
        """How many messages the subscription still knows, wherever they are."""
        it = self.subscription
        lanes = sum(len(lane.queue) + len(lane.out) for lane in it.lanes.values())
        keyless_leases = sum(delivery.lane is None for delivery in it.leases.values())
        return len(it.fresh) + len(it.returned) + keyless_leases + lanes


def seqs(deliveries: list[Delivery]) -> list[int]:
    return [delivery.message.seq for delivery in deliveries]


def test_a_lease_lasts_its_deadline() -> None:
    """A message is nobody else's until its lease ends, and then comes again, counted."""
    bench = Bench(ack_deadline_seconds=20)
    bench.publish(1)
    bench.take()
    bench.wait(19.9)
    assert bench.take() == []
    bench.wait(0.1)
    assert [(delivery.message.seq, delivery.attempt) for delivery in bench.take()] == [(1, 2)]


def test_a_lease_can_be_extended_and_shortened() -> None:
    """A lease ends when its last change says."""
    bench = Bench()
    bench.publish(1, 2)
    one, two = bench.take()
    bench.modify(600, one)
    bench.modify(1, two)
    bench.wait(1)
    assert seqs(bench.take()) == [2]
    bench.wait(598)
    assert seqs(bench.take()) == [2]
    bench.wait(1)
    assert seqs(bench.take()) == [1]


def test_redelivery_comes_first() -> None:
    """What was delivered before goes ahead of what waits for the first time."""
    bench = Bench()
    bench.publish(1, 2, 3)
    one, two, *_ = bench.take(limit=2)
    bench.modify(0, two)
    assert seqs(bench.take()) == [2, 3]


def test_undelivered_messages_are_not_counted() -> None:
    """Messages whose client vanished come again at once, as if they had never been out."""
    bench = Bench()
    bench.publish(1, 2)
    bench.subscription.undeliver(bench.take(), bench.now)
    assert [(delivery.message.seq, delivery.attempt) for delivery in bench.take()] == [(2, 1), (1, 1)]


def test_response_size() -> None:
    """A response keeps to its bytes; a message that is larger alone goes alone."""
    bench = Bench()
    bench.publish(1, 2, 3, size=100)
    assert seqs(bench.take(max_bytes=250)) == [1, 2]
    assert seqs(bench.take(max_bytes=10)) == [3]


def test_back_off() -> None:
    """With a retry policy each redelivery waits twice as long, up to the maximum."""
    bench = Bench(retry_policy={"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 30}})
    bench.publish(1)
    for pause in (10, 20, 30, 30):
        bench.modify(0, *bench.take())
        bench.wait(pause - 0.1)
        assert bench.take() == []
        bench.wait(0.1)
        assert seqs(bench.subscription.returned.values()) == [1]
    assert seqs(bench.take()) == [1]


def test_back_off_holds_up_the_key() -> None:
    """In order, what follows a message in back-off waits with it."""
    retry = {"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 10}}
    bench = Bench(enable_message_ordering=True, retry_policy=retry)
    bench.publish(1, 2, key="key")
    bench.modify(0, bench.take()[0])
    assert bench.take() == []
    bench.wait(10)
    assert seqs(bench.take()) == [1, 2]


@pytest.mark.parametrize("ordered", [False, True])
def test_the_waiting_are_woken(ordered: bool) -> None:
    """Publishing wakes who waits, and so does the end of a back-off, after a nack or after a lease that ran out."""
    retry = {"minimum_backoff": {"seconds": 3}, "maximum_backoff": {"seconds": 3}}
    bench = Bench(enable_message_ordering=ordered, retry_policy=retry, ack_deadline_seconds=10)
    woken: list[float] = []

    def wait_for_call() -> None:
        bench.subscription.waiting[lambda: woken.append(bench.now)] = None

    wait_for_call()
    bench.publish(1, key="key")
    assert woken == [1000]
    bench.modify(0, *bench.take())
    wait_for_call()
    bench.wait(3)
    assert woken == [1000, 1003]
    bench.take()
    bench.wait(10)
    wait_for_call()
    bench.wait(3)
    assert woken == [1000, 1003, 1016]


def test_dead_letters_need_their_topic() -> None:
    """A message that used up its attempts stays where it is while the dead-letter topic is gone."""
    bench = Bench(dead_letter_policy={"dead_letter_topic": "projects/p/topics/dead", "max_delivery_attempts": 5})
    bench.publish(1)
    bench.dead_topic_exists = False
    for _ in range(6):
        bench.modify(0, *bench.take())
    bench.dead_topic_exists = True
    bench.take()
    bench.wait(10)
    assert (bench.dead, bench.finished, bench.held) == ([(1, 7)], [1], 0)


def test_a_dead_letter_frees_its_key() -> None:
    """A poisonous message leaves its ordering key, and the next one comes."""
    policy = {"dead_letter_topic": "projects/p/topics/dead", "max_delivery_attempts": 5}
    bench = Bench(enable_message_ordering=True, dead_letter_policy=policy)
    bench.publish(1, 2, key="key")
    for _ in range(5):
        bench.modify(0, *bench.take(limit=1))
    assert bench.dead == [(1, 5)]
    assert seqs(bench.take()) == [2]


def test_order_survives_expiry() -> None:
    """When the first of a key expires, later ones come again after it, acknowledged or not."""
    bench = Bench(enable_message_ordering=True)
    bench.publish(1, 2, 3, key="key")
    _, two, _ = bench.take()
    bench.acknowledge(two)
    assert bench.finished == []
    bench.wait(10)
    again = bench.take()
    assert seqs(again) == [1, 2, 3]
    bench.acknowledge(*again)
    assert (bench.finished, bench.held, bench.subscription.lanes) == ([1, 2, 3], 0, {})


def test_flow_is_freed_however_a_message_leaves() -> None:
    """Acknowledgement, nack and expiry each give a stream its room back."""
    bench = Bench()
    flow = Flow(max_messages=3, max_bytes=1000)
    bench.publish(*range(6), size=10)
    one, two, _ = bench.take(flow=flow)
    assert bench.take(flow=flow) == []
    bench.acknowledge(one)
    bench.modify(0, two)
    assert flow.room == 2
    bench.wait(10)
    assert (flow.messages, flow.size) == (0, 0)


def test_ack_ids_belong_to_their_subscription() -> None:
    """An id of another subscription, or one made up, is refused as the service does."""
    bench, other = Bench(), Bench()
    other.subscription = Subscription(
        types.Subscription.pb(types.Subscription(name="projects/p/subscriptions/other")), bool, bool
    )
    bench.publish(1)
    (delivery,) = bench.take()
    good = bench.subscription.ack_id(delivery)
    for bad in (other.subscription.ack_id(delivery), "", good[:-1], good + "x", good + "-1", good.replace("-", "")):
        with pytest.raises(InvalidArgument, match="ack ID"):
            bench.subscription.acknowledge([bad])


@pytest.mark.parametrize(
    ("text", "passes", "fails"),
    [
        ("attributes:colour", {"colour": ""}, {}),
        ('attributes.colour = "red"', {"colour": "red"}, {"colour": "Red"}),
        ('attributes.colour != "red"', {}, {"colour": "red"}),
        ('hasPrefix(attributes.colour, "re")', {"colour": "red"}, {"colour": "are"}),
        ('hasPrefix(attributes.colour, "")', {"colour": "red"}, {}),
        ("NOT attributes:colour", {}, {"colour": "red"}),
        ("-attributes:colour", {}, {"colour": "red"}),
        ("attributes:a AND attributes:b AND attributes:c", {"a": "", "b": "", "c": ""}, {"a": "", "c": ""}),
        ("attributes:a OR attributes:b", {"b": ""}, {"c": ""}),
        ("attributes:a AND (attributes:b OR NOT attributes:c)", {"a": ""}, {"a": "", "c": ""}),
        ('attributes."a b\\"c" = "\\u00e9"', {'a b"c': "é"}, {'a b"c': "e"}),
        ("attributes:content-type", {"content-type": "x"}, {"content": "type"}),
    ],
)
def test_filters(text: str, passes: dict[str, str], fails: dict[str, str]) -> None:
    """Each form of the filter language passes what it should and nothing else."""
    matches = parse_filter(text)
    assert matches is not None
    assert matches(passes)
    assert not matches(fails)


@pytest.mark.parametrize(
    "text",
    [
        "colour",
        "attributes",
        "attributes.colour",
        "attributes.colour = red",
        'attributes.colour = "red',
        'attributes.colour == "red"',
        'attributes.colour = "\\x"',
        "attributes:a attributes:b",
        "attributes:a AND",
        "attributes:a AND attributes:b OR attributes:c",
        "(attributes:a",
        "hasPrefix(attributes.a)",
        "NOT",
        "attributes:a;",
        f'attributes.a = "{"x" * 250}"',
    ],
)
def test_bad_filters(text: str) -> None:
    """What is no filter is refused, with the filter or its limit named."""
    with pytest.raises(InvalidArgument, match="[Ff]ilter"):
        parse_filter(text)


class Deliveries(RuleBasedStateMachine):
    """Any mixture of publishing, pulling, acknowledging, nacking and waiting keeps the promises of a subscription."""

    @initialize(ordered=st.booleans())
    def start(self, ordered: bool) -> None:
        self.bench = Bench(enable_message_ordering=ordered)
        self.ordered = ordered
        self.published: list[int] = []
        self.keys: dict[int, str] = {}
        self.out: list[tuple[Delivery, str]] = []
        self.seen: defaultdict[str, list[int]] = defaultdict(list)

    @rule(count=st.integers(1, 5), key=st.sampled_from(["", "a", "b"]))
    def publish(self, count: int, key: str) -> None:
        new = range(len(self.published), len(self.published) + count)
        self.published += new
        self.keys |= dict.fromkeys(new, key)
        self.bench.publish(*new, key=key)

    @rule(limit=st.integers(1, 7))
    def pull(self, limit: int) -> None:
        taken = self.bench.take(limit)
        assert not set(seqs(taken)) & set(self.bench.finished)
        assert len(set(seqs(taken))) == len(taken) <= limit
        self.out += [(delivery, self.bench.subscription.ack_id(delivery)) for delivery in taken]
        if self.ordered:
            for delivery in taken:
                self.check_order(delivery.message.seq)

    def check_order(self, seq: int) -> None:
        """Within its key a message follows its predecessor, or starts again at one not acknowledged yet."""
        key = self.keys[seq]
        if key:
            mine = [other for other in self.published if self.keys[other] == key]
            first_open = next(other for other in mine if other not in self.bench.finished)
            assert seq == first_open or self.seen[key][-1] == mine[mine.index(seq) - 1]
            self.seen[key].append(seq)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), nack=st.booleans())
    def answer(self, data: st.DataObject, nack: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.out), max_size=5))
        ids = [ack_id for _, ack_id in chosen]
        if nack:
            self.bench.subscription.modify(ids, [0] * len(ids), self.bench.now)
        else:
            self.bench.subscription.acknowledge(ids)

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.bench.wait(seconds)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(set(self.bench.finished)) == len(self.bench.finished)
        assert self.bench.held + len(self.bench.finished) == len(self.published)

    def teardown(self) -> None:
        """Whatever happened, all that is open can still be had and acknowledged."""
        while self.bench.held:
            self.bench.wait(10)
            self.bench.acknowledge(*self.bench.take())
        assert sorted(self.bench.finished) == self.published


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
