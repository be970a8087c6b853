"""Windows under a TestStream, on the runner that a job on this machine has: panes, lateness, sessions, slides."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.direct.evaluation_context import DirectUnmergedState
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.trigger import create_trigger_driver
from apache_beam.transforms.window import IntervalWindow, TimestampedValue
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue
from fakes import FakeHandler

from pipeline import graph
from pipeline.direct.panes import let_go
from pipeline.direct.runner import LocalRunner
from transforms import window
from transforms.records import Message
from transforms.summary import Summarise
from transforms.tally import Tally
from transforms.window import Window
from transforms.windowing import Windowing

#: What came out of the last graph; its steps are pickled, and find these by their names.
ROWS: list[Any] = []
PREDICTED: list[Any] = []


def keep_row(row: Any) -> None:
    ROWS.append(row)


def keep_prediction(outcome: Any) -> None:
    PREDICTED.append(outcome)


def at(time: float, text: str = "hello", published: float | None = None, **attributes: str) -> TimestampedValue:
    body = json.dumps({"inputs": text}).encode() if text else b"\xff"
    message = Message(body, attributes, f"{text}-{time}", time if published is None else published, time)
    return TimestampedValue(message, time)


def panes(
    stream: TestStream, kind: str, lateness: int = 100, early_s: int | None = None, runner: Any = None
) -> tuple[list[tuple], dict[str, int]]:
    """What the graph's steps make of ``stream``: (start, end, pane, messages, ok) in order, and the counters."""
    ROWS.clear()
    PREDICTED.clear()
    options = PipelineOptions(["--streaming"])
    pipeline = beam.Pipeline(runner or LocalRunner(), options=options)
    outcome = graph.serve(pipeline | stream, FakeHandler())
    outcomes = outcome | beam.Flatten()
    outcomes | "Predicted" >> beam.Map(keep_prediction)
    windows = Window(Windowing.parse(kind), "job", "run", lateness, early_s)
    outcomes | "Window" >> windows | "Summarise" >> Summarise() | "Rows" >> beam.Map(keep_row)
    result = pipeline.run()
    result.wait_until_finish()
    counters = {
        each.key.metric.name: each.committed
        for each in result.metrics().query(MetricsFilter().with_namespace("pipeline"))["counters"]
    }
    counters["predicted"] = len(PREDICTED)
    found = [(second(r.window_start), second(r.window_end), r.pane, r.messages, r.ok) for r in ROWS]
    return found, counters


def second(text: str) -> int:
    """Seconds since the epoch of a time on its first day."""
    return int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])


@pytest.mark.parametrize("runner", [LocalRunner, BundleBasedDirectRunner])
def test_early_on_time_and_late_panes_accumulate(runner):
    """A window has a pane each few seconds while it is open, one at the watermark, and one for each late bundle."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(1), at(2), at(3, "")])
        .advance_processing_time(20)
        .add_elements([at(30)])
        .advance_watermark_to(60)
        .add_elements([at(5)])
        .advance_watermark_to(90)
        .add_elements([at(6, "")])
        .advance_watermark_to_infinity()
    )
    found, _ = panes(stream, "fixed:60", early_s=10, runner=runner())
    assert found == [
        (0, 60, "early", 3, 2),
        (0, 60, "on_time", 4, 3),
        (0, 60, "late", 5, 4),
        (0, 60, "late", 6, 4),
    ]


def test_what_is_later_than_allowed_is_counted_and_in_no_pane():
    """A message past its window's end and the lateness has its result, and is counted; no pane has it."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(1)])
        .advance_watermark_to(100)
        .add_elements([at(2)])
        .advance_watermark_to(161)
        .add_elements([at(3), at(4), at(110)])
        .advance_watermark_to_infinity()
    )
    found, counters = panes(stream, "fixed:60", lateness=100)
    assert found == [(0, 60, "on_time", 1, 1), (0, 60, "late", 2, 2), (60, 120, "late", 1, 1)]
    assert counters["summary_too_late"] == 2 and counters["predicted"] == 5


def test_sliding_windows_count_twice_and_predict_once():
    """A message in two sliding windows is in the panes of both; the model saw it once."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(35), at(40), at(65)])
        .advance_watermark_to(200)
        .advance_watermark_to_infinity()
    )
    found, counters = panes(stream, "sliding:60:30")
    assert sorted(found) == [(0, 60, "on_time", 2, 2), (30, 90, "on_time", 3, 3), (60, 120, "on_time", 1, 1)]
    assert counters["predicted"] == 3


def test_sessions_merge():
    """Messages less than the gap apart are one session, also where a late one joins two."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(0), at(5)])
        .add_elements([at(20)])
        .advance_watermark_to(31)
        .add_elements([at(12)])
        .advance_watermark_to(100)
        .add_elements([at(200)])
        .advance_watermark_to_infinity()
    )
    found, _ = panes(stream, "session:10")
    assert found == [
        (0, 15, "on_time", 2, 2),
        (20, 30, "on_time", 1, 1),
        (0, 30, "late", 4, 4),
        (200, 210, "on_time", 1, 1),
    ]


def test_idle_windows_have_no_row_and_hold_nothing_up():
    """Minutes without a message have no rows; the ones before and after come on time."""
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([at(1)])
        .advance_watermark_to(3600)
        .add_elements([at(3601)])
        .advance_watermark_to(3660)
        .advance_watermark_to_infinity()
    )
    found, _ = panes(stream, "fixed:60")
    assert found == [(0, 60, "on_time", 1, 1), (3600, 3660, "on_time", 1, 1)]


def test_a_late_tally_holds_no_watermark_for_ever():
    """Beam's driver holds one for what is late to a window whose end the output's watermark has not reached yet."""
    into = Window(Windowing("fixed", 10.0), "job", "run", 3600)._into
    driver = create_trigger_driver(into.windowing)
    state = DirectUnmergedState()
    late = WindowedValue(Tally(), Timestamp(5), (IntervalWindow(0, 10),))
    (pane,) = driver.process_elements(state, [late], output_watermark=Timestamp(0), input_watermark=Timestamp(20))
    assert len(pane.value) == 1
    assert state.get_earliest_hold() < MAX_TIMESTAMP and not state.get_timers()[0], "the driver has been mended"
    let_go(state)
    assert state.get_earliest_hold() == MAX_TIMESTAMP

    soon = WindowedValue(Tally(), Timestamp(25), (IntervalWindow(20, 30),))
    assert not list(driver.process_elements(state, [soon], Timestamp(20), Timestamp(20)))
    let_go(state)
    assert state.get_earliest_hold() < Timestamp(30), "the pane at the window's end is still waited for"


def test_a_drain_sums_up_what_is_open():
    """At the end of the input every open window has its pane."""
    stream = TestStream().advance_watermark_to(0).add_elements([at(1), at(61)]).advance_watermark_to_infinity()
    found, _ = panes(stream, "fixed:60")
    assert sorted(found) == [(0, 60, "on_time", 1, 1), (60, 120, "on_time", 1, 1)]


def test_ends_of_the_calendar_are_windows_too():
    """Event times of the years 1 and 9999 have windows, whose bounds a timestamp column can hold."""
    first, last = -62_135_596_800.0, 253_402_300_799.0
    stream = (
        TestStream()
        .add_elements([at(first), at(last), at(50)])
        .advance_watermark_to(100)
        .advance_watermark_to_infinity()
    )
    found, counters = panes(stream, "fixed:100000000")
    assert [each[3] for each in found] == [1, 1, 1] and counters["predicted"] == 3


def test_a_shift_shows_and_a_restart_of_the_mix_does_not():
    """Eight windows whose label mix shifts half way: steady before, flagged at the shift and counted."""
    stream = TestStream().advance_watermark_to(0)
    for minute in range(8):
        texts = [("" if n % 10 < (7 if minute >= 4 else 1) else "hello") for n in range(300)]
        stream = stream.add_elements([at(60 * minute + n / 5 - 0.0, text) for n, text in enumerate(texts)])
        stream = stream.advance_watermark_to(60 * (minute + 1))
    ROWS.clear()
    pipeline = beam.Pipeline(LocalRunner(), options=PipelineOptions(["--streaming"]))
    outcome = graph.serve(pipeline | stream.advance_watermark_to_infinity(), FakeHandler())
    windows = Window(Windowing.parse("fixed:60"), "job", "run", 100)
    outcome | beam.Flatten() | "Window" >> windows | "Summarise" >> Summarise() | beam.Map(keep_row)
    pipeline.run().wait_until_finish()
    # Bytes that are no text are dead letters of one byte: the lengths shift.
    assert [row.shifted for row in ROWS] == [None, False, False, False, True, True, True, True]
    assert ROWS[1].psi_input_bytes < 0.1 < 0.25 < ROWS[4].psi_input_bytes
    assert ROWS[0].psi_label is None and ROWS[4].psi_label < 0.1


def test_clocks_that_disagree_cost_nothing():
    """Published in the future, before 1970 or at no time at all: counted by event time, in rows of finite numbers."""
    stream = TestStream().advance_watermark_to(0)
    published = [4e9, -1e9, 0.0, 253_402_300_799.0, float("nan"), float("inf"), -float("inf")]
    for number, each in enumerate(published):
        stream = stream.add_elements([at(number, published=each)])
    found, counters = panes(stream.advance_watermark_to_infinity(), "fixed:60")
    assert found == [(0, 60, "on_time", 7, 7)] and counters["predicted"] == 7
    (row,) = ROWS
    json.dumps(dataclasses.asdict(row), allow_nan=False)


@pytest.mark.parametrize("broken", ["merge", "quantile"])
def test_nothing_in_the_windows_can_fail_a_message(monkeypatch, caplog, broken):
    """Whatever raises in the summary's steps, every message is predicted and the job ends well; the log tells."""
    caplog.set_level(logging.ERROR)

    def breaks(*arguments: Any) -> Any:
        raise OverflowError("beyond the calendar")

    monkeypatch.setattr(Tally, broken, breaks)
    stream = TestStream().advance_watermark_to(0).add_elements([at(1), at(2)]).advance_watermark_to_infinity()
    found, counters = panes(stream, "fixed:60")
    assert found == [] and counters["predicted"] == 2 and "OverflowError" in caplog.text


def test_a_clock_that_breaks_costs_a_count(monkeypatch, caplog):
    """An error where messages are stamped with time is survived as well."""
    monkeypatch.setattr(window, "count", None)
    stream = TestStream().advance_watermark_to(0).add_elements([at(1)]).advance_watermark_to_infinity()
    found, counters = panes(stream, "fixed:60")
    assert found == [] and counters["predicted"] == 1 and "TypeError" in caplog.text
