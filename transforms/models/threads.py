"""How many threads a process computes with, and how long they spin: a machine is seldom a job's alone.

Imports no torch: OpenMP reads its settings once, when torch loads it.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from transforms.models.cgroups import folders, read

_LOG = logging.getLogger(__name__)

#: Turns of a thread's loop before it sleeps: microseconds, in place of libgomp's billions. Quiet, that costs nothing;
#: with one of two cores busy, a forward otherwise waits for threads that only spin (docs/performance.md).
_SPINS = "1000"

#: What a user may have settled this with (https://gcc.gnu.org/onlinedocs/libgomp/Environment-Variables.html).
_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def yield_when_waiting(environ: MutableMapping[str, str] = os.environ) -> None:
    """Has OpenMP's threads sleep soon where they wait; to be called before torch is imported.

    A user's choice stands.
    """
    if any(name in environ for name in _CHOICES):
        return
    if "torch" in sys.modules:
        _LOG.info(
            "torch was imported before transforms.models: set GOMP_SPINCOUNT=%s so that its threads yield", _SPINS
        )
    environ[_CHOICES[0]] = _SPINS


def chosen(environ: MutableMapping[str, str] = os.environ) -> int | None:
    """Threads that the user asks for with ``OMP_NUM_THREADS``."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) else None


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those of its affinity, or fewer where a container has a share of them.

    A share of one and a half is two: the second thread uses the half.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([mine, *(math.ceil(share) for share in _shares(root))]))


def _shares(root: Path) -> Iterator[float]:
    """Cores that the control groups over this process may use, of either version, where they are bounded."""
    for group in folders("cpu", root):
        share = _share(group)
        if share is not None:
            yield share


def _share(group: Path) -> float | None:
    text = read(group / "cpu.max") or f"{read(group / 'cpu.cfs_quota_us')} {read(group / 'cpu.cfs_period_us')}"
    numbers = text.split()
    if len(numbers) != 2 or not all(each.isdigit() for each in numbers) or not int(numbers[1]):
        return None  # "max" or -1: not bounded
    return int(numbers[0]) / int(numbers[1])
