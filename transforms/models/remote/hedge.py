"""A second request for one that takes too long; the first answer of the two counts, and the other is given up.

J. Dean and L. A. Barroso, "The Tail at Scale", https://doi.org/10.1145/2408776.2408794. Off by default: it costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from transforms.models.remote.circuit_breaker import CircuitBreaker
from transforms.models.remote.reply import Reply, Verdict, judge

#: Requests for which there may be one second one: an endpoint that is slow with all must not be asked twice for all.
_FOR_EACH = 10


class _Counts(Protocol):
    requests: int
    hedged: int


class Hedge:
    """Sends again after ``after_s`` without an answer, where the endpoint has a place to spare; None never does."""

    def __init__(self, breaker: CircuitBreaker, after_s: float | None) -> None:
        self._breaker = breaker
        self._after_s = after_s
        self._sent = self._hedged = 0

    async def send(self, attempt: Callable[[], Awaitable[Reply]], counts: _Counts) -> Reply:
        """The reply to one attempt, or to the first of two that is an answer."""
        self._sent += 1
        if self._after_s is None:
            return await attempt()
        first = asyncio.ensure_future(attempt())
        both = [first]
        held = False
        try:
            done, _ = await asyncio.wait(both, timeout=self._after_s)
            held = not done and self._hedged < 1 + self._sent // _FOR_EACH and self._breaker.hold()
            if not held:
                return await first
            self._hedged += 1
            counts.requests += 1
            counts.hedged += 1
            both.append(asyncio.ensure_future(attempt()))
            done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            answers = [one.result() for one in done if judge(one.result()) in (Verdict.OK, Verdict.REFUSED)]
            if answers or not waiting:
                return answers[0] if answers else first.result()
            return await waiting.pop()
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            if held:
                self._breaker.let_go()
