"""Runs work over many elements so that one bad element costs only itself.

Work that raises on several elements is halved until the culprit stands alone: k culprits among n elements cost at most
``1 + 2 k ceil(log2 n)`` calls. Running out of memory is the batch's fault before it is an element's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
) -> list[Any]:
    """Runs ``forward`` over all of ``sizes`` in micro-batches; returns one result or ``ElementError`` each, in order.

    ``forward`` takes indices and returns one result each. When memory runs out the budget is halved and the
    micro-batch cut again. An element that fails alone is blamed, and the budget its failure cost is given back: a
    message that can never fit must not slow down all that follow.
    """
    results: list[Any] = [None] * len(sizes)
    at_start = budget.tokens
    pending = [_Pending(batch) for batch in reversed(cut(sizes, budget.tokens, max_size, budget.padding))]
    while pending:
        batch = pending.pop()
        indices = batch.indices
        own = [sizes[index] for index in indices]
        tokens = cost(own)
        if tokens > budget.tokens and len(indices) > 1:
            parts = cut(own, budget.tokens, max_size, budget.padding)
            pending += [_Pending([indices[i] for i in part], batch.budget_before) for part in reversed(parts)]
            continue
        counts.forwards += 1
        counts.padded_tokens += tokens
        counts.padding += tokens - sum(size.length * size.rows for size in own)
        failure: Exception | None = None
        try:
            answers = dict(zip(indices, forward(indices), strict=True))
        except Exception as error:
            if is_device_lost(error):
                raise
            failure = error.with_traceback(None)  # the traceback keeps the tensors of the failed forward alive
        if failure is None:
            for index, answer in answers.items():
                results[index] = answer
            continue
        starved = is_out_of_memory(failure)
        counts.out_of_memory += starved
        if len(indices) == 1:
            results[indices[0]] = blame(failure)
            if starved and batch.budget_before:
                budget.tokens = max(budget.tokens, batch.budget_before)
        elif starved:
            before = batch.budget_before or budget.tokens
            budget.tokens = min(budget.tokens, max(1, tokens // 2))
            pending.append(_Pending(indices, before))
        else:
            counts.bisections += 1
            middle = len(indices) // 2
            pending += [_Pending(part, batch.budget_before) for part in (indices[middle:], indices[:middle])]
    if budget.tokens < at_start:
        _LOG.warning(
            "memory ran out above %d padded tokens a micro-batch (was %d); keeping to that from now on",
            budget.tokens,
            at_start,
        )
    return results
