"""Plants messages that kill the process that answers them, in any Python that has this folder on its path.

A text such as ``killer: segfault`` does so in the model's forward, wherever that runs: in the job's own process, or in
the workers of another runner. PLANTED_LEASE_S shortens the leases of what a dead process held, PLANTED_LIMIT_S is how
long a forward may take.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.abc
import os
import re
import signal
import sys
import time
from typing import Any

KILLERS = {
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "hang": lambda: time.sleep(3_600),
    # Native code that neither ends nor lets other threads run.
    "spin": lambda: re.match(r"(a+)+$", "a" * 200 + "b"),
    "memory": lambda: [bytearray(64 << 20).replace(b"\0", b"\1") for _ in range(1_000)],
}


def _kill(inputs: Any) -> None:
    found = re.search(r"killer: (\w+)", str(inputs)[:1_000])
    if found:
        KILLERS[found[1]]()


def _plant_forward(module: Any) -> None:
    made = module.LoadedModel.__init__

    def init(self: Any, task: Any, *rest: Any) -> None:
        made(self, task, *rest)
        forward = task.forward

        def killing(batch: Any) -> Any:
            for one in batch:
                _kill(one.ask.inputs)
            return forward(batch)

        task.forward = killing

    module.LoadedModel.__init__ = init


def _plant_watch(module: Any) -> None:
    module._GRACE_S = 5.0
    made = module.Supervisor.__init__

    def init(self: Any, journal: Any, limit_s: float | None = None, *rest: Any) -> None:
        made(self, journal, float(os.environ["PLANTED_LIMIT_S"]) if "PLANTED_LIMIT_S" in os.environ else limit_s, *rest)

    module.Supervisor.__init__ = init


def _plant_leases(module: Any) -> None:
    module.LEASE_S = int(os.environ.get("PLANTED_LEASE_S", module.LEASE_S))
    module.RENEW_S = max(1, module.LEASE_S // 3)


_PLANTS = {
    "transforms.models.loaded_model": _plant_forward,
    "transforms.models.supervise": _plant_watch,
    "pipeline.direct.leases": _plant_leases,
}


def plant_now() -> None:
    """Plants in what is imported already."""
    for name, plant in _PLANTS.items():
        plant(importlib.import_module(name))


class _Planter(importlib.abc.MetaPathFinder):
    """Finds a module as the others do, and plants in it once it has run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        plant = _PLANTS.get(name)
        if plant is None:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(spec for spec in found if spec is not None)
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            plant(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Planter())
