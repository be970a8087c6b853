"""A model that costs nothing, to measure what everything around a model costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from transforms.records import ModelInfo, Prediction, Request

_INFO = ModelInfo("text-classification", "null", "0" * 40, "cpu", "float32")
_ANSWER = [{"label": "NULL", "score": 1.0}]


class NullModel:
    """Beam holds models by weak reference; a plain class takes one."""


class NullHandler(ModelHandler[Request, Prediction, NullModel]):
    """Answers every request with the same label."""

    def check(self) -> str:
        return "text-classification"

    def load_model(self) -> NullModel:
        return NullModel()

    def run_inference(
        self, batch: Sequence[Request], model: NullModel, inference_args: dict[str, Any] | None = None
    ) -> list[Prediction]:
        now = time.time()
        return [Prediction(request, _ANSWER, _INFO, 1, False, len(batch), 0.0, now) for request in batch]

    def get_num_bytes(self, batch: Sequence[Request]) -> int:
        return 0

    def batch_elements_kwargs(self) -> dict[str, int]:
        return {"min_batch_size": 1024, "max_batch_size": 1024}
