"""Asks the endpoint until there is an answer: back-off, rotation of the token, and blame where it belongs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from google.api_core.retry import exponential_sleep_generator

from transforms.errors import BundleError
from transforms.models.errors import ElementError
from transforms.models.remote.circuit_breaker import CircuitBreaker
from transforms.models.remote.protocol import Post
from transforms.models.remote.reply import Reply, Verdict, judge
from transforms.models.remote.transport import Transport
from transforms.models.shapes import Misfit
from transforms.models.token import TokenError, TokenKeeper

#: Seconds of back-off, with full jitter: the bound at first, doubled each time, and at last.
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 10.0

#: How often one request must fail, others being answered between any two failures, for its input to be blamed.
STRIKES = 5

#: Largest request that is kept to probe with.
_KEEP_BYTES = 65_536


class EndpointUnavailable(BundleError):
    """The endpoint gave no answer for too long; no input is to blame, and the bundle must come again."""


class EndpointRefused(ElementError):
    """The endpoint refused the input; the text holds its own words."""


class EndpointFailed(ElementError):
    """The endpoint fails on this input each time, and answers others meanwhile."""


@dataclass(slots=True)
class RequestCounts:
    """What a batch cost, for the metrics."""

    requests: int = 0
    retries: int = 0
    bisections: int = 0
    tokens_read: int = 0
    tokens_generated: int = 0
    throttled_s: float = 0.0


class Caller:
    """One endpoint, asked by many requests at once; they share its breaker and its token. Lives on one event loop."""

    def __init__(self, name: str, token: TokenKeeper, concurrency: int, timeout_s: float, max_wait_s: float) -> None:
        self.name = name
        self.breaker = CircuitBreaker(name, concurrency)
        self.token = token
        self.timeout_s = timeout_s
        self.max_wait_s = max_wait_s
        self._transport = Transport(concurrency)
        self._good: Post | None = None

    async def once(self, post: Post, timeout_s: float) -> Reply:
        """One attempt, whatever comes of it, past the circuit breaker: to look at an endpoint."""
        token = await self._token()
        return self._clean(await self._transport.send(post, token, timeout_s))

    async def ask(self, post: Post, read: Callable[[Reply], Any], counts: RequestCounts, alone: bool) -> Any:
        """What ``read`` makes of the answer to ``post``.

        Raises:
          EndpointRefused, EndpointFailed: the input is to blame; or one of several, where it is not ``alone``.
          EndpointUnavailable: there was no answer for ``max_wait_s``.
        """
        waits = exponential_sleep_generator(FIRST_WAIT_S, LAST_WAIT_S)
        deadline = time.monotonic() + self.max_wait_s if self.breaker.is_open else None
        strikes, seen, attempts = 0, -1, 0
        while True:
            arrived = time.monotonic()
            try:
                probe = await self.breaker.enter(deadline)
            except TimeoutError:
                self._give_up()
            counts.throttled_s += time.monotonic() - arrived
            if probe and self._good is not None and self._good is not post:
                # What went well before is the better probe: this request may be what the endpoint fails on.
                verdict, _, _ = await self._attempt(self._good, lambda reply: None, counts)
                if verdict is not Verdict.OK:
                    deadline = deadline or time.monotonic() + self.max_wait_s
                continue
            counts.retries += attempts > 0
            attempts += 1
            verdict, reply, value = await self._attempt(post, read, counts)
            if verdict is Verdict.OK:
                if post.body is not None and len(post.body) <= _KEEP_BYTES:
                    self._good = post
                return value
            words = value or reply.describe()
            if verdict is Verdict.REFUSED:
                raise EndpointRefused(f"{self.name} refused it with {words}")
            if verdict is None:
                continue  # there is another token now
            if verdict is Verdict.BROKEN:
                if 0 <= seen < self.breaker.successes:
                    strikes += 1
                seen = self.breaker.successes
                if strikes >= (STRIKES if alone else 1):
                    raise EndpointFailed(f"{self.name} failed {attempts} times on it, and answers others: {words}")
            deadline = deadline or time.monotonic() + self.max_wait_s
            # Both: those who were told the same time shall not come back at the same moment.
            pause = reply.retry_after() + next(waits)
            pause = max(0.0, min(pause, deadline - time.monotonic()))
            await asyncio.sleep(pause)
            counts.throttled_s += pause
            if time.monotonic() >= deadline:
                self._give_up()

    async def _attempt(
        self, post: Post, read: Callable[[Reply], Any], counts: RequestCounts
    ) -> tuple[Verdict | None, Reply, Any]:
        """One attempt inside the breaker: its verdict (None: there is another token now), and what ``read`` made."""
        sent_at = time.monotonic()
        verdict: Verdict | None = None
        reply, value = Reply(0), None
        try:
            try:
                token = await self._token()
            except TokenError as error:
                verdict, value = Verdict.DENIED, str(error)
                return verdict, reply, value
            counts.requests += 1
            reply = self._clean(await self._transport.send(post, token, self.timeout_s))
            verdict = judge(reply)
            if verdict is Verdict.OK:
                try:
                    value = await asyncio.to_thread(read, reply) if len(reply.body) > 1_000_000 else read(reply)
                except (Misfit, ValueError) as error:
                    verdict, value = Verdict.BROKEN, self.token.scrub(f"{reply.status}, but {_words(error, reply)}")
            elif verdict is Verdict.DENIED and await asyncio.to_thread(self.token.refused, token):
                verdict = None
            return verdict, reply, value
        finally:
            self.breaker.leave(
                verdict, sent_at, value if isinstance(value, str) else reply.describe(), reply.retry_after()
            )

    async def _token(self) -> str | None:
        there, token = self.token.at_hand()
        return token if there else await asyncio.to_thread(self.token.get)

    def _clean(self, reply: Reply) -> Reply:
        """``reply`` without the token, which a server may quote."""
        if 200 <= reply.status < 300 and not reply.words:
            return reply
        words = self.token.scrub(reply.said())
        return Reply(reply.status, reply.headers, reply.body, words, reply.ms, reply.reached)

    def _give_up(self) -> NoReturn:
        raise EndpointUnavailable(
            f"{self.name} gave no answer for {self.max_wait_s:g} s; at last: {self.breaker.words}."
            " No message is lost: they are delivered again"
        )


def _words(error: Exception, reply: Reply) -> str:
    return str(error) if isinstance(error, Misfit) else f"not JSON: {reply.said()[:200]}"
