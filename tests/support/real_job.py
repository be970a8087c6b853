"""The real job with a real model, forked from a process that has imported all that takes long."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers  # noqa: F401 - imported once, before the fork
from fake_job import Behaviour

import pipeline.main
import transforms.models.handler
import transforms.models.tasks.adapters  # noqa: F401 - the same


def run_with_killers(argv: Sequence[str], how: Behaviour) -> int:
    """The same, with messages planted that kill it (``killers/sitecustomize.py``), and leases as ``how`` has them."""
    path = Path(__file__).parent / "killers" / "sitecustomize.py"
    spec = importlib.util.spec_from_file_location("planted_killers", path)
    assert spec is not None and spec.loader is not None
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    os.environ["PLANTED_LEASE_S"] = str(how.lease_s)
    planted.plant_now()
    return run(argv, how)


def run(argv: Sequence[str], how: Behaviour) -> int:
    """Runs the job in this process and returns its exit code."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return pipeline.main.main(argv)
