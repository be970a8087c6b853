"""Beam's own handler for Hugging Face pipelines (2.77), made to run with transformers 5.

Its module imports TensorFlow and ``TFAutoModel``, which transformers 5 no longer has, for annotations and for a class
that is not used here: empty ones stand in. Nothing else is changed.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any


def handler(model: str) -> Any:
    """``HuggingFacePipelineModelHandler`` as its documentation makes it, for texts under a key."""
    import transformers

    if "tensorflow" not in sys.modules:
        tensorflow = types.ModuleType("tensorflow")
        tensorflow.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)
        tensorflow.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
        sys.modules["tensorflow"] = tensorflow
    if not hasattr(transformers, "TFAutoModel"):
        transformers.TFAutoModel = type("TFAutoModel", (), {})
    from apache_beam.ml.inference.base import KeyedModelHandler
    from apache_beam.ml.inference.huggingface_inference import HuggingFacePipelineModelHandler

    inner = HuggingFacePipelineModelHandler(
        task="text-classification",
        model=model,
        device="CPU",
        inference_args={"truncation": True, "batch_size": 32},
    )
    return KeyedModelHandler(inner)
