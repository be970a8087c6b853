"""Which of transformers' classes loads a model, by the architecture that its configuration names."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from transforms.models.backends import Source


def model_classes(names: str) -> set[str]:
    """The model classes in one of transformers' lists, such as ``MODEL_FOR_CAUSAL_LM_MAPPING_NAMES``."""
    values = getattr(modeling_auto, names).values()
    return {one for value in values for one in ([value] if isinstance(value, str) else value)}


def auto_class(source: Source) -> Any:
    """The class whose ``from_pretrained`` loads ``source``."""
    given = set(source.config.architectures or ())
    fitting = (auto for auto, names in source.auto if given & model_classes(names))
    return getattr(transformers, next(fitting, source.auto[0][0]))
