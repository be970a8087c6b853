"""The one entry point, also the flex template's: parse, check, build, run."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import apache_beam as beam

from pipeline import dataflow, flags, graph, handlers, health, io, logs, preflight, sidecars
from pipeline.command import command
from pipeline.direct.pace import Pace
from pipeline.health import Health
from pipeline.options import FLAGS, parse
from pipeline.signals import leave
from transforms.models.errors import ModelLoadError

if TYPE_CHECKING:
    from pipeline.direct.runner import LocalRunner

_LOGGER = logging.getLogger("pipeline")
_ABOUT = (
    "Streams messages through a Hugging Face model: from a subscription to a topic, with a dead letter for what cannot "
    "become a result, and one audit row a message. Beam's own flags (--runner, --project, ...) work too; the runner is "
    "DirectRunner, which is this machine and the default, or DataflowRunner."
)


@command
def main(argv: Sequence[str]) -> int:
    """Runs the job and returns its exit code: 0 drained or submitted, 1 failed, 2 wrong usage."""
    if flags.wants_help(argv):
        return flags.print_help("run", "pipeline.main", _ABOUT, FLAGS)
    logs.configure()
    with contextlib.ExitStack() as at_end:
        return _launch(argv, at_end)


def _launch(argv: Sequence[str], at_end: contextlib.ExitStack) -> int:
    try:
        settings, options = parse(argv)
        logs.configure(settings.log_format)
        settings = dataflow.prepare(settings, options)
        runner = io.runner(settings)
        port = at_end.enter_context(health.serving(settings.health_port))
        handler = handlers.make_handler(settings)
        preflight.check(settings)
        preflight.make_summary_table(settings)
        model = handlers.load(handler, settings)
    except flags.UsageError as error:
        return flags.wrong_usage(error)
    except ModelLoadError as error:
        return flags.wrong_usage(ValueError(handlers.as_flags(error)))
    try:
        pipeline = beam.Pipeline(runner=runner, options=options)
    except ValueError as error:  # Beam's own look at the options that its runner needs, one a line
        return flags.wrong_usage(ValueError(f"{error}; `python -m pipeline.doctor` with the same flags says more"))
    graph.build(pipeline, settings, handler)
    if runner is not None and hasattr(model, "look_ahead"):
        runner.ahead = model.look_ahead(io.upcoming(runner, settings))
        if settings.max_bundle_ms is not None:
            runner.pace = Pace(settings.max_bundle_ms / 1000)
            model.timed = runner.pace.took
    # On Dataflow nobody waits: a flex template's launcher must return once the job is submitted.
    result = pipeline.run()
    if runner is None:
        return 0
    info = handlers.info(model)
    if port:
        port.running(runner.backlog, info)
    with sidecars.beside(result, settings, runner.backlog, info, handlers.told(model)):
        return _run_until_drained(result, runner, port)


def _run_until_drained(result: beam.runners.runner.PipelineResult, runner: LocalRunner, port: Health | None) -> int:
    """Waits for the job; SIGTERM and Ctrl-C drain it, a second one ends it at once (nothing is lost: see runner.py)."""

    def drain(signum: int, frame: object) -> None:
        _LOGGER.info("%s: finishing the messages in work, then stopping", signal.Signals(signum).name)
        signal.signal(signum, signal.SIG_DFL)
        if port:
            port.draining()
        runner.drain()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    _LOGGER.info("running; Ctrl-C or SIGTERM drains")
    try:
        result.wait_until_finish()
    except Exception as error:
        _LOGGER.error("the job failed; what it had not finished will be delivered again: %s", handlers.as_flags(error))
        return 1
    finally:
        runner.close()
    _LOGGER.info("drained")
    return 0


if __name__ == "__main__":
    leave(main())
