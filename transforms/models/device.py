"""Where a model runs, in which number format, and on how many threads."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from transforms.models.errors import ModelLoadError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def pick_device(asked: str) -> torch.device:
    """The device for ``asked`` (``auto`` is CUDA where there is one).

    Raises:
      ModelLoadError: CUDA was asked for and there is none.
    """
    present = torch.cuda.is_available()
    if asked == "auto":
        return torch.device("cuda" if present else "cpu")
    device = torch.device(asked)
    if device.type == "cuda" and not present:
        raise ModelLoadError(f"--device={asked}: no CUDA device is present; use --device=cpu or auto")
    return device


def pick_dtype(asked: str, device: torch.device) -> torch.dtype:
    """The number format for ``asked``; ``auto`` is bfloat16 where the hardware multiplies it faster than float32."""
    if asked != "auto":
        return getattr(torch, asked)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = "amx_bf16" in cpu_flags()
    return torch.bfloat16 if fast else torch.float32


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty elsewhere."""
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def share_threads(model_copies: int) -> int:
    """Lets torch use this process's share of the cores, so that all copies together use each core once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // model_copies)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads
