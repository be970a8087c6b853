"""Window: what became of the messages, counted by event time in Beam's own windows.

Inference runs in the global window (docs/decisions/0002); its outcomes are windowed once they are known. A bundle's
outcomes are counted first, so that what is windowed and shuffled are a few tallies and not each message.
"""

from __future__ import annotations

import bisect
import collections
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms import trigger
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms.audit_row import message_of
from transforms.barrier import survived
from transforms.records import Failure, Result
from transforms.tally import Tally
from transforms.windowing import Windowing

#: Job and variant of the model.
Key = tuple[str, str]


class Window(beam.PTransform[beam.PCollection[Any], beam.PCollection[tuple[Key, Tally]]]):
    """``Result`` or ``Failure`` → tallies by job and variant, in the windows of their event times.

    Panes accumulate: early ones every ``early_s`` seconds, if given, one when the watermark passes the window's end,
    and one for each tally that comes later, within ``allowed_lateness`` seconds.
    """

    def __init__(self, windowing: Windowing, job: str, run: str, allowed_lateness: float, early_s: float | None = None):
        super().__init__()
        self._count = _CountFn(windowing, job, run)
        self._into = beam.WindowInto(
            windowing.beam(),
            trigger=trigger.AfterWatermark(
                early=trigger.AfterProcessingTime(early_s) if early_s else None, late=trigger.AfterCount(1)
            ),
            accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
            allowed_lateness=Duration.of(allowed_lateness),
        )

    def expand(self, outcomes: beam.PCollection[Any]) -> beam.PCollection[tuple[Key, Tally]]:
        tallies = outcomes | "Count" >> beam.ParDo(self._count).with_output_types(tuple[Key, Tally])
        windowed: beam.PCollection[tuple[Key, Tally]] = tallies | "Into" >> self._into
        return windowed


class _CountFn(beam.DoFn):
    """Counts a bundle; a tally is stamped with the first event time in it."""

    def __init__(self, windowing: Windowing, job: str, run: str):
        self._windowing = windowing
        self._job = job
        self._run = run
        self._outcomes: list[Any] = []

    def start_bundle(self) -> None:
        self._outcomes = []

    def process(self, outcome: Any) -> None:
        self._outcomes.append(outcome)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        outcomes, self._outcomes = self._outcomes, []
        try:
            tallies = list(count(outcomes, self._windowing, self._job, self._run, time.time()))
        except Exception as error:
            survived(error, f"counting {len(outcomes)} messages")
            tallies = []
        for micros, key, tally in tallies:
            yield GlobalWindows.windowed_value((key, tally), timestamp=Timestamp(micros=micros))


def count(
    outcomes: Iterable[Result | Failure], windowing: Windowing, job: str, run: str, now: float
) -> Iterator[tuple[int, Key, Tally]]:
    """Tallies of ``outcomes``, with the event time (in microseconds) whose windows each belongs to."""
    groups: dict[str, list[tuple[int, Any]]] = collections.defaultdict(list)
    for outcome in outcomes:
        try:
            groups[variant(outcome)].append((Timestamp(message_of(outcome).event_time).micros, outcome))
        except Exception as error:
            survived(error, "stamping a message")
    for name, stamped in groups.items():
        for micros, members in _by_window(stamped, windowing).items():
            tally = Tally(run)
            tally.add(members, now)
            yield micros, (job, name), tally


def variant(outcome: Result | Failure) -> str:
    """Which of the job's models answered, as far as it has several."""
    model = outcome.model if isinstance(outcome, Failure) else outcome.prediction.model
    return str(getattr(model, "variant", None) or "")


def _by_window(stamped: list[tuple[int, Any]], windowing: Windowing) -> dict[int, list[Any]]:
    """``stamped`` by an event time that stands for those of its group: it is in the same windows."""
    if windowing.kind == "session":
        return _by_session(stamped, Duration.of(windowing.size).micros)
    cells: dict[tuple[int, ...], list[tuple[int, Any]]] = collections.defaultdict(list)
    for micros, outcome in stamped:
        cells[windowing.cell(micros)].append((micros, outcome))
    return {min(micros for micros, _ in cell): [each for _, each in cell] for cell in cells.values()}


def _by_session(stamped: list[tuple[int, Any]], gap: int) -> dict[int, list[Any]]:
    stamps = session_stamps(sorted({micros for micros, _ in stamped}), gap)
    groups: dict[int, list[Any]] = {stamp: [] for stamp in stamps}
    for micros, outcome in stamped:
        groups[stamps[bisect.bisect_right(stamps, micros) - 1]].append(outcome)
    return groups


def session_stamps(times: list[int], gap: int) -> list[int]:
    """As few of ``times`` (sorted, each once) as give the same sessions as all.

    They are the first of a session, and always the last one that is still within a gap of the one before.
    """
    stamps: list[int] = []
    for index, micros in enumerate(times):
        end = stamps[-1] + gap if stamps else micros
        if micros >= end or index + 1 == len(times) or times[index + 1] >= end:
            stamps.append(micros)
    return stamps
