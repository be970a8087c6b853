"""Asks the endpoint until there is an answer: back-off, rotation of the token, and blame where it belongs."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from google.api_core.retry import exponential_sleep_generator

from transforms.errors import BundleError, quoted
from transforms.models.errors import ElementError
from transforms.models.remote.circuit_breaker import CircuitBreaker
from transforms.models.remote.hedge import Hedge
from transforms.models.remote.pace import Limits, guess_tokens
from transforms.models.remote.protocol import Post
from transforms.models.remote.reading import Read, Reading, read_reply
from transforms.models.remote.reply import Reply, Verdict
from transforms.models.remote.transport import Transport
from transforms.models.token import TokenError, TokenKeeper

#: Seconds of back-off, with full jitter: the bound at first, doubled each time, and at last.
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 10.0

#: How often one request must fail, others being answered between any two failures, for its input to be blamed.
STRIKES = 5

#: How many times more where it fails as if something else were to blame: a server that is busy may answer others first.
PATIENCE = 4

#: Failures in a row, without an answer to others between them, from which on the endpoint itself may be away.
_STILL = 2

#: Largest request that is kept to probe with.
_KEEP_BYTES = 65_536

#: Answers over this many bytes are read on a thread: the event loop has other requests to see to.
_LARGE_BYTES = 1_000_000


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
    hedged: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    throttled_s: float = 0.0


#: Where a request would take the token to another host than those that it is for; nothing was sent.
_ELSEWHERE = Reading(Reply(0), Verdict.DENIED, words="the token is for another host than this request goes to")


class Question(NamedTuple):
    """A request, and what makes something of its answer."""

    post: Post
    read: Read


class Caller:
    """One endpoint, asked by many requests at once; they share its breaker and its token. Lives on one event loop.

    ``small`` is a question that any healthy endpoint of its task answers: it probes where nothing was answered yet.
    """

    def __init__(
        self,
        name: str,
        token: TokenKeeper,
        concurrency: int,
        timeout_s: float,
        max_wait_s: float,
        limits: Limits | None = None,
        hedge_s: float | None = None,
    ) -> None:
        self.name = name
        self.breaker = CircuitBreaker(name, concurrency)
        self.token = token
        self.timeout_s = timeout_s
        self.max_wait_s = max_wait_s
        self.small: Question | None = None
        self._transport = Transport(concurrency)
        self._limits = limits or Limits(None, None)
        self._hedge = Hedge(self.breaker, hedge_s)
        self._good: Question | None = None

    async def once(self, post: Post, timeout_s: float, read: Read) -> Reading:
        """One attempt, whatever comes of it, past the circuit breaker: to look at an endpoint."""
        token = await self._token()
        if not self.token.goes_to(post.url):
            return _ELSEWHERE
        return await self._read(await self._transport.send(post, token, timeout_s), read)

    async def ask(self, post: Post, read: Read, counts: RequestCounts, alone: bool) -> Any:
        """What ``read`` makes of the answer to ``post``.

        Raises:
          EndpointRefused, EndpointFailed: the input is to blame; or one of several, where it is not ``alone``.
          EndpointUnavailable: there was no answer for ``max_wait_s``.
        """
        waits = exponential_sleep_generator(FIRST_WAIT_S, LAST_WAIT_S)
        deadline = time.monotonic() + self.max_wait_s if self.breaker.is_open else None
        strikes, seen, attempts, in_a_row = 0, -1, 0, 0
        while True:
            arrived = time.monotonic()
            try:
                probe = await self.breaker.enter(deadline)
            except TimeoutError:
                self._give_up(strikes, in_a_row, attempts)
            counts.throttled_s += time.monotonic() - arrived
            good = self._good or self.small
            if probe and good is not None and good.post is not post:
                # What went well before is the better probe: this request may be what the endpoint fails on.
                found, paced = await self._attempt(good.post, good.read, counts)
                deadline = deadline + paced if deadline is not None else None
                if found is None or found.verdict is not Verdict.OK:
                    deadline = deadline or time.monotonic() + self.max_wait_s
                if good is self.small and found is not None and found.verdict is Verdict.REFUSED:
                    self.small = None  # not every model takes it, and a refusal tells little
                continue
            counts.retries += attempts > 0
            attempts += 1
            found, paced = await self._attempt(post, read, counts)
            # Our own pace is no silence of the endpoint's.
            deadline = deadline + paced if deadline is not None else None
            if found is None:
                continue  # there is another token now
            if found.verdict is Verdict.OK:
                if post.body is not None and len(post.body) <= _KEEP_BYTES:
                    self._good = Question(post, read)
                return found.value
            if found.verdict is Verdict.REFUSED:
                raise EndpointRefused(f"{self.name} refused it with {quoted(found.words)}")
            others = 0 <= seen < self.breaker.successes
            seen = self.breaker.successes
            strikes, in_a_row = strikes + others, 0 if others else in_a_row + 1
            patience = 1 if found.verdict is Verdict.BROKEN else PATIENCE
            blames = found.verdict is Verdict.BROKEN or found.in_body or not alone
            if blames and strikes >= (STRIKES if alone else 1) * patience:
                self._blame(attempts, found.words)
            deadline = deadline or time.monotonic() + self.max_wait_s
            # Both: those who were told the same time shall not come back at the same moment.
            pause = found.pause_s + next(waits)
            pause = max(0.0, min(pause, deadline - time.monotonic()))
            await asyncio.sleep(pause)
            counts.throttled_s += pause
            if time.monotonic() >= deadline:
                self._give_up(strikes, in_a_row, attempts)

    def _blame(self, attempts: int, words: str) -> NoReturn:
        raise EndpointFailed(f"{self.name} failed {attempts} times on it, and answers others: {quoted(words)}")

    async def _attempt(self, post: Post, read: Read, counts: RequestCounts) -> tuple[Reading | None, float]:
        """One attempt inside the breaker, as it was understood; None where there is another token now.

        The second is for how many seconds its turn was waited for.
        """
        guess = guess_tokens(post.body, post.generates)
        found: Reading | None = None
        paced, spent = 0.0, None
        sent_at = time.monotonic()
        try:
            paced = await self._limits.take(guess)
            counts.throttled_s += paced
            sent_at = time.monotonic()
            try:
                token = await self._token()
            except TokenError as error:
                found = Reading(Reply(0), Verdict.DENIED, words=str(error))
                return found, paced
            if not self.token.goes_to(post.url):
                found = _ELSEWHERE
                return found, paced
            counts.requests += 1
            send = functools.partial(self._transport.send, post, token, self.timeout_s)
            found = await self._read(await self._hedge.send(send, counts), read)
            spent = found.tokens
            if found.verdict is Verdict.DENIED and await asyncio.to_thread(self.token.refused, token):
                found = None
            return found, paced
        finally:
            self._limits.settle(guess, spent)
            if found is None:
                self.breaker.leave(None, sent_at)
            else:
                self.breaker.leave(found.verdict, sent_at, found.logged or found.words, found.pause_s)

    async def _read(self, reply: Reply, read: Read) -> Reading:
        """``reply`` as it was understood, its words without the token, which a server may quote."""
        large = len(reply.body) > _LARGE_BYTES
        found = await asyncio.to_thread(read_reply, reply, read) if large else read_reply(reply, read)
        if not found.words:
            return found
        scrub = self.token.scrub
        return found._replace(words=scrub(found.words), misfit=scrub(found.misfit), logged=scrub(found.logged))

    async def _token(self) -> str | None:
        there, token = self.token.at_hand()
        return token if there else await asyncio.to_thread(self.token.get)

    def _give_up(self, strikes: int, in_a_row: int, attempts: int) -> NoReturn:
        """The end of ``max_wait_s``.

        A gateway's 403 for what is in a text, a 429 for one that is over every quota, a 503 of a server that dies of
        it: no status tells these from an outage, but that others are answered to the end.
        """
        if strikes >= STRIKES and in_a_row < _STILL and not self.breaker.is_away:
            self._blame(attempts, self.breaker.words)
        raise EndpointUnavailable(
            f"{self.name} gave no answer for {self.max_wait_s:g} s; at last: {self.breaker.words}."
            " No message is lost: they are delivered again"
        )
