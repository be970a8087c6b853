"""A transformers model converted for OpenVINO, kept on disk by what it was made of, and compiled for this CPU."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from transforms.models.backends import Source
from transforms.models.backends.lanes import on_lane
from transforms.models.files import hash_folder

_LOG = logging.getLogger(__name__)

#: What a model was called with, and what it gave.
Call = tuple[Mapping[str, torch.Tensor], Any]

#: Models that are kept converted, the latest used: each takes its weights' room on the disk.
_KEPT = 8

#: Shapes whose kernels are kept: its own default of 5,000 lets memory grow with every shape that a batch may have.
_SHAPES = "128"

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def unsupported(dtype: torch.dtype) -> str:
    """Why OpenVINO cannot compute in ``dtype`` on this CPU, or nothing."""
    if dtype == torch.float32 or (
        dtype == torch.bfloat16 and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    ):
        return ""
    return f"OpenVINO has no {str(dtype).removeprefix('torch.')} on this CPU"


class Outputs(dict[str, torch.Tensor]):
    """Outputs by name, as attributes and by place, as transformers' own."""

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> torch.Tensor:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class Converted:
    """A model, compiled by ``compiled``; for inputs like those of ``calls``, with which it is checked."""

    def __init__(self, compiled: Callable[[int], Any], calls: Sequence[Call], outputs: Sequence[str]) -> None:
        self._compiled: Callable[[int], Any] | None = compiled
        self._whole, self._beside = compiled(1), None
        self._requests = threading.local()
        self._outputs = outputs
        self._names = list(calls[0][0])
        self._shapes = {name: {call[name].shape[1:] for call, _ in calls} for name in self._names}
        self._longest = {
            name: max(call[name].shape[1] for call, _ in calls)
            for name in self._names
            if all(call[name].ndim == 2 for call, _ in calls)
        }

    def takes(self, inputs: Mapping[str, torch.Tensor]) -> bool:
        """Whether ``inputs`` are none but sequences no longer than the longest seen, and other shapes that were."""
        if list(inputs) != self._names:
            return False
        return all(
            tensor.ndim == 2 and tensor.shape[1] <= self._longest[name]
            if name in self._longest
            else tensor.shape[1:] in self._shapes[name]
            for name, tensor in inputs.items()
        )

    @property
    def copies(self) -> int:
        """How often it holds the weights."""
        return 1 if self._beside is None else 2

    def ready(self, lanes: int) -> None:
        """Readies it, once, for forwards on so many lanes at once; with 1, gives up what that took."""
        compiled, self._compiled = self._compiled, None  # which holds the weights that were converted
        self._requests = threading.local()
        self._beside = compiled(lanes) if lanes > 1 and compiled is not None else None

    def _request(self) -> Any:
        """This thread's own."""
        if not hasattr(self._requests, "own"):
            compiled = self._beside if on_lane() and self._beside is not None else self._whole
            self._requests.own = compiled.create_infer_request()
        return self._requests.own

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Outputs:
        plain = [(each.float() if each.dtype == torch.bfloat16 else each).numpy() for each in inputs.values()]
        request = self._request()
        request.infer(plain, share_inputs=True)
        # The request's own memory is written over by the next forward.
        found = (torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(len(self._outputs)))
        return Outputs(zip(self._outputs, found, strict=True))


def convert(module: Any, source: Source, dtype: torch.dtype, calls: Sequence[Call]) -> Converted:
    """``module``, the model of ``source`` in float32, for inputs like those of ``calls``, computing in ``dtype``."""
    inputs, given = max(calls, key=lambda call: len(next(iter(call[0].values()))))
    outputs = [name for name, value in given.items() if isinstance(value, torch.Tensor)]
    made = _kept(_key(module, source, inputs, outputs), lambda: _trace(module, inputs, outputs))

    def compiled(streams: int) -> Any:
        """For so many forwards at once, which share out the cores."""
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
            # A thread that is bound to a busy core waits for it, with another one free.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _SHAPES,
        }
        return _core().compile_model(made, "CPU", settings)

    return Converted(compiled, calls, outputs)


class _Plain(torch.nn.Module):
    """A model whose inputs and outputs are tensors by place."""

    def __init__(self, module: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self._module, self._inputs, self._outputs = module, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = self._module(**dict(zip(self._inputs, tensors, strict=True)))
        return tuple(made[name] for name in self._outputs)


def _trace(module: Any, inputs: Mapping[str, torch.Tensor], outputs: Sequence[str]) -> Any:
    import openvino

    with warnings.catch_warnings(), _log_as_it_is():
        warnings.simplefilter("ignore")  # of tracing in general: what it got wrong, the comparison finds
        return openvino.convert_model(_Plain(module, list(inputs), outputs), example_input=tuple(inputs.values()))


@contextlib.contextmanager
def _log_as_it_is() -> Iterator[None]:
    """OpenVINO lets the process log errors alone while it converts, and for good where it cannot."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _key(module: Any, source: Source, inputs: Mapping[str, torch.Tensor], outputs: Sequence[str]) -> str:
    """A name for all that a conversion is made of: the folder's files, what loads them, and who converts."""
    import openvino

    config = module.config.to_json_string(use_diff=False)
    parts = [
        hash_folder(source.folder),
        type(module).__name__,
        hashlib.sha256(config.encode()).hexdigest(),
        {name: str(tensor.dtype) for name, tensor in inputs.items()},
        list(outputs),
        [openvino.__version__, torch.__version__, transformers.__version__],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def cache() -> Path:
    """Where converted models are kept: below the user's cache, or in the folder that ``BEAM_HF_OPENVINO`` names."""
    named = os.environ.get("BEAM_HF_OPENVINO")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam-hf-inference" / "openvino"


def _kept(key: str, make: Callable[[], Any]) -> Any:
    """The conversion of that key from the disk, or made and put there; a disk that is full or torn costs only time."""
    where = cache()
    folder = where / key
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if where.stat().st_uid != os.getuid() or where.stat().st_mode & 0o022:
            raise OSError("others can write there")
    except OSError as error:
        _LOG.warning("converted models are not kept in %s, but made at each load: %s", where, error)
        return make()
    try:
        if (folder / "model.xml").exists():
            model = _core().read_model(folder / "model.xml")
            folder.touch()
            return model
    except (OSError, RuntimeError) as error:
        _LOG.warning("the converted model in %s cannot be read and is made again: %s", folder, str(error)[:200])
        shutil.rmtree(folder, ignore_errors=True)
    made = make()
    try:
        _keep(made, where, folder)
    except (OSError, RuntimeError) as error:
        _LOG.warning("the converted model is not kept in %s: %s", where, str(error)[:200])
    return made


def _keep(model: Any, where: Path, folder: Path) -> None:
    import openvino

    draft = Path(tempfile.mkdtemp(prefix=".", dir=where))
    try:
        # Half the weights' bytes would be other weights.
        openvino.save_model(model, draft / "model.xml", compress_to_fp16=False)
        with contextlib.suppress(OSError):  # another process was faster
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    kept = sorted((each for each in where.iterdir() if each.is_dir()), key=lambda each: each.stat().st_mtime)
    for each in kept[:-_KEPT]:
        shutil.rmtree(each, ignore_errors=True)
