"""The next bundle's answers, made while the one before waits for its sinks.

A runner with one worker does nothing but wait while rows are inserted and results published. What it will hand over
next is known by then: its answers are made meanwhile, and lie ready when it comes. Nothing else moves: a message that
was only looked at is neither taken nor acknowledged, and answers that nobody comes for are dropped. Where the sinks are
quick nothing is gained, and a batch cut off early is a smaller one: then all is answered when it comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from transforms.models.answers import Answers
from transforms.records import Request

_LOG = logging.getLogger(__name__)

#: The sinks are waited for where they take this part of the time that the model takes.
_WORTH = 0.1

#: Requests that will be made next, as far as they are known at the call.
Upcoming = Callable[[], Iterable[Request]]


class Ahead:
    """``answer``, which may be called from several threads, at most one bundle ahead of the runner."""

    def __init__(
        self,
        answer: Callable[[Sequence[Request]], Answers],
        upcoming: Upcoming,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._upcoming = upcoming
        self._clock = clock
        self._given = float("-inf")
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._lock = threading.Lock()
        self._begun: Future[tuple[Sequence[Request], Answers]] | None = None
        self._closed = False

    def answers(self, requests: Sequence[Request]) -> Answers:
        """One outcome for each of ``requests``, made now or before; then what comes next is begun, if worth it."""
        away = self._clock() - self._given
        early, made = self._made()
        # The messages themselves are held, so none of another bundle can have the identity of one of them.
        places = {id(each.message): place for place, each in enumerate(early)}
        found = {i: places[id(each.message)] for i, each in enumerate(requests) if id(each.message) in places}
        rest = [i for i in range(len(requests)) if i not in found]
        answers = self._answer([requests[i] for i in rest]) if rest else Answers()
        outcomes = dict(zip(rest, answers.outcomes, strict=True))
        outcomes.update((i, made.outcomes[place]) for i, place in found.items())
        if found:
            answers.add(made)
        answers.outcomes = [outcomes[i] for i in range(len(requests))]
        self._given = self._clock()
        with self._lock:
            if not self._closed and away * 1000 >= _WORTH * answers.ms:
                self._begun = self._thread.submit(self._make, self._upcoming())
        return answers

    def _make(self, upcoming: Iterable[Request]) -> tuple[Sequence[Request], Answers]:
        requests = list(upcoming)
        return requests, self._answer(requests) if requests else Answers()

    def _made(self) -> tuple[Sequence[Request], Answers]:
        with self._lock:
            begun, self._begun = self._begun, None
        try:
            return begun.result() if begun else ((), Answers())
        except Exception as error:  # noqa: BLE001 (made again, it comes again where the runner hears it)
            _LOG.info("what was to be answered ahead is answered when it comes: %s", type(error).__name__)
            return (), Answers()

    def close(self) -> None:
        """Begins no more, and waits for what is begun: a process that ended in it would seem to have died of it."""
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=True)
