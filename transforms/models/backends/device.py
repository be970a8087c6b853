"""Where a model runs, in which number format, and on how many threads."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Callable

import torch

from transforms.models import threads
from transforms.models.backends.remembered import choice
from transforms.models.errors import ModelLoadError

_LOG = logging.getLogger(__name__)

#: A matrix product must be this many times faster for a model to gain: attention and activations gain nothing.
_WORTH_IT = 1.5
#: The least of so many measurements counts: a busy moment must not tip the scales.
_MEASUREMENTS = 3

#: Kernels that oneDNN, and torch's wrapper of it, each keep: enough for every shape of one forward, whose layers share
#: them. The default of 1,024 keeps those of batches whose shape never comes again, at hundreds of MiB.
_KERNELS = "128"


def bound_kernel_caches() -> None:
    """Keeps a worker's memory flat however many shapes its batches have; to be called before the first product.

    Both libraries read their variable at their first use. A value that the user has set stands.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)
    os.environ.setdefault("LRU_CACHE_CAPACITY", _KERNELS)


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
        raise ModelLoadError(f"`device={asked}`: no CUDA device is present ({_why_none()}); use `device=cpu` or auto")
    return device


def _why_none() -> str:
    """Why torch has no CUDA device, in its own words where it has any."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build for the CPU"
    try:
        torch.cuda.init()
    except Exception as error:  # noqa: BLE001 (RuntimeError, AssertionError, and what a driver makes of it)
        return f"torch needs CUDA {torch.version.cuda}: {str(error).strip().splitlines()[0][:200]}"
    return f"torch needs CUDA {torch.version.cuda} and sees {torch.cuda.device_count()} devices"


def pick_dtype(asked: str, device: torch.device, model: str = "") -> torch.dtype:
    """The number format for ``asked``; ``auto`` is bfloat16 where the hardware multiplies it faster than float32.

    On a CPU that is measured once for ``model`` and kept: the same job on the same machine gives the same answers.
    """
    if asked != "auto":
        dtype: torch.dtype = getattr(torch, asked)
        return dtype
    if device.type == "cuda":
        name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        why = "by what the GPU multiplies"
    elif model:
        name, why = choice(f"dtype of {model}", ("bfloat16", "float32"), _measured_dtype)
    else:
        name, why = _measured_dtype()
    _LOG.info("dtype auto is %s: %s", name, why)
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def _measured_dtype() -> tuple[str, str]:
    speedup = bfloat16_speedup()
    name = "bfloat16" if speedup >= _WORTH_IT else "float32"
    return name, f"bfloat16 is multiplied {speedup:.2f} times as fast as float32 here, and {_WORTH_IT} is asked"


@functools.cache
def bfloat16_speedup() -> float:
    """How many times faster than float32 this CPU multiplies bfloat16 matrices at the least, measured in milliseconds.

    The CPU's flags do not tell: with AVX512-BF16 and no AMX it is 0.6 times on some and 2.2 times on others.
    """
    rows, weight = torch.ones(256, 768), torch.ones(768, 768)
    half_rows, half_weight = rows.bfloat16(), weight.bfloat16()
    linear = torch.nn.functional.linear
    return min(
        times_faster(lambda: linear(rows, weight), lambda: linear(half_rows, half_weight)) for _ in range(_MEASUREMENTS)
    )


@torch.inference_mode()
def times_faster(old: Callable[[], object], new: Callable[[], object]) -> float:
    """How many times faster ``new`` is than ``old``: the best of seven runs of each, in turns.

    Of slow ones fewer runs do: no more are begun after two seconds, once each has had two.
    """
    best, began = [math.inf, math.inf], time.perf_counter()
    for turn in range(7):
        if turn > 1 and time.perf_counter() - began > 2.0:
            break
        for place, run in enumerate((old, new)):
            started = time.perf_counter()
            run()
            best[place] = min(best[place], time.perf_counter() - started)
    return best[0] / best[1]


def share_threads(model_copies: int) -> int:
    """Lets torch use this process's share of the cores, so that all copies together use each core once.

    ``OMP_NUM_THREADS`` is what each copy uses, where it is set.
    """
    count = threads.chosen() or max(1, threads.cores() // model_copies)
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    return count
