"""Linear layers with their weights in the layout that a CPU multiplies fastest, arranged once.

``torch.nn.functional.linear`` takes plain weights and has them rearranged for every product. These are the operators
that torch's own compiler puts in its place (``torch/_inductor/fx_passes/mkldnn_fusion.py``), without the compiler.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from transforms.models.backends.device import times_faster

_LOG = logging.getLogger(__name__)

#: Rows of a product that the layout is made for, and that is timed: the tokens of a micro-batch, or the next token of
#: each of a few answers. It serves any other number too.
ROWS, ROWS_OF_ANSWERS = 256, 8
#: A packed product must be this many times faster: packing costs the layers' memory once more.
_WORTH_IT = 1.05

Product = Callable[[torch.Tensor], torch.Tensor]


def pack(model: Any, rows: int = ROWS, most_bytes: float = math.inf) -> int:
    """Packs the linear layers of ``model`` where that is faster on this CPU; returns how many were.

    The answers are the same: to the bit in bfloat16, to float32's rounding in float32. The packed weights are held
    beside the plain ones, which others may read; they may take ``most_bytes``. A layer whose weight is changed later
    multiplies the plain one again.
    """
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    # Its subclasses may be read by others (attention reads the weights of its output layer).
    linears = [each for each in model.modules() if type(each) is torch.nn.Linear and _can_be_packed(each)]
    taken = sum(int(each.weight.nbytes) for each in linears)
    if taken > most_bytes:
        _LOG.info(
            "linear layers are not packed: that takes %d MiB, and %d may be taken", taken >> 20, most_bytes / 2**20
        )
        return 0
    try:
        if not linears or speedup(_most_common(linears), rows) < _WORTH_IT:
            return 0
        products = [_packed(linear, rows) for linear in linears]
    except RuntimeError as error:  # bfloat16 without AVX-512: there is no such layout
        _LOG.info("linear layers are not packed: %s", error)
        return 0
    for linear, product in zip(linears, products, strict=True):
        linear.forward = product  # type: ignore[method-assign, assignment]
    _LOG.info("packed %d linear layers", len(linears))
    return len(linears)


def packed_bytes(model: Any) -> int:
    """What the packed weights of ``model`` take beside the plain ones."""
    linears = [each for each in model.modules() if type(each) is torch.nn.Linear and "forward" in vars(each)]
    return sum(int(each.weight.nbytes) for each in linears)


def unpack(model: Any) -> dict[torch.nn.Linear, Any]:
    """Gives the packed weights of ``model`` up; returns what :func:`unpacked` puts back."""
    linears = [each for each in model.modules() if type(each) is torch.nn.Linear and "forward" in vars(each)]
    return {linear: vars(linear).pop("forward") for linear in linears}


@contextmanager
def unpacked(model: Any) -> Iterator[None]:
    """``model`` with its plain layers while the block runs: what traces it knows no packed product."""
    taken = unpack(model)
    try:
        yield
    finally:
        for linear, forward in taken.items():
            linear.forward = forward  # type: ignore[method-assign]


def _can_be_packed(linear: torch.nn.Linear) -> bool:
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and weight.numel() > 0


def _most_common(linears: list[torch.nn.Linear]) -> torch.nn.Linear:
    counts = Counter(linear.weight.shape for linear in linears)
    return max(linears, key=lambda linear: counts[linear.weight.shape] * linear.weight.numel())


def _packed(linear: torch.nn.Linear, rows: int) -> Product:
    plain = linear.weight
    weight = torch.ops.mkldnn._reorder_linear_weight(plain.detach(), rows)
    bias = None if linear.bias is None else linear.bias.detach()
    version = plain._version

    def product(inputs: torch.Tensor) -> torch.Tensor:
        if linear.weight is not plain or plain._version != version:  # RWKV divides its weights at its first forward
            return torch.nn.functional.linear(inputs, linear.weight, linear.bias)
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return made

    return product


def speedup(linear: torch.nn.Linear, rows: int = ROWS) -> float:
    """How many times faster ``linear`` is when packed, on so many rows, measured in a few milliseconds."""
    inputs = torch.ones(rows, linear.in_features, dtype=linear.weight.dtype)
    packed = _packed(linear, rows)
    return times_faster(lambda: linear.forward(inputs), lambda: packed(inputs))
