"""A model for wiring alone: it answers at once, and fails where its input tells it to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from transforms.records import Failure, ModelInfo, Prediction, Request

INFO = ModelInfo("text-classification", "fake", "0" * 40, "cpu", "float32")


class _Model:
    """Beam holds models by weak reference; a plain class takes one."""


class FakeHandler(ModelHandler[Request, "Prediction | Failure", _Model]):
    """Answers every text with its length, and fails every input that is not a text."""

    def load_model(self) -> _Model:
        return _Model()

    def run_inference(
        self, batch: Sequence[Request], model: _Model, inference_args: dict[str, Any] | None = None
    ) -> Iterator[Prediction | Failure]:
        for request in batch:
            if isinstance(request.inputs, str):
                answer = [{"label": "TEXT", "score": 1.0, "length": len(request.inputs)}]
                yield Prediction(request, answer, INFO, len(request.inputs), False, len(batch), 1.0, time.time())
            else:
                kind = type(request.inputs).__name__
                yield Failure(request.message, "predict", "InvalidInput", f"not a text: {kind}", time.time(), INFO)

    def batch_elements_kwargs(self) -> dict[str, int]:
        return {"min_batch_size": 1, "max_batch_size": 100}
