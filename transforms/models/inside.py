"""What a loaded model shows of itself: what a forward could change in it, its table of tokens, its positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_KINDS = (str, int, float, bool, type(None), torch.Tensor)


def stretched(module: torch.nn.Module | None) -> int | None:
    """The tokens beyond which ``module`` counts positions otherwise, which no short text shows; None if it does not.

    The angles of rotary positions are then chosen by the longest row of a forward:
    https://huggingface.co/docs/transformers/internal/rope_utils
    """
    found: list[int] = []
    for each in module.modules() if module is not None else ():
        kinds: Any = getattr(each, "rope_type", None)
        said: Any = getattr(getattr(each, "config", None), "rope_parameters", None) or {}
        for name, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if "dynamic" in str(kind):
                found.append(vars(each).get("original_max_seq_len") or 0)
            elif kind == "longrope":
                found.append((said.get(name, {}) if name else said).get("original_max_position_embeddings") or 0)
    return min(found, default=None)


def vocabulary(module: Any) -> int | None:
    """How many tokens a model has vectors for; None where it has no table of them."""
    try:
        size: int = module.get_input_embeddings().num_embeddings
    except (NotImplementedError, AttributeError):
        return None
    return size


def state(model: torch.nn.Module | None) -> list[tuple[dict[str, Any], str, Any]]:
    """Everything that a forward could put in another's place: attributes, buffers, and whole modules."""
    found: list[tuple[dict[str, Any], str, Any]] = []
    for module in model.modules() if model is not None else ():
        own = vars(module)
        found += [(own, name, value) for name, value in own.items() if isinstance(value, _KINDS)]
        found += [(module._buffers, name, value) for name, value in module._buffers.items()]
        found += [(module._modules, name, value) for name, value in module._modules.items()]
    return found


def changed(before: Sequence[tuple[dict[str, Any], str, Any]], model: torch.nn.Module | None) -> bool:
    """Whether anything in ``model`` is another than in ``before``, its state then."""
    return len(before) != len(state(model)) or any(owner.get(name) is not old for owner, name, old in before)


def versions(model: torch.nn.Module | None) -> list[int]:
    """How often each weight was written to."""
    return [each._version for each in model.parameters()] if model is not None else []
