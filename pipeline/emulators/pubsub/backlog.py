"""Where each message of a subscription is, and its moves from place to place.

Every message is in exactly one place: ``fresh`` (never delivered), ``leases`` (out with a client), ``returned``
(to be delivered again) or, in an ordered subscription, in the lane of its ordering key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from pipeline.emulators.pubsub.delivery import Delivery, Flow, Lane, Message


class Backlog:
    """The places; ``config`` is the Subscription proto."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.waiting: dict[Callable[[], None], None] = {}
        self.fresh: deque[Message] = deque()
        self.returned: dict[int, Delivery] = {}
        self.leases: dict[int, Delivery] = {}
        self.lanes: dict[str, Lane] = {}
        self.ready_lanes: deque[Lane] = deque()
        self._next_due = inf

    def add(self, messages: Iterable[Message]) -> None:
        """Takes newly published messages, in order."""
        for message in messages:
            if message.ordering_key and self.config.enable_message_ordering:
                lane = self.lanes.get(message.ordering_key)
                if lane is None:
                    lane = self.lanes[message.ordering_key] = Lane(message.ordering_key)
                lane.queue.append(Delivery(message, lane=lane))
                if len(lane.queue) == 1 and not lane.out:
                    self.ready_lanes.append(lane)
            else:
                self.fresh.append(message)
        self.ring()

    # To a client, and from it

    def _due(self, now: float) -> Iterable[Delivery]:
        """Everything deliverable, in the order to deliver it; stays where it is until :meth:`_lease` moves it."""
        for delivery in self.returned.values():
            if delivery.until <= now:
                yield delivery
        for lane in self.ready_lanes:
            if lane.due <= now:
                yield from lane.queue
        for message in self.fresh:
            yield Delivery(message)

    def _lease(self, delivery: Delivery, until: float, flow: Flow | None) -> None:
        seq = delivery.message.seq
        lane = delivery.lane
        if lane is not None:
            if not lane.out:
                self.ready_lanes.remove(lane)
            lane.queue.popleft()
            lane.out[seq] = delivery
        elif self.returned.pop(seq, None) is None:
            self.fresh.popleft()
        delivery.attempt += 1
        delivery.until = until
        delivery.flow = flow
        if flow is not None:
            flow.messages += 1
            flow.size += len(delivery.message.data)
        self.leases[seq] = delivery
        self._next_due = min(self._next_due, until)

    def _release(self, delivery: Delivery) -> None:
        del self.leases[delivery.message.seq]
        if delivery.flow is not None:
            delivery.flow.messages -= 1
            delivery.flow.size -= len(delivery.message.data)
            delivery.flow = None

    # Lanes

    def _rewind(self, lane: Lane, first: Delivery) -> None:
        """Puts ``first`` and all that follow it in its lane back, acknowledged or not: order outlives redelivery."""
        out = list(lane.out.values())
        for delivery in reversed(out[out.index(first) :]):
            if delivery.acked:
                delivery.acked = False
            else:
                self._release(delivery)
            del lane.out[delivery.message.seq]
            lane.queue.appendleft(delivery)

    def _settle(self, lane: Lane) -> None:
        """Makes the rest of a lane deliverable once nothing of it is out; forgets an empty lane."""
        if lane.out:
            return
        if lane.queue:
            self.ready_lanes.append(lane)
        else:
            del self.lanes[lane.key]

    # All at once

    def clear(self) -> None:
        """Forgets every message that waits or is out."""
        self.fresh.clear()
        self.returned.clear()
        self.leases.clear()
        self.lanes.clear()
        self.ready_lanes.clear()

    def close(self) -> None:
        """Forgets every message, and tells whoever waits."""
        self.clear()
        self.wake()

    # Waiting clients

    def ring(self) -> None:
        """Wakes whoever waits if there may be something to deliver."""
        if self.fresh or self.returned or self.ready_lanes:
            self.wake()

    def wake(self) -> None:
        """Calls back all that wait, the longest wait first; each waits again if it got nothing."""
        waiting, self.waiting = self.waiting, {}
        for wake in waiting:
            wake()
