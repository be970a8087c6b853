"""What a task is: input validation, pre-processing, one batched forward, post-processing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from transforms.models.backends import Engine, Place, Source
from transforms.models.backends.architectures import model_classes
from transforms.models.batching import Size
from transforms.models.errors import ElementError, NonFinite, NotYet
from transforms.models.inputs import Ask
from transforms.models.inside import stretched
from transforms.models.sharing import Sharing
from transforms.models.spec import ModelSpec
from transforms.models.task_entry import TaskEntry

if TYPE_CHECKING:
    from transforms.models.backends.lanes import Lanes


@dataclass(frozen=True, slots=True)
class Loading:
    """How to load a model: from where, on which engine, and how it shall run."""

    folder: Path
    config: Any
    spec: ModelSpec
    engine: Engine
    place: Place

    @property
    def refuse_too_long(self) -> bool:
        """Whether an input over the model's maximum is a failure, not cut."""
        return self.spec.on_too_long == "dead_letter"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One element, ready for a forward. ``rows`` is what the task's forward takes; ``size`` is what it costs."""

    ask: Ask
    rows: Any
    size: Size
    tokens: int | None = None
    truncated: bool = False
    #: Where each row stands in its text, for each of the message's texts, where they were cut into chunks.
    spans: Sequence[Sequence[tuple[int, int]]] | None = None


class Task(ABC):
    """One kind of model, loaded. Methods that take several elements may raise: the caller finds the culprit.

    ``entry`` is the task's line in the table; ``auto`` pairs the transformers class that loads the model with the list
    of architectures that it loads.
    """

    entry: ClassVar[TaskEntry]
    auto: ClassVar[tuple[tuple[str, str], ...]]
    #: Whether a tokenizer must be there.
    reads_text: ClassVar[bool] = False
    #: Where several forwards run at once; None where one does, on all cores.
    lanes: Lanes | None = None
    #: Elements to pre-process at once; images and audio take memory long before they are in a forward.
    chunk: ClassVar[int] = 100_000

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.config: Any = loading.config
        self.device, self.dtype = loading.place.device, loading.place.dtype
        source = Source(loading.folder, loading.config, self.entry.name, self.auto, self.may_miss)
        self.model = loading.engine.load(source, loading.place)
        #: Which elements may share a forward, as it was measured.
        self.sharing = Sharing(even=stretched(self.model.module))

    @classmethod
    def architectures(cls) -> set[str]:
        """Names of the model classes that this task takes."""
        return set().union(*(model_classes(names) for _, names in cls.auto))

    def may_miss(self, key: str) -> bool:
        """Whether the weight ``key`` is one that the task never reads."""
        return False

    def check(self, inputs: Any) -> Any:
        """``inputs`` as ``prepare`` takes it; cheap.

        Raises:
          InvalidInput: it is not what the task takes.
        """
        return self.entry.check(inputs)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:  # noqa: B027
        """What the table cannot see: parameters that contradict each other, or do not fit the model.

        Raises:
          InvalidParameter: naming it.
        """

    @abstractmethod
    def prepare(self, asks: Sequence[Ask]) -> Sequence[Prepared | ElementError | NotYet]:
        """Each element ready for a forward, or what is wrong with it; the first is never ``NotYet``."""

    def planned(self, prepared: Prepared) -> Size:
        """What ``prepared`` costs, and beside which others it may run."""
        group = self.sharing.group(prepared.size.length, prepared.tokens)
        return prepared.size if group is None else replace(prepared.size, group=(prepared.size.group, group))

    @abstractmethod
    def forward(self, batch: Sequence[Prepared]) -> Any:
        """The model's output on ``batch``, on the CPU; one forward."""

    @abstractmethod
    def finish(self, outputs: Any, batch: Sequence[Prepared]) -> list[Any]:
        """One prediction, or ``ElementError``, each."""

    def tokens_written(self, output: Any) -> int | None:
        """How many tokens the model wrote for one element, by its ``output``; None of a task that writes none."""
        return None


class Watch:
    """Sees whether a model's outputs held NaN or plus infinity, which a pipeline turns into an empty list or a text.

    Minus infinity is a masked token.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.seen = False
        model.register_forward_hook(self._look)

    def _look(self, model: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        if isinstance(outputs, Mapping):
            # What an encoder proposes is no answer yet, and detectors mark with infinity where there is nothing.
            found = [value for name, value in outputs.items() if not name.startswith("enc_")]
        else:
            found = list(outputs) if isinstance(outputs, tuple) else [outputs]
        for each in found:
            if isinstance(each, torch.Tensor) and each.is_floating_point():
                self.seen = self.seen or bool((each.isnan() | each.isposinf()).any())


@dataclass(slots=True)
class Scores:
    """Turns logits into scores, once for each function that a micro-batch's messages ask for."""

    logits: np.ndarray
    _done: dict[str, np.ndarray] = field(default_factory=dict)

    def by(self, function: str) -> np.ndarray:
        """``logits`` through ``softmax`` or ``sigmoid`` over the last axis, or as they are with ``none``."""
        if function not in self._done:
            self._done[function] = _FUNCTIONS[function](self.logits)
        return self._done[function]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    powers: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    scores: np.ndarray = np.exp(-np.logaddexp(0, -logits))
    return scores


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda logits: logits,
}


def label_function(config: Any) -> str:
    """The function that turns a classifier's logits into scores, by what the model was trained for."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """``tensor`` on the CPU in float32."""
    return tensor.float().cpu().numpy()


def by_row(outputs: Any, count: int) -> list[torch.Tensor]:
    """The arrays and tensors that a task's ``outputs`` hold for each of ``count`` rows, a row's own together.

    Raises:
      ValueError: one holds another number of rows.
    """
    several = [each for each in (outputs if isinstance(outputs, (tuple, list)) else [outputs]) if each is not None]
    if any(len(each) != count for each in several):
        raise ValueError(f"{len(several[0])} answers to {count} inputs")
    return [torch.as_tensor(each[i]) for i in range(count) for each in several]


def non_finite() -> NonFinite:
    """The failure of an element whose output is not a number."""
    return NonFinite("the model's output holds NaN or infinity; try dtype=float32, or look at this input")


def finite_rows(values: np.ndarray) -> np.ndarray | None:
    """Which rows of ``values`` are finite, or None when all are: one pass in the usual case."""
    if np.isfinite(values).all():
        return None
    rows: np.ndarray = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return rows


def top(scores: np.ndarray, k: int | None, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """The ``k`` best labels (all for None) of one row, best first, as ``{"label", "score"}``."""
    if k == 1:
        best = int(scores.argmax())
        return [{"label": labels[best], "score": float(scores[best])}]
    order = np.argsort(-scores, kind="stable")[:k]
    return [{"label": labels[int(i)], "score": float(scores[i])} for i in order]
