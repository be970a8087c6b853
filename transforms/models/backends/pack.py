"""Linear layers with their weights in the layout that a CPU multiplies fastest, arranged once.

``torch.nn.functional.linear`` takes plain weights and has them rearranged for every product. These are the operators
that torch's own compiler puts in its place (``torch/_inductor/fx_passes/mkldnn_fusion.py``), without the compiler.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from transforms.models.backends.device import times_faster

_LOG = logging.getLogger(__name__)

#: Rows of a product that the layout is made for, and that is timed; it serves any other number too.
_ROWS = 256
#: A packed product must be this many times faster: packing costs the layers' memory once more.
_WORTH_IT = 1.05

Product = Callable[[torch.Tensor], torch.Tensor]


def pack(model: Any) -> int:
    """Packs the linear layers of ``model`` where that is faster on this CPU; returns how many were.

    The answers are the same: to the bit in bfloat16, to float32's rounding in float32. The packed weights are held
    beside the plain ones, which others may read.
    """
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return 0
    # Its subclasses may be read by others (attention reads the weights of its output layer).
    linears = [each for each in model.modules() if type(each) is torch.nn.Linear and _can_be_packed(each)]
    try:
        if not linears or speedup(_most_common(linears)) < _WORTH_IT:
            return 0
        products = [_packed(linear) for linear in linears]
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


def _packed(linear: torch.nn.Linear) -> Product:
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
    bias = None if linear.bias is None else linear.bias.detach()

    def product(rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return made

    return product


def speedup(linear: torch.nn.Linear) -> float:
    """How many times faster ``linear`` is when packed, measured in a few milliseconds."""
    rows = torch.ones(_ROWS, linear.in_features, dtype=linear.weight.dtype)
    packed = _packed(linear)
    return times_faster(lambda: linear.forward(rows), lambda: packed(rows))
