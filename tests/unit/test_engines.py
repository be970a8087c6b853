"""The seam for engines: another one is a module and a line, and a task runs on it without knowing."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_models as tiny

from transforms.models import backends
from transforms.models.backends import Engine, Model, Place, Source
from transforms.models.backends.torch import ENGINE as TORCH
from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.spec import ModelSpec
from transforms.models.task_table import TaskEntry
from transforms.records import Prediction, Request

TASKS = Path(backends.__file__).parents[1] / "tasks"


class ToyModel(Model):
    """Another engine's model: torch's answers, with every forward written down, and no module to reach past it."""

    forwards: list[list[str]] = []

    def __init__(self, real: Model) -> None:
        self.real = real

    def forward(self, **inputs: Any) -> Any:
        self.forwards.append(sorted(inputs))
        return self.real.forward(**inputs)

    def running(self) -> AbstractContextManager[Any]:
        return self.real.running()

    def positions(self) -> int | None:
        return self.real.positions()


class ToyEngine(Engine):
    """An engine for two tasks."""

    name = "toy"

    def refusal(self, entry: TaskEntry) -> str:
        return "" if entry.name in ("text-classification", "image-classification") else "it only classifies"

    def place(self, spec: ModelSpec) -> Place:
        return TORCH.place(spec)

    def load(self, source: Source, place: Place) -> Model:
        return ToyModel(TORCH.load(source, place))


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy among the engines, before torch."""
    module = ModuleType("toy_engine")
    module.ENGINE = ToyEngine()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_engine", module)
    monkeypatch.setattr("transforms.models.resident._models", {})  # another test's model may have the same spec
    engines = dict(backends.ENGINES)
    backends.ENGINES.clear()
    backends.ENGINES.update({"toy": "toy_engine", **engines})
    ToyModel.forwards.clear()
    yield
    backends.ENGINES.clear()
    backends.ENGINES.update(engines)


def answer(folder: str, inputs: Any, task: str | None = None, **options: Any) -> Any:
    """The prediction for one input."""
    handler = HuggingFaceModelHandler(folder, task, dtype="float32", **options)
    (outcome,) = handler.run_inference([Request(inputs)], handler.load_model())
    assert isinstance(outcome, Prediction), outcome
    return outcome.prediction


@pytest.mark.parametrize("engine", ["toy", "auto"])
@pytest.mark.usefixtures("_toy")
def test_a_task_runs_on_another_engine(engine: str) -> None:
    """Every forward goes through the engine that was asked for, or is the first to take the task; answers are alike."""
    image = tiny.png(tiny.picture())
    assert answer(tiny.sentiment(), "the order", engine=engine) == answer(tiny.sentiment(), "the order", engine="torch")
    assert answer(tiny.animals(), image, engine=engine) == answer(tiny.animals(), image, engine="torch")
    # A model of texts is measured when it is loaded.
    seen = [names for names, _ in itertools.groupby(ToyModel.forwards)]
    assert seen == [["attention_mask", "input_ids", "token_type_ids"], ["pixel_values"]]


@pytest.mark.usefixtures("_toy")
def test_a_task_that_an_engine_does_not_take() -> None:
    """Asked for by name it is refused, with the engine's own words; auto goes on to the next engine."""
    handler = HuggingFaceModelHandler(tiny.masked(), engine="toy")
    with pytest.raises(ModelLoadError, match="`engine=toy`: cannot run fill-mask: it only classifies"):
        handler.load_model()
    assert answer(tiny.masked(), "the [MASK] was late")
    assert ToyModel.forwards == []


def test_no_task_calls_a_model_past_its_engine() -> None:
    """``self.model`` is called through ``forward`` alone; who needs the module itself takes it once, and says why."""
    for path in TASKS.glob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) != "self.model", f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "self.model.module":
                before = text.splitlines()[max(0, node.lineno - 4) : node.lineno]
                assert any(line.lstrip().startswith("#") for line in before), f"{path.name}:{node.lineno} has no reason"
