"""Around a model's answers: messages that may kill the process run alone, and work that does not end is ended."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from transforms.barrier import failure
from transforms.models.answers import Answers
from transforms.models.errors import KilledWorker
from transforms.models.journal import Entry, Journal, identity
from transforms.records import ModelInfo, Request

_LOG = logging.getLogger(__name__)

#: Exit code of a process that ends itself (EX_SOFTWARE), after which a runner starts another.
EXIT_CODE = 70

#: Longest that messages of a batch may take to be read and cut into tokens: many times what any takes that ends.
PREPARE_S = 600.0

#: Seconds beyond its limit after which the process is ended from outside Python.
_GRACE_S = 30.0
_STDERR = 2


#: The supervisors that watch; they share the process's one timer.
_alive: set[int] = set()
_ALIVE = threading.Lock()
# At the interpreter's end its threads stand still, and nobody would put the timer off any more.
atexit.register(faulthandler.cancel_dump_traceback_later)


class Supervisor:
    """Keeps a model's journal, and ends the process where nothing else can help.

    ``max_forward_s`` is how long one forward may take; None sets no limit. What comes before it has one in any case.
    ``scope`` tells models apart: what kills one may be answered by another that reads the same topic on this machine.
    """

    def __init__(self, journal: Journal, max_forward_s: float | None = None, scope: str = "") -> None:
        self._journal = journal
        self._max_forward_s = max_forward_s
        self._scope = scope
        self._work: dict[int, _Work] = {}
        self._closed = threading.Event()
        with _ALIVE:
            _alive.add(id(self))
        threading.Thread(target=self._watch, name="forward limit", daemon=True).start()

    def close(self) -> None:
        """Watches no more: its model is gone."""
        self._closed.set()

    def answer(
        self, work: Callable[[Sequence[Request]], Answers], requests: Sequence[Request], info: ModelInfo
    ) -> Answers:
        """``work(requests)``, where what is blamed for a death runs alone and first, or not at all."""
        deaths = self._journal.deaths()
        blamed = {i: self._who(request) for i, request in enumerate(requests)} if deaths else {}
        blamed = {i: who for i, who in blamed.items() if who in deaths}
        if not blamed:
            return work(requests)
        alone: dict[int, Answers] = {}
        for index, who in blamed.items():
            request = requests[index]
            if (died := deaths.get(who, 0)) >= self._journal.max_deaths:  # cleared by another of the same name: 0
                error = KilledWorker(f"{died} processes died with this message in the model; it is not run again")
                alone[index] = Answers([failure(error, request.message, "predict", info)])
            else:
                alone[index] = work([request])
                self._journal.cleared(who)
        others = [index for index in range(len(requests)) if index not in alone]
        together = work([requests[index] for index in others]) if others else Answers()
        outcomes = {index: found.outcomes[0] for index, found in alone.items()}
        outcomes |= dict(zip(others, together.outcomes, strict=True))
        for found in alone.values():
            together.add(found)
        return dataclasses.replace(together, outcomes=[outcomes[index] for index in range(len(requests))])

    @contextlib.contextmanager
    def in_work(self, requests: Sequence[Request]) -> Iterator[Entry]:
        """``requests`` are in this process's hands while the block runs; at first they are prepared."""
        with self._journal.in_work([self._who(request) for request in requests]) as entry:
            yield entry

    def _who(self, request: Request) -> str:
        return self._scope + identity(request.message)

    @contextlib.contextmanager
    def preparing(self, entry: Entry) -> Iterator[None]:
        """All of the requests in work are prepared while the block runs."""
        with self._limited(PREPARE_S, "the preparation of a batch", ""):
            yield
        entry.prepared()

    @contextlib.contextmanager
    def forward(self, entry: Entry, indices: Sequence[int]) -> Iterator[None]:
        """One forward of the requests at ``indices`` of those in work."""
        with entry.forward(indices), self._limited(self._max_forward_s, "a forward", " (max_forward_s)"):
            yield

    @contextlib.contextmanager
    def _limited(self, limit_s: float | None, what: str, why: str) -> Iterator[None]:
        if limit_s is None:
            yield
            return
        work = _Work(time.monotonic() + limit_s, f"{what} has taken {limit_s:g} s{why}")
        self._work[id(work)] = work
        try:
            yield
        finally:
            del self._work[id(work)]

    def _watch(self) -> None:
        limit_s = self._max_forward_s or PREPARE_S
        while True:
            with _ALIVE:
                if self._closed.is_set():
                    _alive.discard(id(self))
                    if not _alive:  # else another one's watch puts the timer off
                        faulthandler.cancel_dump_traceback_later()
                    return
                # Native code that does not let go of Python's lock stops this thread too; the timer needs neither.
                faulthandler.dump_traceback_later(limit_s + _GRACE_S, exit=True, file=_STDERR)
            self._closed.wait(min(1.0, limit_s / 4))
            now = time.monotonic()
            for work in list(self._work.values()):
                if now > work.until:
                    end_process(work.words)


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """What may run ``until`` then, on the monotonic clock, and what is said if it does not end."""

    until: float
    words: str


def end_process(why: str) -> None:
    """Ends this process at once: its messages are delivered again, to one that works."""
    try:
        _LOG.critical("%s; this process ends, and what it had in work is delivered again", why)
        for handler in logging.getLogger().handlers:
            handler.flush()
    finally:  # a disk that is full takes no log
        os._exit(EXIT_CODE)
