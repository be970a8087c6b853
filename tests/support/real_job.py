"""The real job with a real model, forked from a process that has imported all that takes long."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import transformers  # noqa: F401 - imported once, before the fork
from fake_job import Behaviour

import pipeline.main
import transforms.models.handler
import transforms.models.tasks.adapters  # noqa: F401 - the same


def run(argv: Sequence[str], how: Behaviour) -> int:
    """Runs the job in this process and returns its exit code."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return pipeline.main.main(argv)
