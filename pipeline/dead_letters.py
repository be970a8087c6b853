"""Dead letters on their subscription, and their way back to the input topic.

They are leased batch by batch, and given back unless they are done with: acknowledged only once what came of them is
safe.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import PullResponse

from pipeline import clients, publish
from pipeline.direct import leases, received
from pipeline.way_back import Elsewhere, Stranger, WayBack
from transforms.dead_letter import PREFIX, attempts, restore, stage
from transforms.records import Message

#: Longest wait of one pull: an interruption is looked for in between.
_PULL_S = 1.0
_MOST_A_REQUEST = 1_000

#: A Pub/Sub that is away is waited for this long.
_PATIENCE_S = 300.0
#: The end of a pull's own patience is not an error.
_RETRY = Retry(
    predicate=if_exception_type(
        api.ServiceUnavailable, api.InternalServerError, api.Aborted, api.TooManyRequests, api.Unknown
    ),
    initial=0.1,
    maximum=5.0,
    timeout=_PATIENCE_S,
)

#: So many messages of which none is a dead letter are no subscription of dead letters.
_STRANGERS = 1_000


class Letters:
    """The dead letters of ``subscription``, each handed out once; the end of its ``with`` block gives the rest back.

    The service may answer "nothing" while it has more, so the end is when nothing new has come for ``idle_s`` seconds.
    """

    def __init__(self, subscription: str, idle_s: float = 10.0):
        self._subscription = subscription
        self._client = clients.pubsub(SubscriberClient)
        self._idle_s = idle_s
        self._leases = leases.Leases(subscription, self._client)
        self._stop = threading.Event()

    def __enter__(self) -> Letters:
        self._leases.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives back what is not done, at once."""
        self.stop()
        self._leases.close()
        self._leases.give_back()

    def stop(self) -> None:
        """Hands out nothing more."""
        self._stop.set()

    @property
    def stopped(self) -> threading.Event:
        return self._stop

    def batches(self) -> Iterator[list[Message]]:
        """What there is, up to a thousand at a time, until nothing new comes.

        Raises:
            google.api_core.exceptions.GoogleAPIError: the subscription cannot be read.
        """
        quiet_since = time.monotonic()
        while not self._stop.is_set() and time.monotonic() - quiet_since < self._idle_s:
            batch = self._pull()
            if batch:
                yield batch
                quiet_since = time.monotonic()

    def done(self, letters: Sequence[Message]) -> None:
        """Acknowledges ``letters``; to be called once what came of them is safe."""
        self._acknowledge(self._leases.end(letter.message_id for letter in letters))

    def _pull(self) -> list[Message]:
        try:
            answer = self._client.pull(
                subscription=self._subscription,
                max_messages=_MOST_A_REQUEST,
                retry=_RETRY,
                timeout=min(_PULL_S, self._idle_s),
            )
        except api.DeadlineExceeded:
            return []
        batch, repeats = [], {}
        deliveries = PullResponse.pb(answer).received_messages
        for each in deliveries:
            message = received.message(each.message)
            new = self._leases.add(message.message_id, each.ack_id)
            if new is None:
                repeats[message.message_id] = each.ack_id
            elif new:
                batch.append(message)
        self._leases.extend(each.ack_id for each in deliveries)
        self._acknowledge(repeats)
        return batch

    def _acknowledge(self, ended: Mapping[str, str]) -> None:
        self._leases.acknowledge(ended, lambda: _PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters to replay: all that fit every field that is set. Times are seconds since the epoch."""

    stages: frozenset[str] = frozenset()
    error_types: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    since: float = float("-inf")
    until: float = float("inf")

    def takes(self, letter: Message) -> bool:
        return (
            self.since <= letter.publish_time < self.until
            and (not self.stages or stage(letter) in self.stages)
            and (not self.error_types or letter.attributes.get(f"{PREFIX}error_type") in self.error_types)
            and self.attributes.items() <= letter.attributes.items()
        )


@dataclass(slots=True)
class ReplayCounts:
    """What a replay has done so far; ``elsewhere`` counts what belongs to other inputs, by the reason in words."""

    replayed: int = 0
    left: int = 0
    refused: int = 0
    strangers: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def misplaced(self) -> int:
        """What is no dead letter, or not one that belongs to the topic."""
        return self.strangers + self.elsewhere.total()

    def __str__(self) -> str:
        return f"{self.replayed} replayed, {self.left} left as not asked for, {self.refused} left as failed too often"


def replay(
    letters: Letters,
    topic: str,
    choice: Choice,
    max_attempts: int = 5,
    limit: int | None = None,
    rate: float | None = None,
    publish: Callable[[str, Sequence[Message]], Any] = publish.publish_all,
    watch: Callable[[ReplayCounts, Sequence[Message]], None] = lambda tally, letters: None,
    dry_run: bool = False,
    way_back: WayBack | None = None,
) -> ReplayCounts:
    """Publishes the messages of ``letters`` that ``choice`` takes to ``topic``, and acknowledges those.

    What ``way_back`` does not let through stays where it is. ``rate`` is in messages a second; ``watch`` hears of each
    published part. A ``dry_run`` counts and acknowledges nothing.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the subscription or the topic failed for good; nothing is lost.
    """
    tally, looked = ReplayCounts(), 0
    way_back = way_back or WayBack(topic)
    started = time.monotonic()
    for batch in letters.batches():
        chosen = [letter for letter in batch if _goes(letter, way_back, choice, max_attempts, tally)]
        looked += len(batch)
        for part in _parts(chosen, rate, limit, tally):
            if not dry_run:
                publish(topic, [restore(letter, clients.LIMITS) for letter in part])
                letters.done(part)
            tally.replayed += len(part)
            tally.kinds.update(
                (stage(letter) or "?", letter.attributes.get(f"{PREFIX}error_type", "")) for letter in part
            )
            watch(tally, part)
            if rate and not dry_run:
                letters.stopped.wait(max(0.0, started + tally.replayed / rate - time.monotonic()))
            if letters.stopped.is_set():
                break
        if limit is not None and tally.replayed >= limit or looked == tally.strangers >= _STRANGERS:
            break
    return tally


def _goes(letter: Message, way_back: WayBack, choice: Choice, max_attempts: int, tally: ReplayCounts) -> bool:
    """Whether ``letter`` is to be replayed; counts why not."""
    try:
        way_back.check(letter)
    except Stranger:
        tally.strangers += 1
    except Elsewhere as error:
        tally.elsewhere[str(error)] += 1
    else:
        if not choice.takes(letter):
            tally.left += 1
        elif attempts(letter) >= max_attempts:
            tally.refused += 1
        else:
            return True
    return False


def _parts(
    chosen: list[Message], rate: float | None, limit: int | None, tally: ReplayCounts
) -> Iterator[list[Message]]:
    """``chosen`` up to ``limit``, in parts of about a second."""
    if limit is not None:
        chosen = chosen[: limit - tally.replayed]
    size = len(chosen) if rate is None else max(1, int(rate))
    for start in range(0, len(chosen), size or 1):
        yield chosen[start : start + size]
