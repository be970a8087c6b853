"""sentence-similarity: how near each of several sentences is to one, by their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from transforms.models.errors import ElementError, ModelLoadError
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, non_finite
from transforms.models.tasks.embeddings import FeatureExtraction, unit

#: sentence-transformers' names for the ways of comparing one embedding ``[1, width]`` with others; more is nearer.
_COMPARE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": lambda one, others: (unit(others) * unit(one)).sum(1),
    "dot": lambda one, others: (others * one).sum(1),
    "euclidean": lambda one, others: -np.sqrt(((others - one) ** 2).sum(1)),
    "manhattan": lambda one, others: -np.abs(others - one).sum(1),
}


class SentenceSimilarity(FeatureExtraction):
    """``inputs``: ``{"source_sentence", "sentences"}``. ``prediction``: a number for each of ``sentences``.

    The cosine of the two embeddings, or what the folder's ``similarity_fn_name`` says.
    """

    entry = TASKS["sentence-similarity"]

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        name = self.sentences.similarity
        if name not in _COMPARE:
            raise ModelLoadError(
                f"config_sentence_transformers.json says similarity_fn_name={name}; known are {', '.join(_COMPARE)}"
            )
        self.compare = _COMPARE[name]

    def check(self, inputs: Any) -> list[str]:
        """All sentences, the source first."""
        checked = super().check(inputs)
        return [checked["source_sentence"], *checked["sentences"]]

    def finish(self, outputs: tuple[np.ndarray, torch.Tensor | None], batch: Sequence[Prepared]) -> list[Any]:
        return [
            found if isinstance(found, ElementError) else self._near(found) for found in super().finish(outputs, batch)
        ]

    def _near(self, vectors: np.ndarray) -> list[float] | ElementError:
        with np.errstate(over="ignore"):  # of two large numbers; told below
            near = self.compare(vectors[:1], vectors[1:])
        return [float(one) for one in near] if np.isfinite(near).all() else non_finite()
