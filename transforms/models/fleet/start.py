"""A fleet's beginning in a process: the file read, its models found, those that any message may need in memory."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transforms.models import memory
from transforms.models.errors import ModelLoadError
from transforms.models.fleet import source
from transforms.models.fleet.file import ModelsFile, parse
from transforms.models.fleet.fleet import Fleet
from transforms.models.fleet.ledger import Ledger
from transforms.models.fleet.options import Options
from transforms.models.fleet.plan import Plan
from transforms.models.fleet.refresh import Refresher
from transforms.models.fleet.status import Status, told
from transforms.models.fleet.store import Store
from transforms.models.fleet.variant import Variant

_LOG = logging.getLogger(__name__)

#: Models whose revisions are asked for at once.
_AT_ONCE = 16


class Running(Fleet):
    """A fleet that keeps itself up to date."""

    status: Status
    refresher: Refresher

    def close(self) -> None:
        """Ends its threads; it answers no more."""
        self.refresher.close()
        self.forwards.shutdown(wait=False)

    def told(self) -> dict[str, Any]:
        """Its state, as :func:`~transforms.models.fleet.status.told` has it."""
        return told(self, self.status)


def find(data: bytes, options: Options) -> Plan:
    """The plan of the file of which ``data`` are the bytes, each model at its revision of now.

    Raises:
      ModelLoadError: the file is not sound, or a model is not there.
    """
    file = parse(data, options.source)

    def resolve(name: str) -> Variant:
        return Variant(file.models[name], options, file.checks.get(name)).resolve()

    with ThreadPoolExecutor(_AT_ONCE, "resolve") as threads:
        return Plan(file, dict(zip(file.models, threads.map(resolve, file.models), strict=True)))


def start(options: Options) -> Running:
    """The fleet of this process. What it cannot do without is in memory, and checked.

    A worker that starts while the file is not fit to serve begins with the file that the job was launched with.

    Raises:
      ModelLoadError: one line that says why it cannot serve.
    """
    status = Status()
    try:
        fleet = _started(source.read(options.source), options, status)
    except ModelLoadError as error:
        if options.launched is None:
            raise
        _LOG.error("the models file is not fit to serve, and the one of the launch does: %s", error)
        fleet = _started(options.launched, options, status)
        fleet.ledger.count("refused")
        status.refuse(str(error))
    fleet.refresher.start()
    return fleet


def _started(data: bytes, options: Options, status: Status) -> Running:
    plan = find(data, options)
    ledger = Ledger()
    most = options.memory or memory.usual(_on_gpu(plan.file, options))
    fleet = Running(options, plan, Store(most, ledger.count), ledger)
    fleet.status, fleet.refresher = status, Refresher(fleet, status)
    names = dict.fromkeys([*plan.file.routes.always(), *(each.model for each in plan.file.routes.shadows)])
    for name in names:
        variant = plan.variants[name]
        if variant.remote:
            fleet.verify(variant, None)
            continue
        with fleet.using(variant):
            pass
    _LOG.info("models in force: %s", plan.version)
    return fleet


def _on_gpu(file: ModelsFile, options: Options) -> bool:
    local = [entry for entry in file.models.values() if entry.endpoint is None]
    if not local or dict(options.weights).get("device") == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


_FLEETS: dict[Options, Running] = {}
_LOCK = threading.Lock()


def resident(options: Options) -> Running:
    """The process's fleet of ``options``, started at the first call: DirectRunner sets a step up for every bundle."""
    with _LOCK:
        if options not in _FLEETS:
            _FLEETS[options] = start(options)
        return _FLEETS[options]
