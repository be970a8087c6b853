"""Choices that were measured, kept for this machine: measured again, on a busier day, they might fall the other way."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

_LOG = logging.getLogger(__name__)

#: Choices that are kept, the latest ones.
_MOST = 1000


def file() -> Path:
    """Where a user's choices are kept: in the cache folder, or in the one that ``BEAM_HF_CACHE`` names."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("BEAM_HF_CACHE") or Path(cache, "beam-hf-inference")).expanduser() / "choices.json"


def choice(what: str, options: tuple[str, ...], decide: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """One of ``options`` for ``what``, and why: as it was chosen on this machine before, or by ``decide`` now.

    Where nothing can be kept, it is decided each time.
    """
    key = f"{machine()}: {what}"
    before = _read().get(key)
    if before in options:
        return str(before), f"as was chosen on this machine before ({file()})"
    found, why = decide()
    try:
        _keep(key, found)
    except OSError as error:
        _LOG.debug("%s is not kept: %s", what, error)
    return found, why


@functools.cache
def machine() -> str:
    """What a choice depends on beside the model: the processor, the cores in use, and torch's own kernels."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _read() -> dict[str, str]:
    try:
        found = json.loads(file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, value: str) -> None:
    where = file()
    where.parent.mkdir(parents=True, exist_ok=True)
    with where.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = {**_read(), key: value}
        new = where.with_suffix(".new")
        new.write_text(json.dumps(dict(list(kept.items())[-_MOST:]), indent=1, ensure_ascii=False), "utf-8")
        new.replace(where)
