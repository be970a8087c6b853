"""Packed linear layers answer as plain ones do, and are used only where they are faster."""

from __future__ import annotations

import pytest
import torch

from transforms.models.backends import pack as packing
from transforms.models.backends.pack import pack

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN operators"
)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which packing pays."""
    monkeypatch.setattr(packing, "speedup", lambda linear: 2.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.0)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_answers_as_the_plain_one(dtype: torch.dtype, tolerance: float, bias: bool) -> None:
    """Any shape, strided or empty, gives the plain layer's product: to the bit in bfloat16."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 160, bias=bias).to(dtype)
    plain = torch.nn.Linear.forward.__get__(linear)
    shapes = [(96,), (1, 96), (7, 96), (0, 96), (2, 0, 96), (3, 5, 96), (2, 3, 4, 96), (700, 96)]
    inputs = [torch.randn(shape).to(dtype) for shape in shapes] + [torch.randn(96, 9).to(dtype).t()]
    with torch.inference_mode():
        expected = [plain(each) for each in inputs]
        if not pack(torch.nn.Sequential(linear)):
            assert dtype == torch.bfloat16  # a CPU without AVX-512 has no such layout, and keeps the plain layer
        for each, wanted in zip(inputs, expected, strict=True):
            assert torch.allclose(linear(each), wanted, rtol=0, atol=tolerance)


def test_only_plain_layers_on_the_cpu_are_packed() -> None:
    """A subclass, whose weights its owner reads, and number formats without a packed product stay as they are."""
    attention = torch.nn.MultiheadAttention(32, 2)
    half = torch.nn.Linear(32, 32).half()
    assert pack(torch.nn.Sequential(attention, half)) == 0
    assert pack(torch.nn.Sequential(attention, half, torch.nn.Linear(32, 32))) == 1


def test_nothing_is_packed_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that multiplies plain weights as fast, the memory is not spent."""
    linear = torch.nn.Linear(32, 32)
    monkeypatch.setattr(packing, "speedup", lambda linear: 1.0)
    assert pack(linear) == 0 and "forward" not in vars(linear)


def test_the_speedup_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is a ratio of two timings, on the layer itself."""
    monkeypatch.undo()
    assert 0.05 < packing.speedup(torch.nn.Linear(256, 256)) < 100
