"""How many requests may be under way: all of them, fewer while the server is overloaded, or one probe while it is away.

Lives on one event loop, so that it needs no locks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from transforms.models.remote.reply import Verdict

_LOG = logging.getLogger(__name__)

#: Failures in a row, without one answer between them, after which the endpoint counts as away.
FAILURES = 5
#: Seconds between probes: the first, doubled each time, and the longest.
FIRST_PROBE_S, LAST_PROBE_S = 0.5, 30.0


class CircuitBreaker:
    """Client-side throttling and circuit breaker in one: who may send now.

    ``limit`` falls by half when the server says that it is overloaded, once for all requests that were under way, and
    grows by one for each ``limit`` answers (additive increase, multiplicative decrease, as TCP does:
    https://www.rfc-editor.org/rfc/rfc5681#section-3.1). After ``FAILURES`` in a row the breaker opens: one request at
    a time probes the endpoint, ever more rarely, until one is answered.
    """

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self.is_open = False
        self.opened = 0
        self.successes = 0
        self.words = ""  # of the last failure
        self._in_a_row = 0
        self._cut_at = 0.0
        self._open_since = 0.0
        self._probe_at = 0.0
        self._probes = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_away(self) -> bool:
        """Whether the breaker is open and a probe found it right."""
        return self.is_open and self._probes > 1

    async def enter(self, deadline: float | None) -> bool:
        """Waits for a place; returns whether this request is the probe of an endpoint that is away.

        Raises:
          TimeoutError: the endpoint was still away at ``deadline`` (in ``time.monotonic``).
        """
        while not self._has_room():
            until = [deadline] if deadline is not None else []
            until += [self._probe_at] if self.is_open and not self.under_way else []
            timeout = max(0.0, min(until) - time.monotonic()) if until else None
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await asyncio.wait([turn], timeout=timeout)
            if deadline is not None and time.monotonic() >= deadline and self.is_open:
                raise TimeoutError
        self.under_way += 1
        return self.is_open

    def _has_room(self) -> bool:
        if self.is_open:
            return not self.under_way and time.monotonic() >= self._probe_at
        return self.under_way < int(self.limit)

    def hold(self) -> bool:
        """Takes one place more, if there is one to spare and the endpoint is not away; :meth:`let_go` gives it back."""
        if self.is_open or self._waiting or not self._has_room():
            return False
        self.under_way += 1
        return True

    def let_go(self) -> None:
        """Gives a place back that :meth:`hold` took."""
        self.under_way -= 1
        self._wake()

    def leave(self, verdict: Verdict | None, sent_at: float, words: str = "", retry_after: float = 0.0) -> None:
        """Gives the place back, with what became of the request; None where that says nothing about the endpoint."""
        self.under_way -= 1
        now = time.monotonic()
        if verdict in (Verdict.OK, Verdict.REFUSED):
            self.successes += 1
            self._in_a_row = 0
            self.limit = min(self.most, self.limit + 1 / self.limit)
            # An answer to a request from before it went away proves as much as a probe's.
            if self.is_open:
                self._close(now)
        elif verdict is not None:
            self.words = words
            self._in_a_row += 1
            if verdict is Verdict.BUSY and sent_at >= self._cut_at:
                self.limit, self._cut_at = max(1.0, self.limit / 2), now
            if self.is_open or self._in_a_row >= FAILURES:
                self._open(now, words, retry_after)
        self._wake()

    def _wake(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()

    def _open(self, now: float, words: str, retry_after: float) -> None:
        if not self.is_open:
            self.is_open, self._open_since, self._probes = True, now, 0
            self.opened += 1
            _LOG.warning("%s does not answer (%s); probing it until it does, all else waits", self.name, words)
        elif now < self._probe_at:
            return  # another request of before, failing late
        pause = min(LAST_PROBE_S, FIRST_PROBE_S * 2 ** min(self._probes, 30))  # an outage may last for days
        self._probes += 1
        self._probe_at = now + max(retry_after, pause * random.uniform(0.75, 1.0))  # noqa: S311 - jitter

    def _close(self, now: float) -> None:
        self.is_open = False
        # Two more failures in a row open it again; and it gets its full load back step by step.
        self._in_a_row = FAILURES - 2
        self.limit = max(1.0, self.most / 2)
        _LOG.warning("%s answers again, after %.1f s", self.name, now - self._open_since)
