"""Forwards side by side: a CPU's cores each run one of their own, in place of all of them sharing one.

The threads of one forward wait for each other after every operation, a hundred times a forward; where one core is also
somebody else's, all wait for that one. Forwards that share nothing never wait (docs/performance.md has the figures).
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from transforms.models.backends import LEAST_PARAMETERS, Model, Place, Probe
from transforms.models.backends.device import times_faster
from transforms.models.backends.remembered import choice
from transforms.models.inside import changed, state, stretched
from transforms.models.sharing import distance

_LOG = logging.getLogger(__name__)

#: Padded tokens that a forward costs beside its own (MiniLM and BERT base), and below which none is made smaller.
LEAST_TOKENS = 64
#: How much more than its even share a lane may have to do, for the cores that wait meanwhile.
_UNEVEN = 1.25
#: A cut by length leaves so much of the last micro-batches empty.
_SLACK = 1.1
#: How fast forwards side by side must be beside those on all cores: with all cores free they gain least.
_WORTH_IT = 0.97
#: Seconds that measuring it may take, of some four forwards a core: whoever's forwards are so long waits little between
#: their operations.
_LONGEST_S = 30

_local = threading.local()


def on_lane() -> bool:
    """Whether this thread is a lane."""
    return getattr(_local, "lane", False)


class Lanes:
    """``count`` threads for each of a model's ``copies``, which Beam holds in one process, each on one core."""

    def __init__(self, count: int, copies: int = 1) -> None:
        self.count, every = count, count * copies
        self._pool = ThreadPoolExecutor(every, "lane")
        together, before = threading.Barrier(every), torch.get_num_threads()
        wait([self._pool.submit(_become_a_lane, together) for _ in range(every)])
        torch.set_num_threads(before)  # what a lane sets, threads to come would have too

    def share(self, tokens: int, most: int) -> int:
        """Padded tokens for each micro-batch of ``tokens`` in all, where one at a time may have ``most``.

        All lanes together hold no more than that, and have a micro-batch each in every round, the last one too.
        """
        each = max(1, most // self.count)
        rounds = max(1, math.ceil(tokens / (each * self.count)))
        return min(most, max(LEAST_TOKENS, min(each, math.ceil(tokens * _SLACK / (rounds * self.count)))))

    def suit(self, whole: Sequence[int], parts: Sequence[int]) -> bool:
        """Whether ``parts`` are evener work for the lanes than ``whole`` for all cores together, in padded tokens."""
        ends = [0] * self.count
        for tokens in sorted(parts, reverse=True):
            ends[ends.index(min(ends))] += tokens + LEAST_TOKENS
        return max(ends) * self.count <= _UNEVEN * sum(tokens + LEAST_TOKENS for tokens in whole)

    def run(self, work: Callable[[], None]) -> None:
        """``work`` on ``count`` lanes; raises what one of them raised, once all have ended."""
        runs: list[Future[None]] = [self._pool.submit(work) for _ in range(self.count)]
        wait(runs)
        for each in runs:
            each.result()


def _become_a_lane(together: threading.Barrier) -> None:
    _local.lane = True
    torch.get_num_threads()  # or the thread's first product would set what all threads begin with
    torch.set_num_threads(1)
    together.wait()  # or one thread would take the turns of several


@functools.cache
def lanes(count: int, copies: int = 1) -> Lanes:
    """The process's lanes, which all of its models share."""
    return Lanes(count, copies)


def pick(model: Model, probe: Probe, place: Place, about: str) -> Lanes | None:
    """The lanes that ``model`` should run on at ``place``; None where all cores should share each forward.

    Measured once for ``about`` on this machine, and kept.
    """
    found = _pick(model, probe, place.dtype, place.copies, about)
    if found is None:
        model.ready(1)
    return found


def _pick(model: Model, probe: Probe, dtype: torch.dtype, copies: int, about: str) -> Lanes | None:
    count, module = torch.get_num_threads(), model.module
    if count < 2 or module is None or model.generates or probe.changes or stretched(module) is not None:
        return None
    if sum(each.numel() for each in module.parameters()) < LEAST_PARAMETERS:
        return None
    found = lanes(count, copies)

    def turn() -> list[torch.Tensor]:
        with model.running():
            return probe.turn()

    def beside() -> None:
        found.run(lambda: answers.append(turn()))

    def decide() -> tuple[str, str]:
        started = time.perf_counter()
        turn()
        took = time.perf_counter() - started
        if 4 * count * took > _LONGEST_S:
            return "one at a time", f"a forward of {took:.1f} s was too long to try it"
        model.ready(count)
        gain = times_faster(lambda: [turn() for _ in range(count)], beside)
        return ("side by side" if gain >= _WORTH_IT else "one at a time"), f"{gain:.2f} times as fast side by side"

    answers: list[list[torch.Tensor]] = []
    try:
        before, expected = state(module), turn()
        if changed(before, module):
            return None
        about = f"forwards of {about}, {model.engine}, {dtype}"
        which, why = choice(about, ("side by side", "one at a time"), decide)
        if which == "side by side" and not answers:
            model.ready(count)
            beside()
        far = max((distance(expected, each) for each in answers), default=0.0)
        if not far <= math.sqrt(torch.finfo(dtype).eps):  # rounding is far below it
            which, why = "one at a time", f"side by side its answers differ by {far:.1%}"
    except Exception as error:  # noqa: BLE001 (whatever cannot run side by side runs one at a time)
        which, why = "one at a time", f"{type(error).__name__}: {str(error)[:200]}"
    _LOG.info("forwards run %s on %d cores: %s", which, count, why)
    return found if which == "side by side" else None
