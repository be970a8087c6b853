"""The one entry point, also the flex template's: parse, check, build, run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler

from pipeline import dataflow, graph, io, logs, preflight, watchers
from pipeline.local.runner import LocalRunner
from pipeline.options import Settings, UsageError, parse, print_help
from transforms.models.errors import ModelLoadError
from transforms.models.token import TokenSource

_LOGGER = logging.getLogger("pipeline")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 drained or submitted, 1 failed, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print_help()
        return 0
    logs.configure()
    try:
        settings, options = parse(argv)
        logs.configure(settings.log_format)
        dataflow.prepare(settings, options)
        handler = make_handler(settings)
        preflight.check(settings)
    except (UsageError, ModelLoadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    runner = io.runner(settings)
    pipeline = beam.Pipeline(runner=runner, options=options)
    graph.build(pipeline, settings, handler)
    # On Dataflow nobody waits: a flex template's launcher must return once the job is submitted.
    result = pipeline.run()
    if not isinstance(runner, LocalRunner):
        return 0
    with watchers.beside(result, settings):
        return _run_until_drained(result, runner)


def make_handler(settings: Settings) -> ModelHandler:
    """The model handler that ``settings`` ask for, checked as far as can be without loading weights.

    Raises:
        ModelLoadError: the model cannot be what is asked for, or the endpoint cannot be asked.
    """
    token = TokenSource(settings.hf_token_source) if settings.hf_token_source else None
    # Locally the source itself waits for company; state that held messages back would outlive their leases.
    latency_ms = None if settings.local else settings.max_batch_latency_ms
    if settings.endpoint:
        return _remote_handler(settings, token, latency_ms)
    assert settings.model is not None
    # Torch takes seconds to import, and a wrong flag should be told at once.
    from transforms.models.handler import HuggingFaceModelHandler

    handler = HuggingFaceModelHandler(
        settings.model,
        settings.task,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        parameters=settings.inference_params,
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_latency_ms=latency_ms,
        on_too_long=settings.on_too_long,
        model_copies=settings.model_copies,
        time_limit_s=settings.time_limit_s,
        token=token,
    )
    # A token is the workers' alone: a model that needs one is not looked at from where the job is only submitted.
    if settings.local or token is None:
        handler.check()
    return handler


def _remote_handler(settings: Settings, token: TokenSource | None, latency_ms: int | None) -> ModelHandler:
    from transforms.models.endpoint import RemoteModelHandler

    assert settings.endpoint is not None and settings.task is not None
    handler = RemoteModelHandler(
        settings.endpoint,
        settings.task,
        model=settings.model,
        parameters=settings.inference_params,
        token=token,
        timeout_s=settings.endpoint_timeout_s,
        max_wait_s=settings.endpoint_max_wait_s,
        concurrency=settings.endpoint_concurrency,
        on_too_long=settings.on_too_long,
        max_batch_latency_ms=latency_ms,
    )
    handler.check()
    if settings.local:
        handler.look()
    return handler


def _run_until_drained(result: beam.runners.runner.PipelineResult, runner: LocalRunner) -> int:
    """Waits for the job; SIGTERM and Ctrl-C drain it, a second one ends it at once (nothing is lost: see runner.py)."""

    def drain(signum: int, frame: object) -> None:
        _LOGGER.info("%s: finishing the messages in work, then stopping", signal.Signals(signum).name)
        signal.signal(signum, signal.SIG_DFL)
        runner.drain()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    _LOGGER.info("running; Ctrl-C or SIGTERM drains")
    try:
        result.wait_until_finish()
    except Exception as error:
        _LOGGER.error("the job failed; what it had not finished will be delivered again: %s", error)
        return 1
    finally:
        runner.close()
    _LOGGER.info("drained")
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Clients' and Torch's idle threads have nothing left to do, and must not delay the end.
    os._exit(code)
