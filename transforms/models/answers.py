"""What a batch came to, and what it cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from transforms.models.bisect import ForwardCounts
from transforms.records import Failure, Prediction


@dataclass(slots=True)
class Answers:
    """One outcome for each request, in order, and what they cost; ``ms`` is how long they took."""

    outcomes: list[Prediction | Failure] = field(default_factory=list)
    counts: ForwardCounts = field(default_factory=ForwardCounts)
    tokens: int = 0
    truncated: int = 0
    ms: float = 0.0

    def add(self, other: Answers) -> None:
        """Adds what ``other`` cost; its outcomes have places of their own."""
        for name in (each.name for each in dataclasses.fields(ForwardCounts)):
            setattr(self.counts, name, getattr(self.counts, name) + getattr(other.counts, name))
        self.tokens += other.tokens
        self.truncated += other.truncated
        self.ms += other.ms
