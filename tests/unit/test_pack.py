"""Packed linear layers answer as plain ones do, and are used only where they are faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny_models
import torch
import transformers

from transforms.models.backends import pack as packing
from transforms.models.backends.pack import pack
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Request

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN operators"
)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which packing pays."""
    monkeypatch.setattr(packing, "speedup", lambda linear, rows: 2.0)


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
    monkeypatch.setattr(packing, "speedup", lambda linear, rows: 1.0)
    assert pack(linear) == 0 and "forward" not in vars(linear)


def test_nothing_is_packed_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    """The weights once more would take memory that the rest needs: the log says how much."""
    linear = torch.nn.Linear(64, 64)
    with caplog.at_level("INFO"):
        assert pack(linear, most_bytes=64 * 64 * 4 - 1) == 0
    assert "not packed" in caplog.text
    assert pack(linear, most_bytes=64 * 64 * 4) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda linear: linear.weight.div_(2),  # RWKV, at its first forward
        lambda linear: setattr(linear, "weight", torch.nn.Parameter(linear.weight / 2)),
    ],
)
def test_a_weight_that_the_model_changes_counts(change: Callable[[torch.nn.Linear], None]) -> None:
    """What was packed is out of date then, and the plain weight is multiplied."""
    linear = torch.nn.Linear(8, 8, bias=False)
    rows = torch.ones(2, 8)
    with torch.inference_mode():
        assert pack(linear) == 1
        before = linear(rows)
        change(linear)
        assert torch.allclose(linear(rows), before / 2, atol=1e-6)


def test_a_model_that_generates_is_packed_too() -> None:
    """For the few rows of a step; it writes what the plain model writes."""
    folder = tiny_models.causal()
    handler = HuggingFaceModelHandler(folder, "text-generation", device="cpu", dtype="float32")
    model = handler._load()
    assert packing.packed_bytes(model.task.model.module) > 0
    plain = transformers.pipeline("text-generation", model=folder, device="cpu", dtype=torch.float32)
    asked = {"max_new_tokens": 12, "do_sample": False}
    for text in ("my order", "the invoice was"):
        (found,) = model.answer([Request(text, asked)]).outcomes
        assert found.prediction == plain(text, **asked)


def test_the_speedup_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is a ratio of two timings, on the layer itself."""
    monkeypatch.undo()
    assert 0.05 < packing.speedup(torch.nn.Linear(256, 256)) < 100
