"""A remote Hugging Face endpoint as a RunInference ``ModelHandler``: the same elements in and out as local weights."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from transforms.models.remote.caller import RequestCounts
from transforms.models.remote.discover import EndpointSpec, pick_server
from transforms.models.remote.endpoint import Endpoint
from transforms.models.remote.identity import source, usual_auth
from transforms.models.remote.metrics import BATCH_MS, COUNTERS, NAMESPACE, Report
from transforms.models.remote.probe import EndpointAway, probe
from transforms.models.request_handler import RequestHandler, whole
from transforms.models.spec import freeze, thaw
from transforms.models.task_table import endpoint_task
from transforms.models.token import Source, TokenKeeper, TokenSource
from transforms.records import Failure, ModelInfo, Prediction, Request

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Elements gathered before they are asked: enough to keep every place busy to the end of a batch.
_GATHER = {False: 1024, True: 128}

#: Seconds between two updates of the metrics while a batch is under way: a stall must show before it ends.
_REPORT_S = 5.0

# DirectRunner sets a DoFn up for every bundle; what is known of an endpoint (its breaker above all) must outlive that.
_RESIDENT: dict[tuple[EndpointSpec, Source | None], Endpoint] = {}
_REGISTRY = threading.Lock()


class EndpointModelHandler(RequestHandler[Endpoint]):
    """Asks a remote endpoint about ``Request`` elements; each becomes one ``Prediction`` or one ``Failure``.

    An element that the endpoint refuses is a ``Failure`` with the endpoint's own words; all others of its batch are
    answered. While the endpoint is overloaded or away, requests wait; after ``max_wait_s`` the batch raises
    ``EndpointUnavailable``, so that its messages are delivered again. For example::

        RunInference(EndpointModelHandler("http://127.0.0.1:8080", "feature-extraction"))

    ``docs/endpoints.md`` has the kinds of servers, ``docs/metrics.md`` every metric.

    Args:
      endpoint: URL of a server, ``vertex:projects/P/locations/L/endpoints/ID``, or for Inference Providers
        ``provider:NAME`` (``provider:auto``).
      task: Hugging Face name of the task.
      model: id by which the endpoint knows the model; needed for a provider, and where a server runs several.
      parameters: defaults for the ``parameters`` of every message.
      token: where a Hugging Face token is read, on the worker.
      auth: what the endpoint is shown: ``hf`` that token, ``google`` an access token and ``google-id`` an ID token of
        the account that the worker runs as, ``none`` nothing; None is ``hf`` with a token, ``google`` for Google's own
        hosts, ``google-id`` for Cloud Run, else ``none``.
      impersonate: service account to be shown instead of the worker's own.
      timeout_s: longest one attempt may take.
      max_wait_s: longest a request waits for an endpoint that does not answer.
      concurrency: most requests under way at once, in this process.
      requests_per_s, tokens_per_min: bounds that this process keeps to; None sets none.
      hedge_s: seconds after which a request without an answer is sent a second time; None never does.
      cache_mib: how much of the answers is kept, to be given again for the same question; None keeps none.
      on_too_long: ``truncate`` asks a server that can to cut inputs over its maximum; ``dead_letter`` lets it refuse.
      max_batch_latency_ms: how long Beam may gather elements across bundles; None gathers within a bundle only.
    """

    def __init__(
        self,
        endpoint: str,
        task: str,
        *,
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        token: TokenSource | None = None,
        auth: str | None = None,
        impersonate: str | None = None,
        timeout_s: float = 30.0,
        max_wait_s: float = 600.0,
        concurrency: int = 16,
        requests_per_s: float | None = None,
        tokens_per_min: float | None = None,
        hedge_s: float | None = None,
        cache_mib: int | None = None,
        on_too_long: str = "truncate",
        max_batch_latency_ms: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = EndpointSpec(
            endpoint=endpoint,
            task=task,
            model=model,
            parameters=freeze(parameters),
            truncate=on_too_long == "truncate",
            concurrency=concurrency,
            timeout_s=timeout_s,
            max_wait_s=max_wait_s,
            requests_per_s=requests_per_s,
            tokens_per_min=tokens_per_min,
            hedge_s=hedge_s,
            cache_mib=cache_mib,
        )
        self.token = token
        self.auth = auth or usual_auth(endpoint, token is not None)
        self.impersonate = impersonate
        self.max_batch_latency_ms = max_batch_latency_ms

    def check(self) -> str:
        """Looks at what was asked for, without a request or a token; returns the task.

        Raises:
          ModelLoadError: one line that says why it cannot work.
        """
        task = endpoint_task(self.spec.task)
        pick_server(self.spec, task, None, self.spec.model or "")
        self._source()
        thaw(self.spec.parameters, task)
        return task.name

    def probe(self) -> ModelInfo | None:
        """Asks the endpoint something small, from here; returns which model answers, or None if it is only away.

        Raises:
          ModelLoadError: one line on what must be mended: the token, its scope, the model, the URL, the certificate.
        """
        try:
            return self.ask()
        except EndpointAway as error:
            _LOG.warning("%s; starting all the same, messages wait for it", error)
            return None

    def ask(self) -> ModelInfo:
        """As :meth:`probe`.

        Raises:
          ModelLoadError: as there.
          EndpointAway: it does not answer now.
        """
        endpoint = self._new()
        return _run(probe(endpoint.caller, self.spec, endpoint.task, endpoint.parameters)).result()

    def load_model(self) -> Endpoint:
        """The endpoint, as this process knows it already if it was asked before."""
        key = (self.spec, self._source())
        with _REGISTRY:
            if key not in _RESIDENT:
                _RESIDENT[key] = self._new()
            return _RESIDENT[key]

    def _source(self) -> Source | None:
        return source(self.spec.endpoint, self.auth, self.token, self.impersonate)

    def _new(self) -> Endpoint:
        self.check()
        task = endpoint_task(self.spec.task)
        return Endpoint(self.spec, task, thaw(self.spec.parameters, task), TokenKeeper(self._source()))

    def run_inference(
        self, batch: Sequence[Request], model: Endpoint, inference_args: dict[str, Any] | None = None
    ) -> list[Prediction | Failure]:
        """One outcome for each of ``batch``, in order.

        Raises:
          EndpointUnavailable: the endpoint gave no answer for ``max_wait_s``.
        """
        counts, report = RequestCounts(), Report(model)
        started = time.perf_counter()
        running = _run(model.answer(batch, counts))
        try:
            while not concurrent.futures.wait([running], timeout=_REPORT_S).done:
                report.update(counts, time.perf_counter() - started)
            outcomes = whole(batch, running.result())
        finally:
            running.cancel()
            report.update(counts, time.perf_counter() - started)
        failures = sum(isinstance(outcome, Failure) for outcome in outcomes)
        COUNTERS["predictions"].inc(len(outcomes) - failures)
        COUNTERS["failures"].inc(failures)
        BATCH_MS.update(int((time.perf_counter() - started) * 1000))
        return outcomes

    def begin(
        self, batch: Sequence[Request], model: Endpoint, counts: RequestCounts
    ) -> concurrent.futures.Future[list[Prediction | Failure]]:
        """One outcome for each of ``batch``, in order, once they have come; ``counts`` grows meanwhile."""
        return _run(model.answer(batch, counts))

    def get_metrics_namespace(self) -> str:
        return NAMESPACE

    def gather(self) -> int:
        return _GATHER[endpoint_task(self.spec.task).is_file]


def _run(coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop())


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The process's one event loop for endpoints, in a thread that ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoints", daemon=True).start()
    return loop
