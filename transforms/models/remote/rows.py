"""From a server's answer to the rows that were asked for: as many, each in the task's shape, all numbers finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transforms.models.errors import InvalidAnswer, NonFinite
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit
from transforms.models.remote.protocol import Server, one_each
from transforms.models.task_entry import TaskEntry


def read_rows(answer: Any, server: Server, task: TaskEntry, asks: Sequence[Ask]) -> list[Any]:
    """One prediction for each of ``asks``, or ``NonFinite`` where the model had no number for it, or
    ``InvalidAnswer`` where it is not what was asked for.

    Raises:
      Misfit: it is no answer to them; which row is to blame is not known.
    """
    try:
        own = server.read(answer, asks)
    except InvalidAnswer as error:
        return [error]  # of one: no server that generates takes several
    rows = [_row(task, one, ask) for one, ask in zip(one_each(own, asks), asks, strict=True)]
    widths = {row.shape[-1] for row in rows if isinstance(row, np.ndarray)}
    if len(widths) > 1:
        raise Misfit(f"expected rows of one width, got {', '.join(map(str, sorted(widths)))}")
    return rows


def _row(task: TaskEntry, answer: Any, ask: Ask) -> Any:
    try:
        return task.read(answer, ask)
    except (NonFinite, InvalidAnswer) as error:
        return error
