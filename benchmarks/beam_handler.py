"""Beam's own handler for Hugging Face pipelines (2.77), made to run with transformers 5.

Its module imports TensorFlow and ``TFAutoModel``, which transformers 5 no longer has, for annotations and for a class
that is not used here: empty ones stand in. Under a key, a batch is a tuple, which a pipeline takes for one input: the
function that calls it makes a list of it, and cuts texts as the other systems do. Nothing else is changed.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any


def _answer(batch: Sequence[str], pipeline: Any, inference_args: Any) -> Any:
    return pipeline(list(batch), truncation=True, batch_size=32)


def handler(model: str) -> Any:
    """``HuggingFacePipelineModelHandler`` as its documentation makes it, for texts under a key."""
    from transformers import Pipeline  # noqa: F401 (transformers puts another module in its own place here, once)

    transformers = sys.modules["transformers"]
    if "tensorflow" not in sys.modules:
        tensorflow = types.ModuleType("tensorflow")
        tensorflow.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)
        tensorflow.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
        sys.modules["tensorflow"] = tensorflow
    if not hasattr(transformers, "TFAutoModel"):
        transformers.TFAutoModel = type("TFAutoModel", (), {})
    from apache_beam.ml.inference.base import KeyedModelHandler
    from apache_beam.ml.inference.huggingface_inference import HuggingFacePipelineModelHandler

    inner = HuggingFacePipelineModelHandler("text-classification", model, device="CPU", inference_fn=_answer)
    return KeyedModelHandler(inner)
