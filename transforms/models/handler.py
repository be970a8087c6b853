"""The Hugging Face model as a RunInference ``ModelHandler``: any task, one outcome for every element."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.models import load
from transforms.models.device import DEVICES, DTYPES, bound_kernel_caches, pick_device, pick_dtype, share_threads
from transforms.models.engine import Answers, Engine
from transforms.models.errors import InvalidParameter, ModelLoadError
from transforms.models.isolate import Budget
from transforms.models.parameters import validate
from transforms.records import Failure, ModelInfo, Prediction, Request

_LOG = logging.getLogger(__name__)
_NAMESPACE = "HuggingFaceModelHandler"

#: Requests gathered before they are planned: more than any micro-batch, so that lengths can be matched.
_GATHER = {"text": 1024, "image": 128, "audio": 128}

#: Padded tokens a micro-batch. On MiniLM a CPU without AMX does 345 texts a second with 1,024 and 312 with 4,096;
#: with AMX both do alike. A GPU wants more at once.
_MAX_TOKENS = {"cpu": 1024, "cuda": 65536}

#: Tokens of padding that cost a CPU what one more forward does (MiniLM and BERT base: 64). On a GPU, where a forward's
#: launch weighs more, it was not measured and has no bound; nor in a task that generates, with many forwards an answer.
_MAX_PADDING = {"cpu": 64, "cuda": None}

# DirectRunner sets a DoFn up for every bundle, and Beam itself holds a model by a weak reference only: without this one
# every bundle would load the model again.
_RESIDENT: dict[tuple[Any, ...], Engine] = {}
_LOCKS: dict[tuple[Any, ...], threading.Lock] = {}
_REGISTRY = threading.Lock()

_COUNTERS = {
    name: Metrics.counter(_NAMESPACE, name)
    for name in (
        "predictions",
        "failures",
        "forwards",
        "bisections",
        "out_of_memory",
        "truncated",
        "tokens",
        "padding",
        "padding_saved",
    )
}
_BATCH_MS = Metrics.distribution(_NAMESPACE, "batch_ms")
_MODEL_LOAD_MS = Metrics.distribution(_NAMESPACE, "model_load_ms")
#: Loads that no batch has told of yet: a model is loaded where Beam counts nothing.
_LOADS: list[float] = []

#: What ``padding_saved`` compares with: batches of this many elements, in the order in which they came.
_PLAIN_BATCH = 32


class HuggingFaceModelHandler(ModelHandler[Request, Prediction | Failure, Engine]):
    """Runs a Hugging Face model over ``Request`` elements; each becomes one ``Prediction`` or one ``Failure``.

    An element that cannot be answered (wrong inputs, an unknown parameter, too long, the model raises on it) is a
    ``Failure`` that says why; all others of its batch are answered. Batches are cut into micro-batches of similar
    length, and the answers come back in order. For example::

        with beam.Pipeline() as pipeline:
            (
                pipeline
                | beam.Create([Request("I love it"), Request("Do you ship to Peru?"), Request(17)])
                | RunInference(HuggingFaceModelHandler("my/sentiment-model", "text-classification"))
                | beam.Map(print)
            )

    prints two lines ``Prediction(…, prediction=[{'label': …, 'score': …}], …)`` and one ``Failure(…,
    error_type='InvalidInput', …)``. ``docs/models.md`` has every task's inputs, parameters and prediction.

    Args:
      model: hub id, local folder, or ``gs://`` folder. Weights are read from safetensors; no code from it is run.
      task: Hugging Face name of the task; None picks the one that the model's architecture stands for.
      revision: branch, tag or commit of a hub model.
      device: ``auto`` (CUDA where present), ``cpu``, ``cuda`` or ``cuda:N``.
      dtype: ``auto`` (bfloat16 where the hardware is faster with it), ``float32``, ``bfloat16`` or ``float16``.
      parameters: defaults for the ``parameters`` of every message.
      max_batch_size: most elements in one forward.
      max_batch_tokens: most padded tokens in one forward; None is 1,024 on a CPU and 65,536 on a GPU.
      max_batch_latency_ms: how long Beam may gather elements across bundles; None gathers within a bundle only.
      on_too_long: ``truncate`` an input over the model's maximum (and mark it), or ``dead_letter`` it.
      model_copies: copies of the model on one machine, which share out its cores.
      time_limit_s: longest time for one element, in the tasks that generate text.
      token: returns the hub token, or None; called when the model is loaded, and must pickle.
    """

    def __init__(
        self,
        model: str,
        task: str | None = None,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        parameters: Mapping[str, Any] | None = None,
        max_batch_size: int = 512,
        max_batch_tokens: int | None = None,
        max_batch_latency_ms: int | None = None,
        on_too_long: str = "truncate",
        model_copies: int = 1,
        time_limit_s: float | None = None,
        token: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.revision = revision
        self.device = device
        self.dtype = dtype
        self.parameters = dict(parameters or {})
        self.max_batch_size = max_batch_size
        self.max_batch_tokens = max_batch_tokens
        self.max_batch_latency_ms = max_batch_latency_ms
        self.on_too_long = on_too_long
        self.copies = model_copies
        self.time_limit_s = time_limit_s
        self.token = token

    def check(self) -> str:
        """Looks at the model without loading its weights; settles the task where none was given, and returns it.

        Raises:
          ModelLoadError: one line that says why it cannot run.
        """
        from transforms.models.tasks import pick_task

        self._check_values()
        listing = load.look(self.model, self.revision, self._token())
        config = load.check_files(listing)
        task = pick_task(self.task, config, listing.names, self.model)
        if task.reads_text:
            load.check_tokenizer(listing)
        if self.time_limit_s is not None and not task.takes_time_limit:
            raise ModelLoadError(f"time_limit_s={self.time_limit_s}: {task.name} cannot be stopped; leave it out")
        try:
            validate(self.parameters, task.parameters, task.name)
        except InvalidParameter as error:
            raise ModelLoadError(f"--inference_params: {error}") from None
        self.task = self.task or task.name
        return task.name

    def _check_values(self) -> None:
        known_device = self.device in DEVICES or self.device.removeprefix("cuda:").isdigit()
        for flag, value, known, allowed in (
            ("device", self.device, known_device, "auto, cpu, cuda or cuda:N"),
            ("dtype", self.dtype, self.dtype in DTYPES, ", ".join(DTYPES)),
            ("on_too_long", self.on_too_long, self.on_too_long in ("truncate", "dead_letter"), "truncate, dead_letter"),
            ("max_batch_size", self.max_batch_size, self.max_batch_size >= 1, "1 or more"),
            ("max_batch_tokens", self.max_batch_tokens, (self.max_batch_tokens or 1) >= 1, "1 or more"),
            ("model_copies", self.copies, self.copies >= 1, "1 or more"),
        ):
            if not known:
                raise ModelLoadError(f"--{flag}={value}: must be {allowed}")

    def _token(self) -> str | None:
        return self.token() if self.token is not None else None

    def load_model(self) -> Engine:
        """The model, from memory if a handler of the same configuration has loaded it in this process.

        Raises:
          ModelLoadError: one line that says why it cannot be loaded.
        """
        if self.copies > 1 and self.share_model_across_processes():
            # Beam asks once for each copy, from whichever process came first, and keeps them itself.
            return self._load()
        key = self._key()
        with _REGISTRY:
            lock = _LOCKS.setdefault(key, threading.Lock())
        with lock:
            if key not in _RESIDENT:
                _RESIDENT[key] = self._load()
            return _RESIDENT[key]

    def _key(self) -> tuple[Any, ...]:
        return (
            self.model,
            self.task,
            self.revision,
            self.device,
            self.dtype,
            repr(sorted(self.parameters.items())),
            self.max_batch_size,
            self.max_batch_tokens,
            self.on_too_long,
            self.copies,
            self.time_limit_s,
        )

    def _load(self) -> Engine:
        """A model and the thread that it lives on."""
        thread = ThreadPoolExecutor(1, "model")
        return thread.submit(self._load_on, thread).result()

    def _load_on(self, thread: ThreadPoolExecutor) -> Engine:
        from transforms.models.tasks import build_task

        started = time.perf_counter()
        name = self.check()
        folder = load.fetch(self.model, self.revision, self._token())
        bound_kernel_caches()
        where = pick_device(self.device)
        number = pick_dtype(self.dtype, where)
        share_threads(self.copies)
        task = build_task(
            name, folder.path, where, number, self.on_too_long == "dead_letter", self.time_limit_s, self.model
        )
        info = ModelInfo(name, self.model, folder.revision, str(where), str(number).removeprefix("torch."))
        budget = Budget(
            self.max_batch_tokens or _MAX_TOKENS[where.type], None if task.generates else _MAX_PADDING[where.type]
        )
        parameters = validate(self.parameters, task.parameters, name)
        elapsed = time.perf_counter() - started
        _LOADS.append(elapsed * 1000)
        _LOG.info("loaded %s in %.1f s", info, elapsed)
        return Engine(task, info, parameters, self.max_batch_size, budget, thread)

    def run_inference(
        self, batch: Sequence[Request], model: Engine, inference_args: dict[str, Any] | None = None
    ) -> list[Prediction | Failure]:
        """One outcome for each of ``batch``, in order."""
        started = time.perf_counter()
        answers: Answers = model.answer(batch)
        if len(answers.outcomes) != len(batch):
            raise RuntimeError(f"{len(batch)} elements gave {len(answers.outcomes)} outcomes; this is a bug")
        _count(answers, (time.perf_counter() - started) * 1000)
        return answers.outcomes

    def get_num_bytes(self, batch: Sequence[Request]) -> int:
        """Bytes of the messages; the default would pickle every batch only to measure it."""
        return sum(len(request.message.data) for request in batch)

    def get_metrics_namespace(self) -> str:
        return _NAMESPACE

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Gathers as much as a bundle has, or as comes within ``max_batch_latency_ms``."""
        from transforms.models.tasks import ALIASES, TASKS

        task = TASKS.get(ALIASES.get(self.task or "", self.task or ""))
        gather = _GATHER[task.modality if task else "text"]
        kwargs: dict[str, Any] = {"min_batch_size": gather, "max_batch_size": gather}
        if self.max_batch_latency_ms is not None:
            kwargs["max_batch_duration_secs"] = self.max_batch_latency_ms / 1000
        return kwargs

    def share_model_across_processes(self) -> bool:
        """True in a worker container, where several SDK processes run: they share ``model_copies`` models."""
        return "CONTROL_API_SERVICE_DESCRIPTOR" in os.environ

    def model_copies(self) -> int:
        return self.copies


def _count(answers: Answers, elapsed_ms: float) -> None:
    """Updates the metrics, once a batch."""
    failures = sum(isinstance(outcome, Failure) for outcome in answers.outcomes)
    tally = answers.tally
    for name, value in (
        ("predictions", len(answers.outcomes) - failures),
        ("failures", failures),
        ("forwards", tally.forwards),
        ("bisections", tally.bisections),
        ("out_of_memory", tally.out_of_memory),
        ("truncated", answers.truncated),
        ("tokens", answers.tokens),
        ("padding", tally.padding),
        ("padding_saved", max(0, _plain_padding(answers.outcomes) - tally.padding)),
    ):
        if value:
            _COUNTERS[name].inc(value)
    _BATCH_MS.update(int(elapsed_ms))
    while _LOADS:
        _MODEL_LOAD_MS.update(int(_LOADS.pop()))


def _plain_padding(outcomes: Sequence[Prediction | Failure]) -> int:
    """Padding of plain batches, each as wide as its longest element."""
    counts = [outcome.tokens for outcome in outcomes if isinstance(outcome, Prediction) and outcome.tokens]
    batches = [counts[start : start + _PLAIN_BATCH] for start in range(0, len(counts), _PLAIN_BATCH)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)
