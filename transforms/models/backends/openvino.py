"""The engine for CPUs that OpenVINO is faster on: torch's model, converted when it is loaded and checked against torch.

Torch's model stays beside it: it answers what was not checked (a text longer than any probe, an image of another size),
and everything where OpenVINO cannot convert the model, gives other answers, or gains nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from transforms.models import memory
from transforms.models.backends import LEAST_PARAMETERS, ONE_FORWARD, Engine, Model, Place, Probe, Source
from transforms.models.backends.convert import Call, Converted, convert, unsupported
from transforms.models.backends.device import times_faster
from transforms.models.backends.pack import unpack, unpacked
from transforms.models.backends.remembered import choice
from transforms.models.backends.torch import ENGINE as TORCH
from transforms.models.errors import ModelLoadError
from transforms.models.files import hash_folder
from transforms.models.sharing import distance

if TYPE_CHECKING:
    from transforms.models.spec import ModelSpec
    from transforms.models.task_entry import TaskEntry

_LOG = logging.getLogger(__name__)

#: How far the answers may lie from torch's, as a share of their size: rounding in float32 is a thousandth of it.
FLOAT32_TOLERANCE = 3.5e-4
#: In bfloat16 both are compared with float32: OpenVINO's may lie so many times as far from it as torch's.
BFLOAT16_TOLERANCE = 1.5

#: How many times faster it must be for ``auto``: what is held twice should be worth it.
_WORTH_IT = 1.05


class OpenVINOModel(Model):
    """Torch's ``real`` model until :meth:`settle` has put its conversion in its place."""

    _NAME = "openvino"

    def __init__(self, real: Model, source: Source, place: Place) -> None:
        self.real = real
        self.module, self.generates = real.module, real.generates
        self._source, self._place = source, place
        self._last = threading.local()
        self._converted: Converted | None = None
        self._calls: list[Call] | None = None

    @property
    def engine(self) -> str:  # type: ignore[override]
        return getattr(self._last, "engine", self._NAME)

    def forward(self, **inputs: torch.Tensor) -> Any:
        converted = self._converted
        if converted is not None and converted.takes(inputs):
            self._last.engine = self._NAME
            return converted.forward(inputs)
        self._last.engine = "torch"
        outputs = self.real.forward(**inputs)
        if self._calls is not None:
            self._calls.append((inputs, outputs))
        return outputs

    def bytes(self) -> int:
        # What was converted is held beside what it was converted from.
        return self.real.bytes() + super().bytes() * (self._converted.copies if self._converted else 0)

    def running(self) -> AbstractContextManager[Any]:
        return self.real.running()

    def positions(self) -> int | None:
        return self.real.positions()

    def ready(self, lanes: int) -> None:
        free = memory.available() / 2 / self._place.copies
        if lanes > 1 and self.bytes() + super().bytes() > free:
            raise RuntimeError("its weights once more would take over half of the memory")
        if self._converted is not None:
            self._converted.ready(lanes)

    def settle(self, probe: Probe, asked: bool) -> Model:
        size = sum(each.numel() for each in self.module.parameters())
        if not asked and size < LEAST_PARAMETERS:
            return self.real
        started = time.perf_counter()

        def decide() -> tuple[str, str]:
            why = self._tried(probe, timed=True)
            return (self.real.engine, why) if why else (self._NAME, "")

        if asked:
            why = self._tried(probe, timed=False)
        else:
            picked, why = choice(self._about(), (self._NAME, self.real.engine), decide)
            if picked == self._NAME:
                why = "" if self._converted else self._tried(probe, timed=False)
        _LOG.info("%s (%.1f s)", f"torch answers: {why}" if why else "OpenVINO answers", time.perf_counter() - started)
        if not why:
            return self
        self._converted = None
        return self.real

    def _about(self) -> str:
        """What the choice of an engine depends on, beside the machine."""
        version = importlib.metadata.version("openvino")
        return f"engine for {hash_folder(self._source.folder)}, {self._source.task}, {self._place.dtype}, {version}"

    def _tried(self, probe: Probe, timed: bool) -> str:
        """Puts a conversion in place; why torch should answer after all, or nothing."""
        try:
            return self._try(probe, timed)
        except Exception as error:  # noqa: BLE001 (whatever a conversion cannot do, torch can)
            first = (str(error).strip().splitlines() or [""])[0]
            return f"OpenVINO cannot take this model ({type(error).__name__}: {first[:200]})"

    def _try(self, probe: Probe, timed: bool) -> str:
        dtype = self._place.dtype
        why = "a forward changes the model" if probe.changes else unsupported(dtype)
        if why:
            return why
        answers, calls = self._recorded(probe)
        expected, original, limit = answers, self.module, FLOAT32_TOLERANCE
        if dtype != torch.float32:
            original = TORCH.load(self._source, dataclasses.replace(self._place, dtype=torch.float32)).module
            with self._instead(original):
                expected = probe.answers()
            limit = BFLOAT16_TOLERANCE * distance(expected, answers)
        with unpacked(original):
            self._converted = converted = convert(original, self._source, dtype, calls)
        found = probe.answers()
        if self.engine != self._NAME:
            return "OpenVINO does not take the model's inputs"
        far = distance(expected, found)
        if not far <= limit:
            return f"OpenVINO's answers lie {far:.3%} from torch's, more than {limit:.3%}"
        if timed:
            gain = times_faster(self._with(None, probe.turn), self._with(converted, probe.turn))
            if gain < _WORTH_IT:
                return f"OpenVINO is {gain:.2f} times as fast"
        unpack(self.module)
        return ""

    def _recorded(self, probe: Probe) -> tuple[list[torch.Tensor], list[Call]]:
        """Torch's answers, and what its model was called with."""
        calls: list[Call] = []
        self._calls = calls
        try:
            return probe.answers(), calls
        finally:
            self._calls = None

    @contextmanager
    def _instead(self, module: Any) -> Iterator[None]:
        """``module`` answers in place of torch's own."""
        own, self.real.module = self.real.module, module
        try:
            yield
        finally:
            self.real.module = own

    def _with(self, converted: Converted | None, turn: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            self._converted = converted
            return turn()

        return run


class OpenVINOEngine(Engine):
    """OpenVINO on a CPU, in float32 or bfloat16; on any other device torch itself."""

    name = "openvino"

    def refusal(self, entry: TaskEntry) -> str:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed (pip install 'beam-hf-inference[openvino]')"
        return "" if entry.name in ONE_FORWARD else "its answer is more than one forward of the model"

    def place(self, spec: ModelSpec) -> Place:
        if spec.engine != self.name:
            return TORCH.place(spec)
        if spec.device.startswith("cuda"):
            raise ModelLoadError(f"`device={spec.device}`: OpenVINO runs on the CPU here; use `device=cpu`, or torch")
        return TORCH.place(dataclasses.replace(spec, device="cpu"))

    def load(self, source: Source, place: Place) -> Model:
        model = TORCH.load(source, place)
        return OpenVINOModel(model, source, place) if place.device.type == "cpu" else model


ENGINE = OpenVINOEngine()
