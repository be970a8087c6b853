"""Summarise: the tallies of each window become a row a pane, compared with the windows before it.

All of it is Beam's own: a combine by key and window, and a little state. No table is asked anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import orjson
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming

from transforms.barrier import survived
from transforms.encode import rfc3339
from transforms.summary_row import BASELINE_WINDOWS, COMPARED, SummaryRow, compare
from transforms.tally import Tally, TallyCoder
from transforms.window import Key
from transforms.windowing import clamp

_PANES = {
    PaneInfoTiming.EARLY: "early",
    PaneInfoTiming.ON_TIME: "on_time",
    PaneInfoTiming.LATE: "late",
    PaneInfoTiming.UNKNOWN: "on_time",
}

_WINDOWS = Metrics.counter("pipeline", "summary_panes")
_SHIFTED = Metrics.counter("pipeline", "summary_shifted")

#: Windows remembered by key: overlapping ones are not compared with each other, and there may be many.
_REMEMBERED = 200


class Summarise(beam.PTransform[beam.PCollection[tuple[Key, Tally]], beam.PCollection[SummaryRow]]):
    """Windowed tallies → a ``SummaryRow`` a pane, in the global window."""

    def expand(self, tallies: beam.PCollection[tuple[Key, Tally]]) -> beam.PCollection[SummaryRow]:
        panes = tallies | "Combine" >> beam.CombinePerKey(TallyCombineFn())  # type: ignore[no-untyped-call]
        rows = panes | "ToRow" >> beam.ParDo(_RowFn()).with_output_types(tuple[Key, SummaryRow])  # type: ignore[no-untyped-call]
        all_panes = rows | "AllPanes" >> beam.WindowInto(GlobalWindows())
        compare = beam.ParDo(_CompareFn()).with_output_types(SummaryRow)  # type: ignore[no-untyped-call]
        compared: beam.PCollection[SummaryRow] = all_panes | "Compare" >> compare
        return compared


@beam.typehints.with_input_types(Tally)
@beam.typehints.with_output_types(Tally)
class TallyCombineFn(beam.CombineFn):
    """Merges tallies; neither what is put in nor what comes out is ever changed again."""

    def create_accumulator(self) -> Tally:
        return Tally()

    def add_input(self, mutable_accumulator: Tally, element: Tally) -> Tally:
        mutable_accumulator.merge(element)
        return mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        merged = Tally()
        for each in accumulators:
            merged.merge(each)
        return merged

    def extract_output(self, accumulator: Tally) -> Tally:
        return accumulator

    def get_accumulator_coder(self) -> TallyCoder:
        return TallyCoder()


class _RowFn(beam.DoFn):
    def process(
        self,
        element: tuple[Key, Tally],
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[tuple[Key, SummaryRow]]:
        key, tally = element
        try:
            yield key, row(key, tally, window.start.micros / 1e6, window.end.micros / 1e6, pane, time.time())
        except Exception as error:
            survived(error, "summing up a window")


def row(key: Key, tally: Tally, start: float, end: float, pane: PaneInfo, now: float) -> SummaryRow:
    """The row of one pane, not yet compared with any other."""
    totals = tally.totals
    distributions: dict[str, Any] = {
        name: orjson.dumps(counts).decode() for name, counts in tally.distributions.items()
    }
    return SummaryRow(
        job=key[0],
        variant=key[1] or None,
        run=tally.run,
        window_start=rfc3339(clamp(start)),
        window_end=rfc3339(clamp(end)),
        pane=_PANES[pane.timing],
        pane_index=pane.index,
        computed_time=rfc3339(now),
        messages=totals["messages"],
        ok=totals["ok"],
        dead_letters=totals["messages"] - totals["ok"],
        truncated=totals["truncated"],
        tokens=totals["tokens"],
        tokens_generated=totals["tokens_generated"],
        score_p10=tally.quantile("score", 0.1),
        score_p50=tally.quantile("score", 0.5),
        score_p90=tally.quantile("score", 0.9),
        latency_p50_ms=tally.quantile("latency_ms", 0.5),
        latency_p95_ms=tally.quantile("latency_ms", 0.95),
        latency_p99_ms=tally.quantile("latency_ms", 0.99),
        input_bytes_p50=_whole(tally.quantile("input_bytes", 0.5)),
        input_bytes_p95=_whole(tally.quantile("input_bytes", 0.95)),
        **distributions,
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


_BEFORE = beam.DoFn.StateParam(ReadModifyWriteStateSpec("before", BytesCoder()))


class _CompareFn(beam.DoFn):
    """Adds the stability indices, and remembers the windows that the next ones are compared with."""

    def process(self, element: tuple[Key, SummaryRow], before: Any = _BEFORE) -> Iterator[SummaryRow]:
        _, found = element
        try:
            known: list[dict[str, Any]] = orjson.loads(before.read() or b"[]")
            found, known = with_indices(found, known)
            before.write(orjson.dumps(known))
        except Exception as error:
            survived(error, "comparing windows")
        _WINDOWS.inc()
        if found.shifted and found.pane == "on_time":
            _SHIFTED.inc()
        yield found


def with_indices(found: SummaryRow, known: list[dict[str, Any]]) -> tuple[SummaryRow, list[dict[str, Any]]]:
    """``found`` with its indices, and ``known`` with it in its place; windows are in order of their starts.

    Compared are the windows that ended before this one began: of sliding windows, none that shares messages with it.
    """
    start, end = found.window_start, found.window_end
    counts = {name: orjson.loads(getattr(found, name)) for name in COMPARED}
    earlier = [each for each in known if each["end"] <= start]
    compared = compare(found, counts, [each["counts"] for each in earlier[-BASELINE_WINDOWS:]])
    # An earlier pane of the window gives way to this one; so do the sessions that have merged into it.
    others = [each for each in known if not (start <= each["start"] and each["end"] <= end)]
    known = sorted([*others, {"start": start, "end": end, "counts": counts}], key=lambda each: str(each["start"]))
    needless = sum(each["end"] <= known[-1]["start"] for each in known) - BASELINE_WINDOWS
    return compared, known[max(0, needless, len(known) - _REMEMBERED) :]
