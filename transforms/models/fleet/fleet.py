"""The models that serve now: each message to the one that its rule names, each batch wholly under one plan."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from transforms.barrier import failure
from transforms.models.errors import Changed, ElementError, ModelLoadError, Unreachable
from transforms.models.fleet import checks, remote
from transforms.models.fleet.ledger import FleetAnswers, Ledger
from transforms.models.fleet.options import Options
from transforms.models.fleet.plan import Plan
from transforms.models.fleet.shadows import Shadows
from transforms.models.fleet.store import NoRoom, Store
from transforms.models.fleet.variant import Variant
from transforms.models.fleet.view import View
from transforms.models.remote.caller import RequestCounts
from transforms.records import Failure, Prediction, Request

_LOG = logging.getLogger(__name__)

#: Seconds for which a model that could not be loaded is not tried again.
TRY_AGAIN_S = 60.0


class NoRoute(ElementError):
    """No rule of the models file fits the message; the file has no rule for all others."""


class ModelUnavailable(ElementError):
    """The model that is to answer the message cannot be loaded; the text says why."""


class Fleet:
    """Answers batches. Safe to call from several threads: forwards run one at a time, whichever model's they are."""

    def __init__(self, options: Options, plan: Plan, store: Store[Any], ledger: Ledger) -> None:
        self.options = options
        self.store = store
        self.ledger = ledger
        #: All models' forwards run here: one team of OpenMP's threads, and no two forwards at a time.
        self.forwards = ThreadPoolExecutor(1, "model")
        #: Called when a folder is no longer what it was; puts the plan in force that has it as it is.
        self.look_again: Callable[[], None] = lambda: None
        self._plan = plan
        self._users: Counter[Plan] = Counter()
        self._changed = threading.Condition()
        self._closed = False
        self._broken: dict[Any, tuple[float, str]] = {}
        self._verified: set[Any] = set()
        self._shadows = Shadows(self)

    @property
    def plan(self) -> Plan:
        """What is in force now."""
        return self._plan

    def answer(self, requests: Sequence[Request]) -> FleetAnswers:
        """One ``Prediction`` or ``Failure`` for each of ``requests``, in their order; shadows after them.

        Raises:
          BundleError: a service is away; no request is to blame.
        """
        try:
            return self._answer(requests)
        except Changed:
            self.look_again()
            return self._answer(requests)

    def _answer(self, requests: Sequence[Request]) -> FleetAnswers:
        with self._leased() as plan:
            views = [self.options.reader.view(request) for request in requests]
            answers = self._served(plan, requests, views)
            self._shadows.answer(plan, requests, views, answers)
        for view in views:
            for expression, why in view.raised.items():
                self._rule_raised(expression, why)
        answers.told = self.ledger.take()
        sizes = self.store.sizes()
        answers.loaded, answers.loaded_bytes = len(sizes), sum(sizes.values())
        return answers

    def _rule_raised(self, expression: str, why: str) -> None:
        if self.ledger.raised(expression, why):
            _LOG.warning("models file: %r raises on a message, and is taken to find nothing: %s", expression, why)

    @contextmanager
    def _leased(self) -> Iterator[Plan]:
        """The plan in force, whose models stay until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            plan = self._plan
            self._users[plan] += 1
        try:
            yield plan
        finally:
            with self._changed:
                self._users[plan] -= 1
                ended = not self._users[plan]
                if ended:
                    del self._users[plan]
                self._changed.notify_all()
            if ended and plan is not self._plan:
                self._retire(plan)

    def put_in_force(self, plan: Plan) -> None:
        """Has the next batch answered under ``plan``; the models of the last go with its last batch."""
        with self._changed:
            before, self._plan = self._plan, plan
            in_use = before in self._users
        if not in_use:
            self._retire(before)

    def _retire(self, plan: Plan) -> None:
        with self._changed:
            needed = self._plan.keys().union(*(each.keys() for each in self._users))
        self.store.drop(plan.keys() - needed)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """No batch is under way while the block runs; those that come wait."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def _served(self, plan: Plan, requests: Sequence[Request], views: Sequence[View]) -> FleetAnswers:
        groups: dict[str, list[int]] = {}
        for index, view in enumerate(views):
            groups.setdefault(plan.file.routes.choose(view) or "", []).append(index)
        answers = FleetAnswers()
        outcomes: dict[int, Prediction | Failure] = {}
        asked = {
            name: remote.ask(plan.variants[name], [requests[i] for i in indices], answers.remote)
            for name, indices in groups.items()
            if name and plan.variants[name].remote
        }
        started = time.perf_counter()
        try:
            for name, indices in groups.items():
                if name not in asked:
                    found = self._group(plan, name, [requests[i] for i in indices], answers)
                    outcomes.update(zip(indices, found, strict=True))
            for name, running in asked.items():
                outcomes.update(zip(groups[name], running.result(), strict=True))
                answers.remote_ms = (time.perf_counter() - started) * 1000
        finally:
            for running in asked.values():
                running.cancel()
        for name, indices in groups.items():
            for i in indices:
                outcomes[i] = dataclasses.replace(outcomes[i], model=plan.info(name, outcomes[i].model))
            failures = sum(isinstance(outcomes[i], Failure) for i in indices)
            if name:
                answers.by_variant[name] += len(indices)
                self.ledger.add(name, {"messages": len(indices), "failures": failures})
            if name in asked:
                answers.remote_outcomes.update(predictions=len(indices) - failures, failures=failures)
        answers.outcomes = [outcomes[i] for i in range(len(requests))]
        return answers

    def _group(
        self, plan: Plan, name: str, requests: Sequence[Request], answers: FleetAnswers
    ) -> Sequence[Prediction | Failure]:
        """The answers of one model, or of none, to its part of a batch."""
        if not name:
            self.ledger.count("no_route", len(requests))
            error: ElementError = NoRoute("no rule of the models file fits this message; add one without `when`")
            return [failure(error, request.message, "predict") for request in requests]
        try:
            with self.using(plan.variants[name]) as model:
                found = model.answer(requests)
        except (Changed, Unreachable):
            raise
        except ModelLoadError as unavailable:
            error = ModelUnavailable(str(unavailable))
            return [failure(error, request.message, "predict") for request in requests]
        answers.local.outcomes += found.outcomes
        answers.local.add(found)
        return list(found.outcomes)

    @contextmanager
    def using(self, variant: Variant, spare_s: float | None = None) -> Iterator[Any]:
        """The model of ``variant``, in memory and verified while the block runs.

        Raises:
          ModelLoadError: it cannot be loaded, or must not serve.
        """
        until, why = self._broken.get(variant.key, (0.0, ""))
        if time.monotonic() < until:
            raise ModelLoadError(why)

        def load() -> Any:
            model = variant.load(self.forwards)
            self.verify(variant, model)
            return model

        with ExitStack() as stack:
            try:
                model = stack.enter_context(self.store.using(variant.key, variant.size, load, spare_s))
            except Unreachable:
                raise
            except ModelLoadError as error:
                if isinstance(error, NoRoom):
                    error = NoRoom(f"model {variant.name!r}: {error}")
                if spare_s is None and not isinstance(error, Changed):  # nor what only was not to push others out
                    self._broken[variant.key] = (time.monotonic() + TRY_AGAIN_S, str(error))
                raise error from None
            yield model  # what is raised from here on says nothing of the load

    def verify(self, variant: Variant, model: Any) -> None:
        """Runs the checks of ``variant``, once; ``model`` is what it is in memory, None for an endpoint.

        Raises:
          CheckFailed: it must not serve.
          Unusable: the checks cannot be used.
        """
        check = variant.check
        if check is None or (variant.key, check) in self._verified:
            return

        def answer(requests: Sequence[Request]) -> Sequence[Prediction | Failure]:
            if model is None:
                return remote.ask(variant, requests, RequestCounts()).result()
            found: Sequence[Prediction | Failure] = model.answer(requests).outcomes
            return found

        share = checks.run(variant.name, check, self.options.source, answer)
        self._verified.add((variant.key, check))
        self.ledger.checked(variant.name, share)
