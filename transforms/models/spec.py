"""What a model is and how it runs, in one frozen value: what a handler is made from and a loaded model is kept by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.models.backends import ENGINES
from transforms.models.errors import InvalidParameter, ModelLoadError, brief, foreign
from transforms.models.parameters import validate
from transforms.models.task_entry import TaskEntry

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ON_TOO_LONG = ("truncate", "dead_letter", "chunk")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Names a model and says how it shall run. Hashable, and holds no secret: a token is no part of it.

    ``parameters`` are the defaults of every message's, as :func:`freeze` writes them. The other fields are the
    arguments of ``HuggingFaceModelHandler``.

    Raises:
      ModelLoadError: a value cannot be; the text names the field.
    """

    model: str
    task: str | None = None
    revision: str | None = None
    parameters: str = "{}"
    engine: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    max_batch_size: int = 512
    max_batch_tokens: int | None = None
    on_too_long: str = "truncate"
    model_copies: int = 1
    time_limit_s: float | None = None
    max_deaths: int = 2
    max_forward_s: float | None = None

    def __post_init__(self) -> None:
        engines = ("auto", *ENGINES)
        known_device = self.device in DEVICES or self.device.removeprefix("cuda:").isdigit()
        for name, known, allowed in (
            ("model", bool(self.model), "a hub id, a local folder or a gs:// folder"),
            ("engine", self.engine in engines, ", ".join(engines)),
            ("device", known_device, "auto, cpu, cuda or cuda:N"),
            ("dtype", self.dtype in DTYPES, ", ".join(DTYPES)),
            ("on_too_long", self.on_too_long in ON_TOO_LONG, ", ".join(ON_TOO_LONG)),
            ("max_batch_size", self.max_batch_size >= 1, "1 or more"),
            ("max_batch_tokens", self.max_batch_tokens is None or self.max_batch_tokens >= 1, "1 or more"),
            ("model_copies", self.model_copies >= 1, "1 or more"),
            ("max_deaths", self.max_deaths >= 1, "1 or more"),
            ("max_forward_s", self.max_forward_s is None or self.max_forward_s > 0, "over 0"),
            ("time_limit_s", self.time_limit_s is None or self.time_limit_s > 0, "over 0"),
        ):
            if not known:
                raise ModelLoadError(f"`{name}={getattr(self, name)}`: must be {allowed}")

    def defaults(self, entry: TaskEntry) -> dict[str, Any]:
        """The parameters of every message, if this spec is one for ``entry``.

        Raises:
          ModelLoadError: the task has no such parameter, or cannot keep the time limit.
        """
        if self.time_limit_s is not None and not entry.stops:
            raise ModelLoadError(f"`time_limit_s={self.time_limit_s}`: {entry.name} cannot be stopped; leave it out")
        if self.on_too_long == "chunk" and "chunk" not in entry.parameters:
            raise ModelLoadError(
                f"`on_too_long=chunk`: {entry.name} cuts no text into chunks, feature-extraction does;"
                " use truncate or dead_letter"
            )
        return thaw(self.parameters, entry)


def freeze(parameters: Mapping[str, Any] | None) -> str:
    """``parameters`` as JSON, the same for equal ones whatever their order.

    Raises:
      ModelLoadError: they are not what JSON can hold.
    """
    try:
        return json.dumps(dict(parameters or {}), sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(
            f"`parameters`: {foreign(brief(parameters))} is not JSON ({foreign(str(error))}); give names and values"
        ) from None


def thaw(parameters: str, entry: TaskEntry) -> dict[str, Any]:
    """What :func:`freeze` wrote, as ``entry`` takes it.

    Raises:
      ModelLoadError: it does not.
    """
    try:
        return validate(json.loads(parameters), entry.parameters, entry.name)
    except InvalidParameter as error:
        raise ModelLoadError(f"`parameters`: {error}") from None
