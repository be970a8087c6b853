"""Spread: how the labels and scores of results are distributed, of all that are kept or of those that fit a filter."""

from __future__ import annotations

import collections
from typing import Any

#: Labels that are told: more than a person can tell apart.
SHOWN_LABELS = 30
#: Columns of the score distribution, from 0 to 1.
_BINS = 20


class Spread:
    """Counts of labels, and of scores by their column."""

    def __init__(self) -> None:
        self.labels: collections.Counter[str] = collections.Counter()
        self.scores = [0] * _BINS

    def count(self, label: str | None, score: float | None, by: int = 1) -> None:
        """Adds one result, or takes it out."""
        if label is not None:
            self.labels[label] += by
            if not self.labels[label]:
                del self.labels[label]
        if score is not None:
            self.scores[min(_BINS - 1, int(score * _BINS))] += by

    def told(self) -> dict[str, Any]:
        """The most frequent ``labels``, of how many results and labels in all they are, and ``scores``."""
        return {
            "labels": dict(self.labels.most_common(SHOWN_LABELS)),
            "labels_all": {"results": self.labels.total(), "labels": len(self.labels)},
            "scores": list(self.scores),
        }
