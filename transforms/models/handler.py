"""The Hugging Face model as a RunInference ``ModelHandler``: any task, one outcome for every element."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from transforms.models import load, metrics, resident
from transforms.models.answers import Answers
from transforms.models.backends import pick_engine
from transforms.models.bisect import Budget
from transforms.models.journal import Journal
from transforms.models.loaded_model import LoadedModel
from transforms.models.request_handler import RequestHandler, in_worker_container, whole
from transforms.models.spec import ModelSpec, freeze
from transforms.models.supervise import Supervisor
from transforms.models.task_table import TASKS, find
from transforms.models.weights import check_weights
from transforms.records import Failure, ModelInfo, Prediction, Request

_LOG = logging.getLogger(__name__)

#: Requests gathered before they are planned: more than any micro-batch, so that lengths can be matched.
_GATHER = {"text": 1024, "image": 128, "audio": 128}

#: Padded tokens a micro-batch. On MiniLM a CPU without AMX does 345 texts a second with 1,024 and 312 with 4,096;
#: with AMX both do alike. A GPU wants more at once.
_MAX_TOKENS = {"cpu": 1024, "cuda": 65536}

#: Tokens of padding that cost a CPU what one more forward does (MiniLM and BERT base: 64). On a GPU, where a forward's
#: launch weighs more, it was not measured and has no bound; nor in a task that generates, with many forwards an answer.
_MAX_PADDING = {"cpu": 64, "cuda": None}

#: Longest forward where none is given: many times what any takes that ends, and less than a lease that is given up.
_MAX_FORWARD_S = 600.0


class HuggingFaceModelHandler(RequestHandler[LoadedModel]):
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
      engine: what runs the model: ``torch``, ``openvino``, or ``auto``, which is the faster of those installed that
        agree. OpenVINO is for CPUs and for tasks with one forward, and gives way to torch where its answers differ.
      device: ``auto`` (CUDA where present), ``cpu``, ``cuda`` or ``cuda:N``.
      dtype: ``auto`` (bfloat16 where the hardware is faster with it), ``float32``, ``bfloat16`` or ``float16``.
      parameters: defaults for the ``parameters`` of every message.
      max_batch_size: most elements in one forward.
      max_batch_tokens: most padded tokens in one forward; None is 1,024 on a CPU and 65,536 on a GPU.
      max_batch_latency_ms: how long Beam may gather elements across bundles; None gathers within a bundle only.
      on_too_long: ``truncate`` an input over the model's maximum (and mark it), ``dead_letter`` it, or give its
        embeddings in pieces (``chunk``).
      model_copies: copies of the model on one machine, which share out its cores.
      time_limit_s: longest time for one element, in the tasks that generate text.
      max_deaths: processes that a message may kill before it is a failure ``KilledWorker``.
      max_forward_s: longest one forward may take before its process is ended; None is ten minutes, and no limit for
        a model that generates on a CPU.
      token: returns the hub token, or None; called when the model is loaded, and must pickle.
    """

    def __init__(
        self,
        model: str,
        task: str | None = None,
        *,
        revision: str | None = None,
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        parameters: Mapping[str, Any] | None = None,
        max_batch_size: int = 512,
        max_batch_tokens: int | None = None,
        max_batch_latency_ms: int | None = None,
        on_too_long: str = "truncate",
        model_copies: int = 1,
        time_limit_s: float | None = None,
        max_deaths: int = 2,
        max_forward_s: float | None = None,
        token: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__()
        self.spec = ModelSpec(
            model=model,
            task=task,
            revision=revision,
            parameters=freeze(parameters),
            engine=engine,
            device=device,
            dtype=dtype,
            max_batch_size=max_batch_size,
            max_batch_tokens=max_batch_tokens,
            on_too_long=on_too_long,
            model_copies=model_copies,
            time_limit_s=time_limit_s,
            max_deaths=max_deaths,
            max_forward_s=max_forward_s,
        )
        # Which model it was made for, and which is wanted now: a check settles the task in ``spec`` alone.
        self._launched = self._wanted = self.spec
        self.max_batch_latency_ms = max_batch_latency_ms
        self.token = token

    def check(self) -> str:
        """Looks at the model without loading its weights; settles the task where none was given, and returns it.

        Raises:
          ModelLoadError: one line that says why it cannot run.
        """
        from transforms.models.tasks.adapters import pick_task

        spec = self.spec
        listing = load.list_files(spec.model, spec.revision, self._token())
        config = load.check_files(listing)
        task = pick_task(spec.task, config, listing.names, spec.model)
        if task.reads_text:
            load.check_tokenizer(listing)
        entry = task.entry
        pick_engine(spec.engine, entry)
        folder = Path(spec.model).expanduser() / listing.root()
        if folder.is_dir():  # else the weights are looked at once they are fetched
            check_weights(folder, spec.model, entry.name)
        if entry.name in load.LABELLED:
            load.check_labels(config, spec.model)
        spec.defaults(entry)
        if spec.task is None:
            self.spec = replace(spec, task=entry.name)
        return entry.name

    def _token(self) -> str | None:
        return self.token() if self.token is not None else None

    def load_model(self) -> LoadedModel:
        """The model, from memory if a handler of the same configuration has loaded it in this process.

        Raises:
          ModelLoadError: one line that says why it cannot be loaded.
        """
        if self.spec.model_copies > 1 and self.share_model_across_processes():
            # Beam asks once for each copy, from whichever process came first, and keeps them itself.
            return self._load()
        return resident.get(self._launched, self._wanted, self._load)

    def update_model_path(self, model_path: str | None = None) -> None:
        """The model that the next load is of: what Beam's ``model_metadata_pcoll`` names, as ``model`` does."""
        if model_path:
            self.spec = self._wanted = resident.at_path(self._launched, model_path)

    def _load(self) -> LoadedModel:
        """A model and the thread that it lives on."""
        thread = ThreadPoolExecutor(1, "model")
        return thread.submit(self.load_for, thread).result()

    def load_for(self, thread: ThreadPoolExecutor) -> LoadedModel:
        """A new model whose forwards will run on ``thread``; loaded on the caller's.

        Raises:
          ModelLoadError: one line that says why it cannot be loaded.
        """
        from transforms.models.tasks.adapters import build_task, transformer_path

        started = time.perf_counter()
        name = self.check()
        spec = self.spec
        folder = load.fetch(spec.model, spec.revision, self._token())
        check_weights(folder.path / transformer_path(folder.path), spec.model, name)
        task = build_task(spec, TASKS[name], folder.path)
        place = task.loading.place
        dtype = str(place.dtype).removeprefix("torch.")
        info = ModelInfo(name, spec.model, folder.revision, str(place.device), dtype, task.model.engine)
        kind = place.device.type
        budget = Budget(
            spec.max_batch_tokens or _MAX_TOKENS[kind], None if task.model.generates else _MAX_PADDING[kind]
        )
        elapsed = time.perf_counter() - started
        metrics.loaded(elapsed * 1000)
        _LOG.info("loaded %s in %.1f s", info, elapsed)
        # A generation on a CPU may well take an hour; nothing else may.
        slow = task.model.generates and kind == "cpu"
        limit_s = spec.max_forward_s or (None if slow else _MAX_FORWARD_S)
        scope = hashlib.blake2b(repr(info).encode(), digest_size=6).hexdigest()
        supervisor = Supervisor(Journal(max_deaths=spec.max_deaths), limit_s, f"{scope}/")
        return LoadedModel(task, info, spec.defaults(task.entry), spec.max_batch_size, budget, thread, supervisor)

    def run_inference(
        self, batch: Sequence[Request], model: LoadedModel, inference_args: dict[str, Any] | None = None
    ) -> list[Prediction | Failure]:
        """One outcome for each of ``batch``, in order."""
        answers: Answers = model.answer(batch)
        outcomes = whole(batch, answers.outcomes)
        metrics.count(answers)
        return outcomes

    def get_metrics_namespace(self) -> str:
        return metrics.NAMESPACE

    def gather(self) -> int:
        task = find(self.spec.task)
        return _GATHER[task.modality if task else "text"]

    def share_model_across_processes(self) -> bool:
        """True in a worker container, where several SDK processes run: they share ``model_copies`` models."""
        return in_worker_container()

    def model_copies(self) -> int:
        return self.spec.model_copies
