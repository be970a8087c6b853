"""Whether two answers say the same, by the measure of their task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

#: Two embeddings of a text are the same from this cosine on.
COSINE = 0.99
#: Two scores of a pair of texts are, up to this far from each other.
_SCORE = 0.01

_TEXTS = ("generated_text", "summary_text", "translation_text", "text", "answer")


def agree(task: str, one: Any, other: Any) -> bool | None:
    """Whether ``one`` and ``other``, two predictions of ``task``, agree; None where there is no measure for it.

    ``other`` may be the bare label or text that is expected.
    """
    measure = MEASURES.get(task)
    if measure is None:
        return None
    try:
        return bool(measure(one, other))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False  # they have not even the same shape


def _first(prediction: Any) -> Any:
    return prediction[0] if isinstance(prediction, list) else prediction


def _label(one: Any, other: Any) -> bool:
    return bool(_top(one) == _top(other))


def _top(prediction: Any) -> str:
    """The label of the highest score, in any of the shapes that labels come in."""
    if isinstance(prediction, str):
        return prediction
    if isinstance(prediction, dict):
        return str(prediction["labels"][0])
    best = max(prediction, key=lambda each: each["score"])
    return str(best["label"] if "label" in best else best["token_str"])


def _text(one: Any, other: Any) -> bool:
    return _said(one) == _said(other)


def _said(prediction: Any) -> str:
    first = _first(prediction)
    if isinstance(first, str):
        return first.strip()
    said = next(first[name] for name in _TEXTS if name in first)
    return said.strip() if isinstance(said, str) else str(said[-1]["content"]).strip()


def _near(one: Any, other: Any) -> bool:
    """Embeddings whose directions are the same."""
    ones, others = _vector(one), _vector(other)
    if ones.shape != others.shape:
        return False
    sizes = float(np.linalg.norm(ones) * np.linalg.norm(others))
    return sizes > 0 and float(ones @ others) / sizes >= COSINE


def _vector(prediction: Any) -> np.ndarray[Any, Any]:
    return np.asarray(prediction, dtype=np.float64).ravel()


def _scores(one: Any, other: Any) -> bool:
    ones, others = _vector(one), _vector(other)
    return ones.shape == others.shape and bool(np.abs(ones - others).max(initial=0.0) <= _SCORE)


def _order(one: Any, other: Any) -> bool:
    """Rankings with the same text first."""
    return bool(_first(one)["index"] == _first(other)["index"])


def _marks(one: Any, other: Any) -> bool:
    """Entities of the same kinds at the same places."""
    return _places(one) == _places(other)


def _places(prediction: Any) -> list[Any]:
    return [(each.get("entity_group", each.get("entity")), each.get("start"), each.get("end")) for each in prediction]


def _things(one: Any, other: Any) -> bool:
    """The same things in a picture, each as often."""
    return Counter(each["label"] for each in one) == Counter(each["label"] for each in other)


Measure = Callable[[Any, Any], bool]

MEASURES: dict[str, Measure] = {
    **dict.fromkeys(
        (
            *("text-classification", "zero-shot-classification", "fill-mask", "image-classification"),
            *("zero-shot-image-classification", "audio-classification", "zero-shot-audio-classification"),
        ),
        _label,
    ),
    **dict.fromkeys(
        (
            *("text-generation", "text2text-generation", "summarization", "translation", "image-text-to-text"),
            *("automatic-speech-recognition", "question-answering", "document-question-answering"),
        ),
        _text,
    ),
    **dict.fromkeys(("feature-extraction", "image-feature-extraction"), _near),
    "sentence-similarity": _scores,
    "text-ranking": _order,
    "token-classification": _marks,
    **dict.fromkeys(("object-detection", "image-segmentation", "zero-shot-object-detection"), _things),
}
