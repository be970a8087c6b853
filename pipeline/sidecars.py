"""What runs beside a job on this machine, in threads that never hold it up.

The metrics file, a line a minute, and what is written aside.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.runner import PipelineResult

from pipeline.aside import ASIDE
from pipeline.job_card import JobCard
from pipeline.options import Settings
from pipeline.pulse import Backlog, Pulse, line
from transforms.records import ModelInfo

_LOGGER = logging.getLogger("pipeline")
_METRICS_EVERY_S = 2.0
#: What the last summaries may take at the end.
_ASIDE_S = 15.0
#: Seconds between two lines on how the job does.
STATUS_EVERY_S = 60.0


@contextlib.contextmanager
def beside(
    result: PipelineResult,
    settings: Settings,
    backlog: Backlog,
    info: ModelInfo | None = None,
    models: Callable[[], dict[str, Any]] | None = None,
) -> Iterator[None]:
    """Keeps what ``settings`` ask for up to date while the block runs, and once more at its end.

    ``models`` tells how the models of a file are, where the job has one.
    """
    stop = threading.Event()
    threads = []
    pulse = Pulse(backlog, info)
    with contextlib.ExitStack() as at_end:
        at_end.callback(pulse.close)
        threads.append(_repeat(lambda: say(pulse), STATUS_EVERY_S, stop))
        if settings.metrics_file:
            path, card = settings.metrics_file, JobCard(settings, info, models)
            at_end.callback(card.close)
            threads.append(_repeat(lambda: write_metrics(result, path, card), _METRICS_EVERY_S, stop))
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
            ASIDE.close(_ASIDE_S)


def _repeat(action: Callable[[], object], every_s: float, stop: threading.Event) -> threading.Thread:
    def run() -> None:
        last = False
        while not last:
            last = stop.wait(every_s)
            try:
                action()
            except Exception as error:  # it must not cost the job anything
                _LOGGER.warning("%s: %s; trying again", getattr(action, "__qualname__", "beside the job"), error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def say(pulse: Pulse) -> None:
    """Says how the job did since the last time."""
    beat = pulse.beat()
    _LOGGER.info("%s", line(beat), extra={"status": beat})


def write_metrics(result: PipelineResult, path: Path, card: JobCard) -> None:
    """Writes the job's metrics as they are; a reader sees the old file or the new one, never half of it."""
    data = json.dumps({"time": time.time(), **snapshot(result), **card.told()})
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(data, "utf-8")
    draft.replace(path)


def snapshot(result: PipelineResult) -> dict[str, Any]:
    """Counters and distributions of our own names, summed over steps: ``{"counters": …, "distributions": …}``."""
    for attempt in range(5):
        try:
            found = result.metrics().query()
            break
        except RuntimeError:  # the runner met a new metric while we looked at the others
            if attempt == 4:
                raise
    counters: dict[str, int] = {}
    for each in found[MetricResults.COUNTERS]:
        counters[each.key.metric.name] = counters.get(each.key.metric.name, 0) + each.committed
    distributions: dict[str, dict[str, float]] = {}
    for each in found[MetricResults.DISTRIBUTIONS]:
        data, old = each.committed, distributions.get(each.key.metric.name)
        if data is None or not data.count:
            continue
        count, total = data.count + (old["count"] if old else 0), data.sum + (old["sum"] if old else 0)
        distributions[each.key.metric.name] = {
            "count": count,
            "sum": total,
            "mean": total / count,
            "min": min(data.min, old["min"]) if old else data.min,
            "max": max(data.max, old["max"]) if old else data.max,
        }
    return {"counters": counters, "distributions": distributions}
