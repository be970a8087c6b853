"""Models that answer a share of the messages too, for the audit row alone: whatever they do, no message fails."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from transforms.models.fleet import remote
from transforms.models.fleet.agreement import agree
from transforms.models.fleet.ledger import FleetAnswers
from transforms.models.fleet.plan import Plan
from transforms.models.fleet.variant import Variant
from transforms.models.fleet.view import View
from transforms.models.remote.caller import RequestCounts
from transforms.records import Failure, Prediction, Request

if TYPE_CHECKING:
    from transforms.models.fleet.fleet import Fleet

_LOG = logging.getLogger(__name__)

#: Longest that an endpoint is waited for that answers as a shadow.
_WAIT_S = 10.0
#: Seconds for which a shadow that was away is not asked again.
_REST_S = 60.0


class Shadows:
    """The shadows of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._resting: dict[Any, float] = {}
        self._calling: set[Any] = set()
        self._lock = threading.Lock()

    def answer(self, plan: Plan, requests: Sequence[Request], views: Sequence[View], answers: FleetAnswers) -> None:
        """Has each message's shadow, if it has one, answer too, and notes that beside the outcome."""
        groups: dict[str, list[int]] = {}
        for index, view in enumerate(views):
            name = plan.file.routes.shadow(view)
            served = answers.outcomes[index].model
            if name and not (served and served.variant == name):
                groups.setdefault(name, []).append(index)
        started = time.perf_counter()
        for name, indices in groups.items():
            variant = plan.variants[name]
            try:
                found = self._ask(variant, [requests[i] for i in indices])
            except Exception as error:  # noqa: BLE001 (a shadow costs no message anything)
                self._rest(variant, error)
                continue
            for i, outcome in zip(indices, found, strict=False):  # none while it is loaded
                answers.outcomes[i] = self._noted(answers.outcomes[i], name, outcome)
        if groups:
            answers.shadow_ms = (time.perf_counter() - started) * 1000

    def _ask(self, variant: Variant, requests: Sequence[Request]) -> Sequence[Prediction | Failure]:
        """The answers of ``variant``; none while it is being loaded, or rests."""
        if time.monotonic() < self._resting.get(variant.key, 0.0):
            return ()
        if variant.remote:
            running = remote.ask(variant, requests, RequestCounts())
            try:
                return running.result(_WAIT_S)
            finally:
                running.cancel()
        if variant.key not in self._fleet.store.sizes():
            self._call(variant)
            return ()
        with self._fleet.using(variant) as model:
            return list(model.answer(requests).outcomes)

    def _call(self, variant: Variant) -> None:
        """Has ``variant`` loaded on a thread of its own, where no model that answers must go for it."""
        with self._lock:
            if variant.key in self._calling:
                return
            self._calling.add(variant.key)

        def load() -> None:
            try:
                with self._fleet.using(variant, spare_s=_REST_S):
                    pass
            except Exception as error:  # noqa: BLE001 (as above)
                self._rest(variant, error)
            finally:
                with self._lock:
                    self._calling.discard(variant.key)

        threading.Thread(target=load, name="shadow", daemon=True).start()

    def _rest(self, variant: Variant, error: Exception) -> None:
        self._resting[variant.key] = time.monotonic() + _REST_S
        self._fleet.ledger.count("shadow_failures")
        _LOG.warning("shadow %r does not answer, and rests for %g s: %s", variant.name, _REST_S, type(error).__name__)
        _LOG.debug("shadow %r: %s", variant.name, error)

    def _noted(self, served: Prediction | Failure, name: str, outcome: Prediction | Failure) -> Prediction | Failure:
        """``served`` with what its shadow said."""
        note: dict[str, Any] = {"variant": name, "revision": outcome.model.revision if outcome.model else None}
        ledger = self._fleet.ledger
        ledger.count("shadowed")
        counts = {"shadowed": 1}
        if isinstance(outcome, Failure):
            note["error_type"] = outcome.error_type
            ledger.count("shadow_failures")
            counts["failed"] = 1
        else:
            note |= {"prediction": outcome.prediction, "inference_ms": round(outcome.inference_ms, 3)}
            agrees = _agrees(served, outcome)
            note["agrees"] = agrees
            if agrees is not None:
                said = "agreed" if agrees else "disagreed"
                ledger.count(f"shadow_{said}")
                counts[said] = 1
        ledger.add(name, counts)
        return dataclasses.replace(served, shadow=_written(note))


def _agrees(served: Prediction | Failure, shadow: Prediction) -> bool | None:
    if isinstance(served, Failure) or served.model.task != shadow.model.task:
        return None
    return agree(served.model.task, served.prediction, shadow.prediction)


def _written(note: Mapping[str, Any]) -> Mapping[str, Any]:
    """``note`` with its prediction as JSON text: what has no such form is left out."""
    if "prediction" not in note:
        return note
    try:
        return {**note, "prediction": orjson.dumps(note["prediction"], option=orjson.OPT_SERIALIZE_NUMPY).decode()}
    except TypeError:
        return {**note, "prediction": None}
