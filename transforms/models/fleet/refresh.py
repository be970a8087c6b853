"""Looks for new versions again and again, and puts in force what is sound: loaded, checked, swapped between batches.

What is not sound never serves, and what served before goes on. A file takes effect as a whole or not at all; a branch
or a folder that moved, for its model alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transforms.models.errors import Changed, ModelLoadError, Unreachable
from transforms.models.fleet import checks, source
from transforms.models.fleet.file import ModelsFile, parse
from transforms.models.fleet.fleet import Fleet
from transforms.models.fleet.plan import Plan, version
from transforms.models.fleet.status import Status
from transforms.models.fleet.store import NoRoom
from transforms.models.fleet.variant import Variant

_LOG = logging.getLogger(__name__)

#: A model that answered within so many seconds is not given up for one that is only tried.
SPARE_S = 60.0


class Refresher:
    """Keeps a fleet's plan up to date, on a thread of its own."""

    def __init__(self, fleet: Fleet, status: Status) -> None:
        self._fleet = fleet
        self._options = fleet.options
        self._status = status
        self._looking = threading.Lock()
        #: Models that failed, by key, with the reason: not tried again until they are others.
        self._refused: dict[Any, str] = {}
        #: Folders' versions as they were at the last look: what is still being written is left alone.
        self._seen: dict[str, str] = {}
        self._tried = fleet.plan.file.digest
        self._stop = threading.Event()
        fleet.look_again = lambda: self.look(everything=True)

    def start(self) -> None:
        threading.Thread(target=self._run, name="models", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._options.refresh_s):
            try:
                self.look()
            except Exception as error:  # it must not cost the job anything
                _LOG.exception("the models file was not looked at: %s", type(error).__name__)

    def look(self, everything: bool = False) -> None:
        """Puts in force what is new and sound; with ``everything``, also what the file does not follow."""
        with self._looking:
            try:
                self._look(everything)
            except ModelLoadError as error:
                self._refuse(error)

    def _refuse(self, error: ModelLoadError) -> None:
        """Says once why what was found does not serve."""
        if self._status.refuse(str(error)):
            self._fleet.ledger.count("refused")
            _LOG.error("the models in force stay as they are (%s): %s", self._fleet.plan.version, error)

    def _look(self, everything: bool) -> None:
        now = self._fleet.plan
        data = source.read(self._options.source)
        file = parse(data, self._options.source)
        new = file.digest != now.file.digest
        file = file if new else now.file
        found, refused = self._resolved(file, now, everything)
        if file.digest != self._tried:  # whoever wrote another file wants it tried
            self._tried = file.digest
            self._refused.clear()
        with contextlib.ExitStack() as still:
            for name, variant in found.items():
                if not new and variant == now.variants[name]:
                    continue
                try:
                    # What a message waits for may take an unused model's room, as at any first use.
                    self._try(variant, now, still, None if everything else SPARE_S)
                except ModelLoadError as error:
                    if new:
                        raise
                    refused, found[name] = error, now.variants[name]
            if version(file, found) != now.version:
                self._swap(Plan(file, found))
        if refused is None:
            self._status.refuse(None)
        else:
            self._refuse(refused)

    def _resolved(
        self, file: ModelsFile, now: Plan, everything: bool
    ) -> tuple[dict[str, Variant], ModelLoadError | None]:
        """The models of ``file``, each at its revision of now; one that serves and cannot be asked keeps its own.

        Beside them what was wrong with one that serves, if anything was.
        """
        found = {}
        wrong: ModelLoadError | None = None
        for name, entry in file.models.items():
            before = now.variants.get(name)
            variant = Variant(entry, self._options, file.checks.get(name))
            if before is not None and before.entry != entry:
                before = None
            if before is not None and not (entry.follows or everything):
                found[name] = replace(before, check=variant.check)
                continue
            try:
                fresh = variant.resolve()
            except ModelLoadError as error:
                if before is None:
                    raise
                wrong, fresh = error, replace(before, check=variant.check)
            if before is not None and not everything and self._moving(before, fresh):
                fresh = replace(fresh, revision=before.revision)
            found[name] = fresh
        return found, wrong

    def _moving(self, before: Variant, fresh: Variant) -> bool:
        """Whether files may still be written: a folder's version counts once two looks have found the same."""
        seen = self._seen.get(fresh.name)
        self._seen[fresh.name] = fresh.revision
        whole_at_once = not fresh.revision.startswith(("gcs:", "sha256:"))
        return not whole_at_once and fresh.revision not in (before.revision, seen)

    def _try(self, variant: Variant, now: Plan, still: contextlib.ExitStack, spare_s: float | None) -> None:
        """Loads and checks ``variant``, beside what serves or after it; what was used within ``spare_s`` is kept.

        Raises:
          ModelLoadError: it must not serve.
        """
        why = self._refused.get(variant.key)
        if why is not None:
            raise ModelLoadError(why)
        try:
            if variant.remote:
                self._fleet.verify(variant, None)
            else:
                self._load(variant, now, still, spare_s)
        except (Changed, NoRoom, Unreachable, checks.Unusable):
            raise  # at another time it may be another thing
        except ModelLoadError as error:
            self._refused[variant.key] = str(error)
            raise

    def _load(self, variant: Variant, now: Plan, still: contextlib.ExitStack, spare_s: float | None) -> None:
        if variant.key in now.keys():  # noqa: SIM118 (not a mapping)
            if variant.check is not None:
                with self._fleet.using(variant) as model:
                    self._fleet.verify(variant, model)
            return
        try:
            with self._fleet.using(variant, spare_s):
                return
        except NoRoom:
            before = now.variants.get(variant.name)
            if before is None or not variant.entry.unload_first:
                raise
        _LOG.info("model %r is unloaded for its next version; what comes waits", variant.name)
        still.enter_context(self._fleet.standing_still())
        self._fleet.store.drop({before.key})
        with self._fleet.using(variant):
            pass

    def _swap(self, plan: Plan) -> None:
        self._fleet.put_in_force(plan)
        self._fleet.ledger.count("swaps")
        _LOG.info("models in force: %s, %s", plan.version, _told(plan.variants))


def _told(variants: Mapping[str, Variant]) -> str:
    return ", ".join(f"{name} at {each.revision or each.entry.endpoint}" for name, each in variants.items())
