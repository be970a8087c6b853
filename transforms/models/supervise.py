"""Around a model's answers: messages that may kill the process run alone, and a forward that does not end is ended."""

from __future__ import annotations

import contextlib
import dataclasses
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


class Supervisor:
    """Keeps a model's journal, and ends the process where nothing else can help.

    ``max_forward_s`` is how long one forward may take; None sets no limit.
    """

    def __init__(self, journal: Journal, max_forward_s: float | None = None) -> None:
        self._journal = journal
        self._max_forward_s = max_forward_s
        self._began: float | None = None
        if max_forward_s is not None:
            threading.Thread(target=self._watch, args=(max_forward_s,), name="forward limit", daemon=True).start()

    def answer(
        self, work: Callable[[Sequence[Request]], Answers], requests: Sequence[Request], info: ModelInfo
    ) -> Answers:
        """``work(requests)``, where what is blamed for a death runs alone and first, or not at all."""
        deaths = self._journal.deaths()
        blamed = {i: identity(request.message) for i, request in enumerate(requests)} if deaths else {}
        blamed = {i: who for i, who in blamed.items() if who in deaths}
        if not blamed:
            return work(requests)
        alone: dict[int, Answers] = {}
        for index, who in blamed.items():
            request = requests[index]
            if deaths[who] >= self._journal.max_deaths:
                error = KilledWorker(
                    f"{deaths[who]} processes died with this message in the model; it is not run again"
                )
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

    def in_work(self, requests: Sequence[Request]) -> contextlib.AbstractContextManager[Entry]:
        """``requests`` are in this process's hands while the block runs."""
        return self._journal.in_work([identity(request.message) for request in requests])

    @contextlib.contextmanager
    def forward(self, entry: Entry, indices: Sequence[int]) -> Iterator[None]:
        """One forward of the requests at ``indices`` of those in work; one at a time."""
        entry.forward(indices)
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None
            entry.forward(())

    def _watch(self, limit_s: float) -> None:
        while True:
            time.sleep(min(1.0, limit_s / 4))
            began = self._began
            if began is not None and time.monotonic() - began > limit_s:
                end_process(f"a forward has taken {limit_s:g} s (max_forward_s)")


def end_process(why: str) -> None:
    """Ends this process at once: its messages are delivered again, to one that works."""
    _LOG.critical("%s; this process ends, and what it had in work is delivered again", why)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(EXIT_CODE)
