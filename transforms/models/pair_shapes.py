"""Answers of servers that hold texts against each other: similarities and ranks, as local weights give them."""

from __future__ import annotations

from typing import Any

from transforms.models.errors import brief
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit, are_objects, check_numbers


def similarities(answer: Any, ask: Ask) -> list[float]:
    """One number for each of ``sentences``, in their order."""
    sentences = ask.inputs["sentences"]
    if not isinstance(answer, list) or len(answer) != len(sentences):
        raise Misfit(f"expected a number for each of {len(sentences)} sentences, got {brief(answer)}")
    check_numbers(answer, answer)
    return [float(one) for one in answer]


def ranks(answer: Any, ask: Ask) -> list[dict[str, Any]]:
    """``[{"index", "score"}]``, best first: each of ``texts`` once, the ``top_k`` best of them."""
    texts = ask.inputs["texts"]
    if not are_objects(answer, "index", "score"):
        raise Misfit(f'expected [{{"index": …, "score": …}}], got {brief(answer)}')
    indices = [one["index"] for one in answer]
    if not all(type(index) is int for index in indices) or sorted(indices) != list(range(len(texts))):
        raise Misfit(f"expected the index of each of {len(texts)} texts once, got {brief(indices)}")
    check_numbers((one["score"] for one in answer), answer)
    scores = dict(zip(indices, (float(one["score"]) for one in answer), strict=True))
    return ranked([scores[i] for i in range(len(texts))], ask)


def ranked(scores: list[float], ask: Ask) -> list[dict[str, Any]]:
    """The prediction for the ``scores`` of ``texts`` in their order, as ``parameters`` ask for it."""
    texts, given = ask.inputs["texts"], ask.parameters
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: given.get("top_k")]
    named = given.get("return_text", False)
    return [{"index": i, "score": scores[i], **({"text": texts[i]} if named else {})} for i in order]
