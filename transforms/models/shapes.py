"""Answers of the different servers, brought into the one shape that a task's prediction has with local weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from transforms.errors import MessageError
from transforms.models.errors import brief
from transforms.models.inputs import Ask


class Misfit(MessageError):
    """An answer that is not the task's: the server runs something else, or is broken."""


def labels(usual: int | None) -> Callable[[Any, Ask], Any]:
    """``[{"label", "score"}]``, best first: ``top_k`` of them, or ``usual``, or all for None."""

    def shape(answer: Any, ask: Ask) -> Any:
        found = unwrap(answer)
        if not _are_objects(found, "label", "score"):
            raise Misfit(f'expected [{{"label": …, "score": …}}], got {brief(answer)}')
        top = ask.parameters.get("top_k", usual)
        return sorted(found, key=lambda one: -one["score"])[:top]

    return shape


def objects(*keys: str) -> Callable[[Any, Ask], Any]:
    """A list of objects that have ``keys``."""

    def shape(answer: Any, ask: Ask) -> Any:
        found = unwrap(answer)
        if not isinstance(found, list) or (found and not _are_objects(found, *keys)):
            raise Misfit(f"expected a list of objects with {', '.join(keys)}, got {brief(answer)}")
        return found

    return shape


def fills(answer: Any, ask: Ask) -> Any:
    """Those of fill-mask: a list, or a list of lists for several masks."""
    if isinstance(answer, list) and len(answer) > 1 and all(isinstance(one, list) for one in answer):
        return answer
    return objects("score", "token_str")(answer, ask)


def unwrap(answer: Any) -> Any:
    """``answer``, or its only element where a server answers one input with a batch of one."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list) else answer


def _are_objects(found: Any, *keys: str) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(o, dict) and o.keys() >= set(keys) for o in found)


def zero_shot(answer: Any, ask: Ask) -> Any:
    """``{"sequence", "labels", "scores"}``, which newer servers write as a list of ``{"label", "score"}``."""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict) and "labels" in answer[0]:
        answer = answer[0]
    if isinstance(answer, dict) and {"labels", "scores"} <= answer.keys():
        return {"sequence": ask.inputs, "labels": answer["labels"], "scores": answer["scores"]}
    if not _are_objects(answer, "label", "score"):
        raise Misfit(f'expected {{"sequence": …, "labels": …, "scores": …}}, got {brief(answer)}')
    ranked = sorted(answer, key=lambda one: -one["score"])
    return {
        "sequence": ask.inputs,
        "labels": [one["label"] for one in ranked],
        "scores": [one["score"] for one in ranked],
    }


def spans(answer: Any, ask: Ask) -> Any:
    """``{"score", "start", "end", "answer"}``, or a list of them with ``top_k`` over 1."""
    found = answer if isinstance(answer, list) else [answer]
    if not _are_objects(found, "score", "answer"):
        raise Misfit(f'expected {{"score": …, "start": …, "end": …, "answer": …}}, got {brief(answer)}')
    top = ask.parameters.get("top_k", 1)
    return found[0] if top == 1 else found[:top]


def embedding(answer: Any, ask: Ask) -> Any:
    """A vector; token embeddings stay ``[1, tokens, width]``, as with local weights."""
    if isinstance(answer, dict) and "embeddings" in answer:
        answer = answer["embeddings"]
    try:
        array = np.asarray(answer, np.float32)
    except (TypeError, ValueError):
        array = np.empty(0, np.float32)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    elif array.ndim == 2:
        array = array[None]
    if array.ndim not in (1, 3) or not array.size:
        raise Misfit(f"expected a vector of numbers, got {brief(answer)}")
    return array


def generated(answer: Any, ask: Ask) -> Any:
    """``[{"generated_text"}]``."""
    found = answer if isinstance(answer, list) else [answer]
    if not _are_objects(found, "generated_text"):
        raise Misfit(f'expected [{{"generated_text": …}}], got {brief(answer)}')
    return [{"generated_text": one["generated_text"]} for one in found]


def transcript(answer: Any, ask: Ask) -> Any:
    """``{"text"}``, with ``chunks`` where timestamps were asked for."""
    if not isinstance(answer, dict) or "text" not in answer:
        raise Misfit(f'expected {{"text": …}}, got {brief(answer)}')
    return answer


def anything(answer: Any, ask: Ask) -> Any:
    """Whatever the server says."""
    return answer
