"""Dead letters on their subscription, and their way back to the input topic.

They are leased batch by batch, and given back unless they are done with: acknowledged only once what came of them is
safe.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.pubsub_v1 import SubscriberClient

from pipeline import clients, publish
from transforms.dead_letter import PREFIX, attempts, restore, stage
from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: How long a lease lasts and how often it is renewed. Whoever is killed keeps the rest from others for as long.
_LEASE_S = 60
_RENEW_S = 20

#: Longest wait of one pull: an interruption is looked for in between.
_PULL_S = 3.0
_MOST_A_REQUEST = 1_000

#: A Pub/Sub that is away is waited for; the end of a pull's own patience is not an error.
_RETRY = Retry(
    predicate=if_exception_type(
        api.ServiceUnavailable, api.InternalServerError, api.Aborted, api.TooManyRequests, api.Unknown
    ),
    initial=0.1,
    maximum=5.0,
    timeout=300.0,
)


class Letters:
    """The dead letters of ``subscription``, each handed out once; the end of its ``with`` block gives the rest back.

    The service may answer "nothing" while it has more, so the end is when nothing new has come for ``idle_s`` seconds.
    """

    def __init__(self, subscription: str, idle_s: float = 10.0):
        self._subscription = subscription
        self._client = clients.pubsub(SubscriberClient)
        self._idle_s = idle_s
        self._leases: dict[str, str] = {}
        self._done: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="renew", daemon=True)

    def __enter__(self) -> Letters:
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives back what is not done, at once."""
        self.stop()
        self._renewing.join()
        with contextlib.suppress(api.GoogleAPIError):
            self._set_leases(self._leases.values(), 0)

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
        ids = [letter.message_id for letter in letters]
        with self._lock:
            ack_ids = [self._leases.pop(message_id) for message_id in ids]
            self._done.update(ids)
        self._acknowledge(ack_ids)

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
        batch, repeats = [], []
        with self._lock:
            for received in answer.received_messages:
                message = received.message
                if message.message_id in self._done:  # its acknowledgement was lost
                    repeats.append(received.ack_id)
                    continue
                if message.message_id not in self._leases:
                    published = message.publish_time.timestamp()
                    batch.append(
                        Message(
                            message.data,
                            dict(message.attributes),
                            message.message_id,
                            published,
                            published,
                            message.ordering_key,
                        )
                    )
                self._leases[message.message_id] = received.ack_id
        self._acknowledge(repeats)
        self._set_leases([received.ack_id for received in answer.received_messages], _LEASE_S)
        return batch

    def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        for chunk in _chunks(ack_ids):
            self._client.acknowledge(subscription=self._subscription, ack_ids=chunk, retry=_RETRY, timeout=30)

    def _set_leases(self, ack_ids: Iterable[str], seconds: int) -> None:
        for chunk in _chunks(list(ack_ids)):
            self._client.modify_ack_deadline(
                subscription=self._subscription,
                ack_ids=chunk,
                ack_deadline_seconds=seconds,
                retry=None,
                timeout=10,
            )

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_S):
            with self._lock:
                ack_ids = list(self._leases.values())
            try:
                self._set_leases(ack_ids, _LEASE_S)
            except api.GoogleAPIError as error:
                _LOGGER.warning("%d leases were not renewed: %s", len(ack_ids), error)


def _chunks(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ack_ids), _MOST_A_REQUEST):
        yield ack_ids[start : start + _MOST_A_REQUEST]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters to replay: all that fit every field that is set. Times are seconds since the epoch."""

    stages: frozenset[str] = frozenset()
    error_types: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0
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
    """What a replay has done so far."""

    replayed: int = 0
    left: int = 0
    refused: int = 0
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

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
) -> ReplayCounts:
    """Publishes the messages of ``letters`` that ``choice`` takes to ``topic``, and acknowledges those.

    ``rate`` is in messages a second; ``watch`` hears of each published part. A ``dry_run`` counts and acknowledges
    nothing.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the subscription or the topic failed for good; nothing is lost.
    """
    tally = ReplayCounts()
    started = time.monotonic()
    for batch in letters.batches():
        chosen = []
        for letter in batch:
            if not choice.takes(letter):
                tally.left += 1
            elif attempts(letter) >= max_attempts:
                tally.refused += 1
            else:
                chosen.append(letter)
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
        if limit is not None and tally.replayed >= limit:
            break
    return tally


def _parts(
    chosen: list[Message], rate: float | None, limit: int | None, tally: ReplayCounts
) -> Iterator[list[Message]]:
    """``chosen`` up to ``limit``, in parts of about a second."""
    if limit is not None:
        chosen = chosen[: limit - tally.replayed]
    size = len(chosen) if rate is None else max(1, int(rate))
    for start in range(0, len(chosen), size or 1):
        yield chosen[start : start + size]
