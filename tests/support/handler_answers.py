"""A task's answers from real weights, as a user of the handler gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Prediction, Request


def answers(folder: str, task: str | None, requests: Sequence[Request], **options: Any) -> list[Any]:
    """Each request's prediction, or its failure, in float32 on the CPU unless ``options`` say otherwise."""
    handler = HuggingFaceModelHandler(folder, task, **({"dtype": "float32", "device": "cpu"} | options))
    model = handler.load_model()
    torch.set_num_threads(1)
    outcomes = handler.run_inference(requests, model)
    return [outcome.prediction if isinstance(outcome, Prediction) else outcome for outcome in outcomes]
