"""Answers of the different servers, brought into the one shape that a task's prediction has with local weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from transforms.models import structured
from transforms.models.errors import brief
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit, are_objects, are_texts, check_numbers, non_finite, unwrap
from transforms.models.structured import Structure
from transforms.models.task_parameters import candidate_labels, dimensions

#: Dimensions of an array of numbers.
_MOST_DIMENSIONS = 4


def labels(usual: int | None) -> Callable[[Any, Ask], Any]:
    """``[{"label", "score"}]``, best first: ``top_k`` of them, or ``usual``, or all for None."""

    def shape(answer: Any, ask: Ask) -> Any:
        found = unwrap(answer)
        if not are_objects(found, "label", "score") or not are_texts(one["label"] for one in found):
            raise Misfit(f'expected [{{"label": …, "score": …}}], got {brief(answer)}')
        check_numbers((one["score"] for one in found), answer)
        _check_candidates([one["label"] for one in found], ask, answer)
        top = ask.parameters.get("top_k", usual)
        return sorted(found, key=lambda one: -one["score"])[:top]

    return shape


def objects(*keys: str) -> Callable[[Any, Ask], Any]:
    """A list of objects that have ``keys``; it may be empty, as where nothing was detected."""

    def shape(answer: Any, ask: Ask) -> Any:
        found = unwrap(answer)
        if not isinstance(found, list) or (found and not are_objects(found, *keys)):
            raise Misfit(f"expected a list of objects with {', '.join(keys)}, got {brief(answer)}")
        _check_fields(found, keys, answer)
        return found

    return shape


#: What objects hold, beside numbers: those texts that are never null where they are needed.
_TEXTS = ("label", "mask", "answer", "token_str")


def _check_fields(found: list[dict[str, Any]], keys: tuple[str, ...], answer: Any) -> None:
    """Checks what is known of ``keys``, and that a ``score`` is a number wherever there is one."""
    for key in keys:
        if key in _TEXTS and not are_texts(one[key] for one in found):
            raise Misfit(f"expected a text as {key}, got {brief(answer)}")
        if key == "box":
            corners = [one["box"] for one in found]
            if not all(isinstance(box, dict) and len(box) == 4 for box in corners):
                raise Misfit(f"expected a box of four numbers, got {brief(answer)}")
            check_numbers((value for box in corners for value in box.values()), answer)
    # A segment of a semantic map has none, and there it says null.
    needed = "score" in keys
    check_numbers((one["score"] for one in found if needed or one.get("score") is not None), answer)


def fills(answer: Any, ask: Ask) -> Any:
    """Those of fill-mask: a list, or a list of lists for several masks."""
    shape = objects("score", "token_str")
    if isinstance(answer, list) and len(answer) > 1 and all(isinstance(one, list) for one in answer):
        if any(one and isinstance(one[0], list) for one in answer):
            raise Misfit(f"expected a list of fills for each mask, got {brief(answer)}")
        return [shape(one, ask) for one in answer]
    return shape(answer, ask)


def zero_shot(answer: Any, ask: Ask) -> Any:
    """``{"sequence", "labels", "scores"}``, which newer servers write as a list of ``{"label", "score"}``."""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict) and "labels" in answer[0]:
        answer = answer[0]
    if isinstance(answer, dict) and isinstance(answer.get("labels"), list) and isinstance(answer.get("scores"), list):
        names, scores = answer["labels"], answer["scores"]
    elif are_objects(answer, "label", "score"):
        names, scores = [one["label"] for one in answer], [one["score"] for one in answer]
    else:
        raise Misfit(f'expected {{"sequence": …, "labels": …, "scores": …}}, got {brief(answer)}')
    if not names or len(names) != len(scores) or not are_texts(names):
        raise Misfit(f"expected a score for each label, got {brief(answer)}")
    check_numbers(scores, answer)
    _check_candidates(names, ask, answer)
    ranked = sorted(zip(names, scores, strict=True), key=lambda one: -one[1])
    return {"sequence": ask.inputs, "labels": [name for name, _ in ranked], "scores": [score for _, score in ranked]}


def _check_candidates(names: list[str], ask: Ask, answer: Any) -> None:
    """Checks that a choice among the message's labels, where it has any, is among all of these and no others."""
    asked = {label.strip() for label in candidate_labels(ask.parameters)} - {""}
    if asked and {name.strip() for name in names} != asked:
        raise Misfit(f"expected a score for each of candidate_labels, and no others, got {brief(answer)}")


def spans(answer: Any, ask: Ask) -> Any:
    """``{"score", "start", "end", "answer"}``, or a list of them with ``top_k`` over 1."""
    found = answer if isinstance(answer, list) else [answer]
    if not are_objects(found, "score", "answer"):
        raise Misfit(f'expected {{"score": …, "start": …, "end": …, "answer": …}}, got {brief(answer)}')
    _check_fields(found, ("score", "answer"), answer)
    top = ask.parameters.get("top_k", 1)
    return found[0] if top == 1 else found[:top]


def embedding(answer: Any, ask: Ask) -> Any:
    """A vector; token embeddings stay ``[1, tokens, width]``, as with local weights."""
    array = _array(answer)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    elif array.ndim == 2:
        array = array[None]
    if array.ndim not in (1, 3):
        raise Misfit(f"expected a vector of numbers, got {brief(answer)}")
    asked = dimensions(ask.parameters)
    if asked and array.ndim == 1 and len(array) != asked:
        raise Misfit(f"expected {asked} dimensions, as asked, got {len(array)}")
    return array


def features(answer: Any, ask: Ask) -> Any:
    """An image's features: numbers in one to four dimensions, as the server has them."""
    return _array(answer)


def _array(answer: Any) -> np.ndarray:
    if isinstance(answer, dict) and "embeddings" in answer:
        answer = answer["embeddings"]
    # numpy takes texts, booleans and nulls for numbers, so these are looked for first.
    rows = [answer]
    for _ in range(_MOST_DIMENSIONS - 1):
        rows = [one for row in rows for one in (row if isinstance(row, list) and _nested(row) else [row])]
    for row in rows:
        if not isinstance(row, list) or not set(map(type, row)) <= {int, float, type(None)}:
            raise Misfit(f"expected lists of numbers, got {brief(answer)}")
    try:
        with np.errstate(over="ignore"):  # over float32's range is infinity, and told below
            array = np.asarray(answer, np.float32)
    except (TypeError, ValueError):
        array = np.empty(0, np.float32)
    if not array.size:
        raise Misfit(f"expected rows of numbers, all as long, got {brief(answer)}")
    if not np.isfinite(array).all():
        raise non_finite()
    return array


def _nested(row: list[Any]) -> bool:
    return bool(row) and isinstance(row[0], list)


def generated(answer: Any, ask: Ask) -> Any:
    """``[{"generated_text"}]``: a text, or the chat with the answer at its end where the input is one."""
    found = answer if isinstance(answer, list) else [answer]
    chat = isinstance(ask.inputs, list)
    if not are_objects(found, "generated_text") or not all(
        isinstance(one["generated_text"], str) or (chat and are_objects(one["generated_text"], "role", "content"))
        for one in found
    ):
        raise Misfit(f'expected [{{"generated_text": …}}], got {brief(answer)}')
    structure = structured.asked(ask.parameters)
    if structure is None:
        return [{"generated_text": one["generated_text"]} for one in found]
    return [{"generated_text": one["generated_text"], "parsed": _parsed(structure, one, ask)} for one in found]


def _parsed(structure: Structure, one: dict[str, Any], ask: Ask) -> Any:
    """The value in a text; a chat's answer was read already, before the chat was put around it."""
    if "parsed" in one and isinstance(one["generated_text"], list):
        return one["parsed"]
    text = one["generated_text"]
    full = isinstance(ask.inputs, str) and ask.parameters.get("return_full_text", True)
    return structure.read(text.removeprefix(ask.inputs) if full else text)


def texts(key: str) -> Callable[[Any, Ask], Any]:
    """``[{key: …}]``, a text each; a server that generates calls it ``generated_text`` whatever the task."""

    def shape(answer: Any, ask: Ask) -> Any:
        found = unwrap(answer if isinstance(answer, list) else [answer])
        own = key if are_objects(found, key) else "generated_text"
        if not are_objects(found, own) or not are_texts(one[own] for one in found):
            raise Misfit(f'expected [{{"{key}": …}}], got {brief(answer)}')
        return [{key: one[own]} for one in found]

    return shape


def transcript(answer: Any, ask: Ask) -> Any:
    """``{"text"}``, with ``chunks`` where timestamps were asked for."""
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        raise Misfit(f'expected {{"text": …}}, got {brief(answer)}')
    chunks = answer.get("chunks")
    if chunks is not None and chunks != [] and not are_objects(chunks, "text"):
        raise Misfit(f'expected chunks of {{"text": …, "timestamp": …}}, got {brief(answer)}')
    return answer
