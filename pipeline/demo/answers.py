"""Predictions in words: whatever the task, a line that a person can read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction for the screen. ``label`` and ``score`` are those of a classification, else None."""

    text: str
    label: str | None = None
    score: float | None = None


def describe(prediction: Any) -> Answer:
    """The prediction of any task as an :class:`Answer`: a classification's best label, else its text or its shape."""
    if isinstance(prediction, dict) and {"labels", "scores"} <= prediction.keys():
        prediction = [
            {"label": label, "score": s} for label, s in zip(prediction["labels"], prediction["scores"], strict=True)
        ]
    if _is_classification(prediction):
        best = max(prediction, key=lambda one: one["score"])
        return Answer(best["label"], best["label"], best["score"])
    shape = _shape(prediction)
    if shape:
        return Answer(" x ".join(f"{n:,}" for n in shape) + " numbers")
    if isinstance(prediction, list) and len(prediction) == 1:
        prediction = prediction[0]
    if isinstance(prediction, dict) and len(prediction) == 1:
        prediction = next(iter(prediction.values()))
    return Answer(prediction if isinstance(prediction, str) else json.dumps(prediction, ensure_ascii=False))


def _is_classification(prediction: Any) -> bool:
    return (
        isinstance(prediction, list)
        and len(prediction) > 0
        and all(isinstance(one, dict) and one.keys() == {"label", "score"} for one in prediction)
    )


def _shape(prediction: Any) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers; None if that is not what it is."""
    if isinstance(prediction, bool) or not isinstance(prediction, (list, int, float)):
        return None
    if not isinstance(prediction, list):
        return ()
    inner = _shape(prediction[0]) if prediction else None
    return None if inner is None else (len(prediction), *inner)
