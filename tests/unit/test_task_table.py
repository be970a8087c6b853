"""The task table: one line a task, held against the adapters, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transforms.models.errors import InvalidInput, InvalidParameter, ModelLoadError
from transforms.models.parameters import validate
from transforms.models.task_table import ALIASES, TASKS, TaskEntry, endpoint_task, find
from transforms.models.tasks.adapters import ADAPTERS

ROOT = Path(__file__).parents[2]


def test_the_table_costs_neither_torch_nor_transformers() -> None:
    """Reading the table, and what an endpoint is asked and answers, imports no model library."""
    code = (
        "import sys, transforms.models.task_table, transforms.models.remote.protocol, transforms.models.remote.probe;"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_every_task_with_weights_has_its_adapter() -> None:
    """A line without its adapter, or an adapter without its line, does not go unnoticed."""
    assert list(ADAPTERS) == [name for name, entry in TASKS.items() if entry.weights]
    assert all(adapter.entry is TASKS[name] for name, adapter in ADAPTERS.items())


def test_the_tasks_that_no_endpoint_has() -> None:
    """An endpoint is asked only where the table knows the shape of its answer; others are refused with the list."""
    without = {name for name, entry in TASKS.items() if entry.shape is None}
    assert without == {
        "depth-estimation",
        "text-to-audio",
        "zero-shot-audio-classification",
        "zero-shot-object-detection",
    }
    for name in (*without, "no-such-task", None):
        with pytest.raises(ModelLoadError, match="not a task for an endpoint; there are: audio-classification"):
            endpoint_task(name)


@pytest.mark.parametrize("entry", [entry for entry in TASKS.values() if entry.small is not None], ids=lambda e: e.name)
def test_what_an_endpoint_is_tried_with_is_an_input_of_its_task(entry: TaskEntry) -> None:
    """The probe's question passes the task's own check, so that a refusal speaks of the endpoint."""
    assert entry.check(entry.small) == entry.small


@pytest.mark.parametrize("entry", TASKS.values(), ids=lambda e: e.name)
def test_wrong_inputs_and_parameters_are_refused_by_the_table_alone(entry: TaskEntry) -> None:
    """Every task refuses a number, an unknown parameter, and the lack of a needed one, before any model is there."""
    with pytest.raises(InvalidInput, match="inputs=7"):
        entry.check(7)
    with pytest.raises(InvalidParameter, match=f"{entry.name} has no such parameter"):
        validate({"bogus": 1}, entry.parameters, entry.name)
    assert set(entry.needed) <= entry.parameters.keys()
    for name in entry.needed:
        with pytest.raises(InvalidParameter, match=f"parameters.{name}: needed by {entry.name}"):
            entry.require({})


def test_aliases_lead_to_tasks() -> None:
    """Another name finds the same line, and no alias hides a task's own name."""
    assert find("ner") is TASKS["token-classification"] and find("sentiment-analysis") is TASKS["text-classification"]
    assert not ALIASES.keys() & TASKS.keys() and find(None) is None and find("nothing") is None
