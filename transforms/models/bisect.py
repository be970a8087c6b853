"""Runs work over many elements so that one bad element costs only itself.

Work that raises on several elements is halved until the culprit stands alone: k culprits among n elements cost at most
``1 + 2 k ceil(log2 n)`` calls. Running out of memory is the batch's fault before it is an element's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from transforms.barrier import tell
from transforms.errors import BundleError, quoted
from transforms.models.batching import Size, cost, cut
from transforms.models.errors import (
    ElementError,
    ModelError,
    OutOfMemory,
    Unexpected,
    is_device_lost,
    is_out_of_memory,
)
from transforms.models.errors import cut as cut_text

if TYPE_CHECKING:
    from transforms.models.backends.lanes import Lanes

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def blame(error: BaseException, kind: type[ElementError] = ModelError) -> ElementError:
    """The error of the one element on which work raised ``error``."""
    if isinstance(error, ElementError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(f"this element alone does not fit into memory: {_say(error)}; send a smaller one")
    if kind is Unexpected:
        return Unexpected(tell(error, "predict"))
    return kind(_say(error))


def _say(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {quoted(cut_text(lines[0], 300))}" if lines else type(error).__name__


def isolate(
    work: Callable[[Sequence[T]], Sequence[R]], elements: Sequence[T], kind: type[ElementError]
) -> list[R | ElementError]:
    """``work(elements)``, with an ``ElementError`` where an element makes it raise: its own, or one of ``kind``.

    Another number of results than there were elements is an error as any other.

    Raises:
      RuntimeError: the device is lost.
      StorageUnavailable: so is Cloud Storage.
    """
    if not elements:
        return []
    try:
        return [result for result, _ in zip(work(elements), elements, strict=True)]
    except BundleError:
        raise
    except Exception as error:
        if is_device_lost(error):
            raise
        if len(elements) == 1:
            return [blame(error, kind)]
    middle = len(elements) // 2
    return isolate(work, elements[:middle], kind) + isolate(work, elements[middle:], kind)


@dataclass(slots=True)
class Budget:
    """Padded tokens that a micro-batch may have; falls when memory runs out, and is remembered between batches.

    ``padding`` is how many of them may be padding; None sets no bound.
    """

    tokens: int
    padding: int | None = None


@dataclass(slots=True)
class ForwardCounts:
    """What a run cost, for the metrics."""

    forwards: int = 0
    bisections: int = 0
    out_of_memory: int = 0
    padded_tokens: int = 0
    padding: int = 0


@dataclass(slots=True)
class _Pending:
    """A micro-batch to run, and the budget there was before its ancestors ran out of memory (0: they did not)."""

    indices: list[int]
    budget_before: int = 0


def run_planned(
    forward: Callable[[list[int]], list[Any]],
    sizes: Sequence[Size],
    budget: Budget,
    max_size: int,
    counts: ForwardCounts,
    lanes: Lanes | None = None,
) -> list[Any]:
    """Runs ``forward`` over all of ``sizes`` in micro-batches; returns one result or ``ElementError`` each, in order.

    ``forward`` takes indices and returns one result each; where there are ``lanes``, and enough to do for all of them,
    it is called on each, from several threads at once. An element over the budget has all cores, so that lanes hold no
    more than a budget each. When memory runs out the budget is halved and the micro-batch cut again. An element that
    fails with nothing beside it is blamed, and the budget its failure cost is given back: a message that can never fit
    must not slow down all that follow.
    """
    at_start = budget.tokens
    run = _Run(forward, sizes, budget, max_size, counts)
    if lanes is not None and run.divide(lanes):
        lanes.run(run.work)
        run.undivide()
    run.work()
    if budget.tokens < at_start:
        _LOG.warning(
            "memory ran out above %d padded tokens a micro-batch (was %d); keeping to that from now on",
            budget.tokens,
            at_start,
        )
    return run.results


class _Run:
    """The micro-batches of one run, and the results of those that are done."""

    def __init__(
        self,
        forward: Callable[[list[int]], list[Any]],
        sizes: Sequence[Size],
        budget: Budget,
        max_size: int,
        counts: ForwardCounts,
    ) -> None:
        self.results: list[Any] = [None] * len(sizes)
        self._forward, self._sizes, self._budget, self._max_size = forward, sizes, budget, max_size
        self._counts = counts
        self._lock = threading.Lock()
        self._pending = [_Pending(batch) for batch in reversed(self._cut(sizes, budget.tokens))]
        self._divided = False
        #: What is for one forward at a time, once the lanes are done.
        self._later: list[_Pending] = []

    def _cut(self, sizes: Sequence[Size], tokens: int) -> list[list[int]]:
        return cut(sizes, tokens, self._max_size, self._budget.padding)

    def divide(self, lanes: Lanes) -> bool:
        """Cuts the micro-batches to the size that suits ``lanes``, largest first; whether that keeps them all busy."""
        share = lanes.share(sum(size.length * size.rows for size in self._sizes), self._budget.tokens)
        most = self._budget.tokens
        parts = [batch for batch in sorted(self._cut(self._sizes, share), key=self._cost) if self._cost(batch) <= most]
        whole = [tokens for batch in self._pending if (tokens := self._cost(batch.indices)) <= most]
        if not parts or not lanes.suit(whole, list(map(self._cost, parts))):
            return False
        self._later = [batch for batch in self._pending if self._cost(batch.indices) > most]
        self._pending, self._divided = [_Pending(batch) for batch in parts], True
        return True

    def undivide(self) -> None:
        """What the lanes left is to run, one micro-batch at a time."""
        self._pending, self._later, self._divided = self._later, [], False

    def _cost(self, indices: Sequence[int]) -> int:
        return cost([self._sizes[index] for index in indices])

    def work(self) -> None:
        """Runs micro-batches until none is left to begin; from several threads, each runs some.

        Raises:
          RuntimeError: the device is lost.
        """
        while (batch := self._next()) is not None:
            failure: Exception | None = None
            answers: dict[int, Any] = {}
            try:
                answers = dict(zip(batch.indices, self._forward(batch.indices), strict=True))
            except Exception as error:
                if is_device_lost(error):
                    with self._lock:
                        self._pending.clear()
                    raise
                failure = error.with_traceback(None)  # the traceback keeps the tensors of the failed forward alive
            for index, answer in answers.items():
                self.results[index] = answer
            if failure is not None:
                with self._lock:
                    self._failed(batch, failure)

    def _next(self) -> _Pending | None:
        """A micro-batch within the budget, counted; None where none is left."""
        with self._lock:
            while self._pending:
                batch = self._pending.pop()
                own = [self._sizes[index] for index in batch.indices]
                tokens = self._cost(batch.indices)
                if tokens > self._budget.tokens and len(own) > 1:
                    parts = self._cut(own, self._budget.tokens)
                    self._push(batch, [[batch.indices[i] for i in part] for part in parts])
                    continue
                self._counts.forwards += 1
                self._counts.padded_tokens += tokens
                self._counts.padding += tokens - sum(size.length * size.rows for size in own)
                return batch
            return None

    def _push(self, batch: _Pending, parts: Sequence[list[int]]) -> None:
        self._pending += [_Pending(part, batch.budget_before) for part in reversed(parts)]

    def _failed(self, batch: _Pending, failure: Exception) -> None:
        """Blames the one element of ``batch``, or has it run again in smaller ones."""
        indices, budget = batch.indices, self._budget
        starved = is_out_of_memory(failure)
        self._counts.out_of_memory += starved
        if starved and len(indices) == 1 and self._divided:
            self._later.append(batch)  # what ran beside it may have taken the memory
        elif len(indices) == 1:
            self.results[indices[0]] = blame(failure)
            if starved and batch.budget_before:
                budget.tokens = max(budget.tokens, batch.budget_before)
        elif starved:
            before = batch.budget_before or budget.tokens
            budget.tokens = min(budget.tokens, max(1, self._cost(indices) // 2))
            self._pending.append(_Pending(indices, before))
        else:
            self._counts.bisections += 1
            middle = len(indices) // 2
            self._push(batch, [indices[:middle], indices[middle:]])
