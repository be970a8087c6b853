"""One subscription's messages: which wait, which are leased, and what becomes of them.

No gRPC, no clock, no I/O: times come in as arguments (seconds since the epoch), and every rule can be tested by itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from google.pubsub_v1 import types

from pipeline.emulators.pubsub.backlog import Backlog
from pipeline.emulators.pubsub.delivery import Delivery, Flow, Lane, Message
from pipeline.emulators.pubsub.errors import InvalidArgument
from pipeline.emulators.pubsub.filter import Attributes, parse_filter

PubsubMessage = types.PubsubMessage.pb()


class Subscription(Backlog):
    """Delivers each message of a topic at least once, until it is acknowledged.

    ``config`` is the Subscription proto. ``dead_letter(self, message, attempts)`` forwards a message that failed too
    often and says whether it could; ``finished(self, seqs)`` hears of messages that are done with.
    """

    def __init__(
        self,
        config: Any,
        dead_letter: Callable[[Subscription, Message, int], bool],
        finished: Callable[[Subscription, list[int]], None],
    ) -> None:
        super().__init__(config)
        self.matches = parse_filter(config.filter)
        self.retained: dict[int, Message] = {}
        self._dead_letter = dead_letter
        self._finished = finished
        # At most 171 bytes: 3,000 of them, as many as Node's client sends at once, fit a request of 512 KiB.
        self._ack_prefix = hashlib.shake_128(config.name.encode()).hexdigest(70)
        self._ack_id = re.compile(self._ack_prefix + "([0-9]{1,20})-([0-9]{1,9})")

    # Publishing

    def accepts(self, attributes: Attributes) -> bool:
        return self.matches is None or self.matches(attributes)

    def _accepts(self, message: Message) -> bool:
        return self.matches is None or self.matches(dict(PubsubMessage.FromString(message.data).attributes))

    # Delivering

    def take(
        self, limit: float, max_bytes: float, now: float, flow: Flow | None = None, lease: float = 0
    ) -> list[Delivery]:
        """Leases up to ``limit`` messages, ``max_bytes`` together unless the first alone is larger.

        Those to be delivered again come first. ``lease`` is in seconds; 0 takes the subscription's ack deadline.
        """
        if flow is not None:
            limit, max_bytes = min(limit, flow.room), min(max_bytes, flow.bytes_room)
        taken: list[Delivery] = []
        for delivery in self._due(now):
            if len(taken) >= limit or (taken and max_bytes < len(delivery.message.data)):
                break
            max_bytes -= len(delivery.message.data)
            taken.append(delivery)
        until = now + (lease or self.config.ack_deadline_seconds)
        for delivery in taken:
            self._lease(delivery, until, flow)
        return taken

    def ack_id(self, delivery: Delivery) -> str:
        return f"{self._ack_prefix}{delivery.message.seq}-{delivery.attempt}"

    # What clients say about their leases

    def acknowledge(self, ack_ids: Iterable[str]) -> None:
        """Ends the messages, also where a lease has expired and no other has begun. Older ids are ignored."""
        done: list[int] = []
        for seq, attempt in self._parse(ack_ids):
            delivery = self.leases.get(seq) or self.returned.get(seq)
            if delivery is None or delivery.attempt != attempt:
                continue
            if self.returned.pop(seq, None) is None:
                self._release(delivery)
            if delivery.lane is None:
                done.append(seq)
                self._retain(delivery.message)
            else:
                delivery.acked = True
                done += self._advance(delivery.lane)
        if done:
            self._finished(self, done)
        self.ring()

    def modify(self, ack_ids: Iterable[str], seconds: Iterable[int], now: float) -> None:
        """Sets leases to end ``seconds`` from now; 0 gives a message back. Ids of past deliveries are ignored."""
        for (seq, attempt), lease in zip(self._parse(ack_ids), seconds, strict=True):
            delivery = self.leases.get(seq)
            if delivery is None or delivery.attempt != attempt:
                continue
            if lease:
                delivery.until = now + lease
                self._next_due = min(self._next_due, delivery.until)
            else:
                self._give_back(delivery, now)
        self.ring()

    def undeliver(self, deliveries: list[Delivery], now: float) -> None:
        """Takes back messages whose client went away before it got them; the attempt does not count."""
        for delivery in reversed(deliveries):
            if self.leases.get(delivery.message.seq) is delivery:
                delivery.attempt -= 1
                self._give_back(delivery, now, failed=False)
        self.ring()

    def _parse(self, ack_ids: Iterable[str]) -> list[tuple[int, int]]:
        parsed = []
        for ack_id in ack_ids:
            match = self._ack_id.fullmatch(ack_id)
            if match is None:
                raise InvalidArgument(f"You have passed an invalid ack ID to the service (ack_id={ack_id}).")
            parsed.append((int(match[1]), int(match[2])))
        return parsed

    def _advance(self, lane: Lane) -> Iterable[int]:
        """Ends what is acknowledged in a lane up to the first that is not; the rest of it may yet come again."""
        while lane.out and (first := next(iter(lane.out.values()))).acked:
            yield lane.out.pop(first.message.seq).message.seq
            self._retain(first.message)
        self._settle(lane)

    # The end of a lease

    def tick(self, now: float) -> None:
        """Ends the leases and back-offs whose time is up; to be called a few times a second."""
        if now < self._next_due:
            return
        for delivery in [lease for lease in self.leases.values() if lease.until <= now]:
            if self.leases.get(delivery.message.seq) is delivery:
                self._give_back(delivery, now)
        times = [delivery.until for delivery in self.leases.values()]
        times += [delivery.until for delivery in self.returned.values()]
        times += [lane.due for lane in self.ready_lanes]
        self._next_due = min((time for time in times if time > now), default=inf)
        self.ring()

    def _give_back(self, delivery: Delivery, now: float, failed: bool = True) -> None:
        """Has a leased message delivered again: at once, after a back-off, or to the dead-letter topic."""
        due = now + self._backoff(delivery.attempt) if failed else now
        dead = failed and self._forward(delivery)
        lane = delivery.lane
        if lane is None:
            self._release(delivery)
            if not dead:
                delivery.until = due
                self.returned[delivery.message.seq] = delivery
        else:
            self._rewind(lane, delivery)
            if dead:
                lane.queue.popleft()
            lane.due = due
            self._settle(lane)
        if dead:
            self._finished(self, [delivery.message.seq])
        self._next_due = min(self._next_due, due)

    def _forward(self, delivery: Delivery) -> bool:
        """Whether the message has used up its attempts and is now in the dead-letter topic."""
        policy = self.config.dead_letter_policy
        if not policy.dead_letter_topic or delivery.attempt < policy.max_delivery_attempts:
            return False
        return self._dead_letter(self, delivery.message, delivery.attempt)

    def _backoff(self, attempt: int) -> float:
        """Seconds to wait before the next delivery: doubling between the bounds of the retry policy."""
        if not self.config.HasField("retry_policy"):
            return 0
        policy = self.config.retry_policy
        low, high = (bound.seconds + bound.nanos / 1e9 for bound in (policy.minimum_backoff, policy.maximum_backoff))
        pause: float = min(low * 2 ** min(attempt - 1, 16), high)
        return pause

    # Acknowledged messages, kept to go back to

    def _retain(self, message: Message) -> None:
        if self.config.retain_acked_messages:
            self.retained[message.seq] = message
            horizon = message.published - self.config.message_retention_duration.seconds
            while (oldest := next(iter(self.retained.values()))).published < horizon:
                del self.retained[oldest.seq]

    def seek(self, time: float, kept: Iterable[Message] = ()) -> tuple[list[Message], list[int]]:
        """Marks all published before ``time`` acknowledged, and what is kept since then not; leases end.

        ``kept`` is what the topic itself has kept since then.

        Returns the messages that are to be delivered now, and the ids of those that no longer are.
        """
        held = {delivery.message.seq: delivery.message for delivery in (*self.leases.values(), *self.returned.values())}
        held |= {message.seq: message for message in self.fresh}
        for lane in self.lanes.values():
            held |= {delivery.message.seq: delivery.message for delivery in (*lane.out.values(), *lane.queue)}
        for delivery in list(self.leases.values()):
            self._release(delivery)
        self.clear()
        passed = [message for message in held.values() if message.published < time]
        theirs = {message.seq: message for message in kept if self._accepts(message)}
        again = {seq: each for seq, each in (theirs | held | self.retained).items() if each.published >= time}
        for message in passed:
            self._retain(message)
        for seq in again:
            self.retained.pop(seq, None)
        self.add(again[seq] for seq in sorted(again))
        return list(again.values()), [message.seq for message in passed]
