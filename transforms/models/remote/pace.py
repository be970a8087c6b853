"""Requests a second and tokens a minute that this process keeps to, whatever the endpoint would take.

Lives on one event loop, so that it needs no locks.
"""

from __future__ import annotations

import asyncio
import time

#: Characters of a text that one token is taken for, until the server says how many there were.
_CHARACTERS_A_TOKEN = 4


class Pace:
    """At most ``per_s`` of something a second, evenly: what one takes, those behind it wait for.

    An amount that was guessed is put right once it is known, and whoever waits, waits less or more.
    """

    def __init__(self, per_s: float) -> None:
        self._seconds_each = 1 / per_s
        self._free_at = time.monotonic()
        self._turn = asyncio.Lock()  # lets go in the order of arrival
        self._changed = asyncio.Event()

    async def take(self, amount: float = 1.0) -> float:
        """Waits for its turn; returns for how many seconds."""
        arrived = time.monotonic()
        async with self._turn:
            while (pause := self._free_at - time.monotonic()) > 0:
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), pause)
                except (TimeoutError, asyncio.TimeoutError):
                    continue
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + amount * self._seconds_each
            return now - arrived

    def correct(self, amount: float) -> None:
        """Adds ``amount``, which may be below 0, to what was taken."""
        if amount:
            self._free_at += amount * self._seconds_each
            self._changed.set()


class Limits:
    """The paces of one endpoint; those that are None set no bound."""

    def __init__(self, requests_per_s: float | None, tokens_per_min: float | None) -> None:
        self._requests = Pace(requests_per_s) if requests_per_s else None
        self._tokens = Pace(tokens_per_min / 60) if tokens_per_min else None

    async def take(self, guess: int) -> float:
        """Waits until one request of some ``guess`` tokens may be sent; returns for how many seconds."""
        waited = await self._tokens.take(guess) if self._tokens else 0.0
        return waited + (await self._requests.take() if self._requests else 0.0)

    def settle(self, guess: int, tokens: int | None) -> None:
        """Puts the guess right; where the server does not say how many there were, it stands."""
        if self._tokens and tokens is not None:
            self._tokens.correct(tokens - guess)


def guess_tokens(body: bytes | None, generated: int) -> int:
    """What a request will take, roughly: its text, and all that it may generate."""
    return len(body or b"") // _CHARACTERS_A_TOKEN + generated
