"""Hugging Face models as steps of an Apache Beam pipeline.

The names below are imported at their first use, so that importing the package costs no torch. It settles how torch's
threads wait, which they read once: import it before torch, and before ``apache_beam.ml``, which imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from transforms.models.threads import yield_when_waiting

if TYPE_CHECKING:
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.models.remote.handler import EndpointModelHandler
    from transforms.records import Failure, Prediction, Request

__all__ = ["EndpointModelHandler", "Failure", "HuggingFaceModelHandler", "Prediction", "Request"]

yield_when_waiting()

_HOME = {
    "EndpointModelHandler": "transforms.models.remote.handler",
    "Failure": "transforms.records",
    "HuggingFaceModelHandler": "transforms.models.handler",
    "Prediction": "transforms.records",
    "Request": "transforms.records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
