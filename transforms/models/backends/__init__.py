"""Engines: what loads a model's weights, and runs its forwards.

To add one: a module here with its ``ENGINE``, and a line in :data:`ENGINES`. Tensors that go in and come out are
torch's, whatever an engine makes of them. Imports no torch: an engine's module is imported once it is picked.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transforms.models.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

    from transforms.models.spec import ModelSpec
    from transforms.models.task_entry import TaskEntry

_LOG = logging.getLogger(__name__)

#: The module of each engine; ``auto`` picks the first that takes the task.
ENGINES = {"openvino": "transforms.models.backends.openvino", "torch": "transforms.models.backends.torch"}

#: Parameters below which neither another engine nor forwards side by side are tried: such a model's forward is calls
#: more than products, and is over before the seconds that a conversion takes are won back.
LEAST_PARAMETERS = 5_000_000
#: Tasks whose answer is one forward of the model.
ONE_FORWARD = frozenset(
    (
        "text-classification",
        "token-classification",
        "zero-shot-classification",
        "fill-mask",
        "question-answering",
        "feature-extraction",
        "sentence-similarity",
        "text-ranking",
        "image-classification",
        "image-feature-extraction",
        "audio-classification",
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model runs, in which number format it is given images and sounds, and how many copies share the place."""

    device: torch.device
    dtype: torch.dtype
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be loaded: the model of ``folder``, as ``task`` needs it.

    ``auto`` pairs the transformers class that loads the model with the list of architectures that it loads;
    ``may_miss`` tells whether the folder may lack a weight, by its name.
    """

    folder: Path
    config: Any
    task: str
    auto: tuple[tuple[str, str], ...]
    may_miss: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Probe:
    """A task's own inputs to try its model with.

    ``answers`` is what the model makes of short and long ones, alone and together; ``turn`` is one forward of the usual
    size; ``changes`` says whether a forward leaves something in the model.
    """

    answers: Callable[[], list[torch.Tensor]]
    turn: Callable[[], list[torch.Tensor]]
    changes: bool


class Model(ABC):
    """A model in memory.

    ``module`` is the transformers model itself, for what more than one forward is needed: generation, and tasks on
    ``transformers.pipeline``. An engine that has none refuses these tasks. ``generates`` says whether it can.
    ``engine`` is the name of what ran this thread's last forward.
    """

    module: Any = None
    generates: bool = False
    engine: str = "torch"

    @abstractmethod
    def forward(self, **inputs: torch.Tensor) -> Any:
        """One forward; its outputs have the names that the transformers model gives them."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Any]:
        """What all of a task's computing for one micro-batch happens in."""

    @abstractmethod
    def positions(self) -> int | None:
        """The longest row of tokens that it has positions for; None where it has no table of them."""

    def bytes(self) -> int:
        """What the weights take in memory, once however many layers share them."""
        module = self.module
        tensors = [*module.parameters(), *module.buffers()] if module is not None else []
        return sum({each.data_ptr(): each.nbytes for each in tensors}.values())

    def ready(self, lanes: int) -> None:
        """Readies it for forwards on so many threads at once, each on a core of its own; 1 gives up what that took.

        Raises:
          RuntimeError: it cannot do that.
        """
        if lanes > 1 and any(each.device.type != "cpu" for each in self.module.parameters()):
            raise RuntimeError("it is not on the CPU")

    def settle(self, probe: Probe, asked: bool) -> Model:
        """The model to answer with, once its task is ready: itself, or one that was tried against it and is better.

        ``asked`` says that its engine was asked for by name.
        """
        return self


class Engine(ABC):
    """One way to load models and to run them."""

    name: str

    def refusal(self, entry: TaskEntry) -> str:
        """Why this engine cannot run a task, in a few words; empty where it can."""
        return ""

    @abstractmethod
    def place(self, spec: ModelSpec) -> Place:
        """Readies this process for models, and settles where and in which format ``spec``'s runs.

        Raises:
          ModelLoadError: it cannot run there.
        """

    @abstractmethod
    def load(self, source: Source, place: Place) -> Model:
        """The model, ready for forwards.

        Raises:
          ModelLoadError: the folder lacks weights that the task needs.
        """


def pick_engine(asked: str, entry: TaskEntry) -> Engine:
    """The engine of that name; for ``auto`` the first that takes the task.

    Raises:
      ModelLoadError: it does not take the task.
    """
    why = ""
    for name in ENGINES if asked == "auto" else (asked,):
        engine: Engine = importlib.import_module(ENGINES[name]).ENGINE
        why = engine.refusal(entry)
        if not why:
            return engine
        if asked == "auto":
            _LOG.info("%s is not used: %s", name, why)
    raise ModelLoadError(f"`engine={asked}`: cannot run {entry.name}: {why}; leave `engine` out, or use another")
