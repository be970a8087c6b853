"""A small question that any healthy endpoint of its task answers: to look with, and to probe with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.models.inputs import Ask
from transforms.models.task_entry import TaskEntry


def small_ask(task: TaskEntry, parameters: Mapping[str, Any]) -> Ask | None:
    """Something small to ask any model of ``task``; None where there is nothing that all of them take."""
    if task.small is None:
        return None
    given = task.tried_with(parameters)
    if task.name == "text-generation":
        given["max_new_tokens"] = 1
    return Ask(task.small, given)
