"""What a task is: input validation, pre-processing, one batched forward, post-processing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from transformers.models.auto import modeling_auto

from transforms.models.errors import ElementError, ModelLoadError, NonFinite
from transforms.models.pack import pack
from transforms.models.parameters import Parameter
from transforms.models.plan import Size


@dataclass(frozen=True, slots=True)
class Loading:
    """How to load a model: from where, and how it shall run."""

    folder: Path
    device: torch.device
    dtype: torch.dtype
    config: transformers.PreTrainedConfig
    refuse_too_long: bool = False
    time_limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One element as a task sees it: its inputs, and its validated parameters over the job's defaults."""

    inputs: Any
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One element, ready for a forward. ``rows`` is what the task's forward takes; ``size`` is what it costs."""

    ask: Ask
    rows: Any
    size: Size
    tokens: int | None = None
    truncated: bool = False


class Task(ABC):
    """One kind of model, loaded. Methods that take several elements may raise: the caller finds the culprit.

    ``auto`` pairs the transformers class that loads the model with the list of architectures that it loads.
    """

    name: ClassVar[str]
    modality: ClassVar[str] = "text"
    auto: ClassVar[tuple[tuple[str, str], ...]]
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    #: Whether a tokenizer must be there.
    reads_text: ClassVar[bool] = False
    #: Elements to pre-process at once; images and audio take memory long before they are in a forward.
    chunk: ClassVar[int] = 100_000
    #: Whether ``time_limit_s`` can be kept.
    takes_time_limit: ClassVar[bool] = False

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.config: Any = loading.config
        self.device = loading.device
        self.dtype = loading.dtype
        self.model: Any = self.load()
        self.model.eval()
        # A model that generates multiplies few rows at a time, and may be too large to be held twice.
        self.generates: bool = getattr(self.model, "can_generate", lambda: False)()
        if not self.generates:
            pack(self.model)

    @classmethod
    def architectures(cls) -> set[str]:
        """Names of the model classes that this task takes."""
        found: set[str] = set()
        for _, names in cls.auto:
            for value in getattr(modeling_auto, names).values():
                found.update([value] if isinstance(value, str) else value)
        return found

    def load(self) -> torch.nn.Module:
        """The model with its weights, on its device.

        Raises:
          ModelLoadError: the folder lacks weights that the task needs.
        """
        auto = self._auto_class()
        model, info = auto.from_pretrained(
            self.loading.folder,
            config=self.config,
            dtype=self.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        missing = sorted(key for key in info["missing_keys"] if not self.may_miss(key))
        if missing:
            raise ModelLoadError(
                f"the model lacks weights that {self.name} needs ({', '.join(missing[:3])}"
                f"{', …' if len(missing) > 3 else ''}); use a model trained for {self.name}"
            )
        return model.to(self.device)

    def may_miss(self, key: str) -> bool:
        """Whether the weight ``key`` is one that the task never reads."""
        return False

    def _auto_class(self) -> Any:
        given = set(self.config.architectures or ())
        for auto, names in self.auto:
            classes = getattr(modeling_auto, names).values()
            if given & {c for value in classes for c in ([value] if isinstance(value, str) else value)}:
                return getattr(transformers, auto)
        return getattr(transformers, self.auto[0][0])

    def check(self, inputs: Any) -> Any:
        """``inputs`` as ``prepare`` takes it; cheap.

        Raises:
          InvalidInput: it is not what the task takes.
        """
        return inputs

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:  # noqa: B027
        """What a parameter's own test cannot see: two that contradict each other, one that must be given.

        Raises:
          InvalidParameter: naming it.
        """

    @abstractmethod
    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        """Each element ready for a forward, or what is wrong with it."""

    def planned(self, prepared: Prepared) -> Size:
        """What ``prepared`` costs, and beside which others it may run."""
        return prepared.size

    @abstractmethod
    def forward(self, batch: Sequence[Prepared]) -> Any:
        """The model's output on ``batch``, on the CPU; one forward."""

    @abstractmethod
    def finish(self, outputs: Any, batch: Sequence[Prepared]) -> list[Any]:
        """One prediction, or ``ElementError``, each."""


class Watch:
    """Sees whether a model's outputs held NaN or plus infinity, which a pipeline turns into an empty list or a text.

    Minus infinity is a masked token.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.seen = False
        model.register_forward_hook(self._look)

    def _look(self, model: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        found = (
            outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple) else [outputs]
        )
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
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


_FUNCTIONS = {"softmax": softmax, "sigmoid": sigmoid, "none": lambda logits: logits}


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


def non_finite() -> NonFinite:
    """The failure of an element whose output is not a number."""
    return NonFinite("the model's output holds NaN or infinity; try --dtype=float32, or look at this input")


def finite_rows(values: np.ndarray) -> np.ndarray | None:
    """Which rows of ``values`` are finite, or None when all are: one pass in the usual case."""
    if np.isfinite(values).all():
        return None
    return np.isfinite(values.reshape(len(values), -1)).all(axis=1)


def top(scores: np.ndarray, k: int | None, labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """The ``k`` best labels (all for None) of one row, best first, as ``{"label", "score"}``."""
    if k == 1:
        best = int(scores.argmax())
        return [{"label": labels[best], "score": float(scores[best])}]
    order = np.argsort(-scores, kind="stable")[:k]
    return [{"label": labels[int(i)], "score": float(scores[i])} for i in order]
