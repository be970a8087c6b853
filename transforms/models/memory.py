"""How much memory models may take, and giving back what one took."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections.abc import Iterator
from pathlib import Path

from transforms.models.cgroups import folders, read

#: The share of a container's memory, or of a GPU's, that models may take where no bound is given.
SHARE = 0.6


def available(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's, or fewer where a container has a bound."""
    return min([_machine(root), *_bounds(root)])


def _machine(root: Path) -> int:
    for line in read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 8 << 30  # no Linux: what the smallest machines for this have


def _bounds(root: Path) -> Iterator[int]:
    """Bounds of the control groups over this process, of either version."""
    for group in folders("memory", root):
        text = read(group / "memory.max") or read(group / "memory.limit_in_bytes")
        if text.strip().isdigit():
            yield int(text)


def usual(on_gpu: bool) -> int:
    """The bound where none is given, in bytes."""
    if on_gpu:
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory * SHARE)
    return int(available() * SHARE)


def give_back() -> None:
    """Returns what nobody holds any more to the machine: objects in circles, and what the allocator keeps for later."""
    gc.collect()
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> ctypes._NamedFuncPointer | None:
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL("libc.so.6").malloc_trim  # glibc's alone
    return None
