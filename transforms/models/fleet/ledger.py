"""What a fleet did, for the metrics and for who asks: counted where it happens, told with the next batch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.models.answers import Answers
from transforms.models.remote.caller import RequestCounts
from transforms.records import Failure, Prediction


@dataclass(slots=True)
class FleetAnswers:
    """One outcome for each request, in order, and what they cost: local weights, endpoints, and all around them."""

    outcomes: list[Prediction | Failure] = field(default_factory=list)
    local: Answers = field(default_factory=Answers)
    remote: RequestCounts = field(default_factory=RequestCounts)
    remote_outcomes: Counter[str] = field(default_factory=Counter)
    remote_ms: float = 0.0
    shadow_ms: float = 0.0
    by_variant: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    loaded_bytes: int = 0


class Ledger:
    """Counts of a fleet. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: Counter[str] = Counter()
        self._variants: dict[str, Counter[str]] = {}
        self._checked: dict[str, float] = {}
        self._raised: dict[str, tuple[int, str]] = {}

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._told[name] += number

    def add(self, variant: str, counts: Mapping[str, int]) -> None:
        """Adds ``counts`` to what is known of a model since this process began."""
        with self._lock:
            self._variants.setdefault(variant, Counter()).update(counts)

    def take(self) -> Counter[str]:
        """What happened since the last call."""
        with self._lock:
            told, self._told = self._told, Counter()
            return told

    def raised(self, expression: str, why: str) -> bool:
        """An expression of the file raised on one more message; whether for the first time."""
        with self._lock:
            self._told["rule_errors"] += 1
            before, _ = self._raised.get(expression, (0, ""))
            self._raised[expression] = (before + 1, why)
            return not before

    def rule_errors(self, expression: str | None) -> dict[str, Any]:
        """``errors``, the messages on which an expression raised, and the last ``error``; nothing if none."""
        with self._lock:
            found = self._raised.get(expression or "")
        return {"errors": found[0], "error": found[1]} if found else {}

    def checked(self, variant: str, share: float) -> None:
        """So much of a model's checks held."""
        with self._lock:
            self._checked[variant] = share

    def of(self, variant: str) -> dict[str, Any]:
        """What is known of a model since this process began."""
        with self._lock:
            checked = {"checks": self._checked[variant]} if variant in self._checked else {}
            return {**self._variants.get(variant, {}), **checked}
