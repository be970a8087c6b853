"""What a fleet says of itself: what serves since when and to which shares, and what does not serve and why."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.models.fleet.fleet import Fleet


class Status:
    """What was refused last, and the picture of all. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: tuple[float, str] | None = None

    def refuse(self, why: str | None) -> bool:
        """What was found last does not serve, for this reason, or is in force; whether that is news."""
        with self._lock:
            before = self._refused[1] if self._refused else None
            if why != before:
                self._refused = (time.time(), why) if why is not None else None
            return why != before

    def refused(self) -> tuple[float, str] | None:
        """Since when something is refused, and why."""
        with self._lock:
            return self._refused


def told(fleet: Fleet, status: Status) -> dict[str, Any]:
    """The state of ``fleet`` as JSON has it; times are seconds since the epoch.

    ``models`` by name: ``model``, ``revision``, ``task``, ``loaded`` and ``bytes``, the ``share`` of the messages that
    no condition is on, ``shadow`` share, and since this process began ``messages``, ``failures``, ``shadowed``,
    ``agreed``, ``disagreed``, ``failed`` (as a shadow) and ``checks``, the share that held. ``rule_errors`` by the
    expression: ``errors``, the messages on which it raised, and the last ``error``.
    """
    plan = fleet.plan
    sizes = fleet.store.sizes()
    routes = plan.file.routes
    shares = {name: share for rule in routes.rules if rule.when is None for name, share in rule.shares}
    shadows = {each.model: each.share for each in routes.shadows}
    models = {}
    for name, variant in plan.variants.items():
        size = sizes.get(variant.key)
        about = {
            "model": variant.entry.model or variant.entry.endpoint,
            "revision": variant.revision or None,
            "task": variant.entry.task,
            "endpoint": variant.entry.endpoint,
            "follows": variant.entry.follows or None,
            "loaded": size is not None if not variant.remote else None,
            "bytes": size,
            "share": shares.get(name),
            "shadow": shadows.get(name),
            **fleet.ledger.of(name),
        }
        models[name] = {key: value for key, value in about.items() if value is not None}
    rules = [{"when": rule.when, "shares": dict(rule.shares), "by": rule.by} for rule in routes.rules]
    expressions = dict.fromkeys(
        [*(each for rule in routes.rules for each in (rule.when, rule.by)), *(each.when for each in routes.shadows)]
    )
    raised = {each: fleet.ledger.rule_errors(each) for each in expressions if each}
    refused = status.refused()
    return {
        "file": fleet.options.source,
        "models_version": plan.version,
        "since": plan.since,
        "memory": {"bytes": sum(sizes.values()), "most": fleet.store.most, "models": len(sizes)},
        "serve": rules,
        "rule_errors": {each: found for each, found in raised.items() if found},
        "models": models,
        "refused": {"since": refused[0], "why": refused[1]} if refused else None,
    }
