"""What several models cost, told to Beam once a batch; docs/metrics.md describes every name."""

from __future__ import annotations

import functools
from typing import Any

from apache_beam.metrics import Metrics

from transforms.models import metrics as local
from transforms.models.fleet.ledger import FleetAnswers
from transforms.models.remote import metrics as remote

NAMESPACE = "ModelsHandler"

_COUNTERS = {
    name: Metrics.counter(NAMESPACE, name)
    for name in (
        "model_loads",
        "model_unloads",
        "swaps",
        "refused",
        "no_route",
        "rule_errors",
        "shadowed",
        "shadow_agreed",
        "shadow_disagreed",
        "shadow_failures",
    )
}
_LOADED = Metrics.gauge(NAMESPACE, "models_loaded")
_BYTES = Metrics.gauge(NAMESPACE, "models_bytes")
_SHADOW_MS = Metrics.distribution(NAMESPACE, "shadow_ms")


@functools.cache
def _served(variant: str) -> Any:
    return Metrics.counter(NAMESPACE, f"served_{variant}")


def count(answers: FleetAnswers) -> None:
    """Updates the metrics: those of local weights and of endpoints in their own namespaces."""
    if answers.local.outcomes:
        local.count(answers.local)
    if answers.remote_outcomes:
        remote.tell(answers.remote, answers.remote_outcomes, answers.remote_ms)
    for name, number in answers.told.items():
        _COUNTERS[name].inc(number)
    for name, number in answers.by_variant.items():
        _served(name).inc(number)
    _LOADED.set(answers.loaded)
    _BYTES.set(answers.loaded_bytes)
    if answers.shadow_ms:
        _SHADOW_MS.update(int(answers.shadow_ms))
