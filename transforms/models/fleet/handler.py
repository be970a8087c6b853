"""Several models as one RunInference ``ModelHandler``: which they are, and which answers what, is in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transforms.models.fleet import checks, metrics, source
from transforms.models.fleet.file import parse
from transforms.models.fleet.options import Options
from transforms.models.fleet.start import Running, resident
from transforms.models.fleet.variant import Variant
from transforms.models.request_handler import RequestHandler, in_worker_container, whole
from transforms.records import Failure, Prediction, Request

#: Requests gathered before they are planned: more than any micro-batch, so that lengths can be matched.
_GATHER = 1024


class ModelsHandler(RequestHandler[Running]):
    """Answers ``Request`` elements by the models of a file; each becomes one ``Prediction`` or one ``Failure``.

    The file (docs/rollout.md) is looked at again and again, and what is new and sound serves from the next batch on: no
    element waits for it, and the graph stays as it is. For example::

        RunInference(ModelsHandler("gs://my-bucket/models.yaml"))

    Args:
      source: the file, on this machine or in a bucket; or all of the options.
      max_batch_latency_ms: how long Beam may gather elements across bundles; None gathers within a bundle only.
    """

    def __init__(self, source: str | Options, *, max_batch_latency_ms: int | None = None) -> None:
        super().__init__()
        self.options = Options(source) if isinstance(source, str) else source
        self.max_batch_latency_ms = max_batch_latency_ms

    def check(self, models: bool = True, probe: bool = False) -> None:
        """Reads the file and its checks; with ``models`` looks at each model, without its weights.

        Endpoints are asked something small with ``probe``. The file as it is now goes with the handler, for a worker
        that starts while the file is not fit to serve.

        Raises:
          ModelLoadError: one line on what must be mended.
        """
        data = source.read(self.options.source)
        file = parse(data, self.options.source)
        for check in file.checks.values():
            checks.read(check, self.options.source)
        for name, entry in file.models.items() if models else ():
            variant = Variant(entry, self.options, file.checks.get(name))
            variant.check_files()
            if probe and variant.remote:
                variant.probe()
        self.options = replace(self.options, launched=data)

    def load_model(self) -> Running:
        """The models, as this process has them already if it was asked before.

        Raises:
          ModelLoadError: one line that says why they cannot serve.
        """
        return resident(self.options)

    def run_inference(
        self, batch: Sequence[Request], model: Running, inference_args: dict[str, Any] | None = None
    ) -> list[Prediction | Failure]:
        """One outcome for each of ``batch``, in order."""
        answers = model.answer(batch)
        outcomes = whole(batch, answers.outcomes)
        metrics.count(answers)
        return outcomes

    def get_metrics_namespace(self) -> str:
        return metrics.NAMESPACE

    def gather(self) -> int:
        return _GATHER

    def share_model_across_processes(self) -> bool:
        """True in a worker container, where several SDK processes run: one of them holds the models for all."""
        return in_worker_container()
