"""Tallies: what is counted in parts is what is counted whole, and lies in the windows that Beam gives it."""

from __future__ import annotations

import math
import pickle
import random

import pytest
from apache_beam.transforms.window import WindowFn
from apache_beam.utils.timestamp import Timestamp
from fakes import INFO
from hypothesis import given
from hypothesis import strategies as st

from transforms.records import Failure, Message, Prediction, Request, Result
from transforms.summary_row import chance, stability_index
from transforms.tally import LABELS, OTHERS, Tally
from transforms.window import count, session_stamps
from transforms.windowing import Windowing


def result(time: float, label: object = "billing", score: object = 0.9, size: int = 10, **more: int) -> Result:
    message = Message(b"x" * size, message_id=str(time), publish_time=time, event_time=time)
    prediction = Prediction(Request("x", message=message), [{"label": label, "score": score}], INFO, **more)
    return Result(prediction, b"", b"", {}, "")


def dead(time: float, stage: str = "decode") -> Failure:
    return Failure(Message(b"?", publish_time=time, event_time=time), stage, "InvalidInput", "no", time)


def of(*outcomes: Result | Failure) -> Tally:
    tally = Tally("run")
    tally.add(outcomes, 100.0)
    return tally


def test_parts_are_the_whole():
    """Tallies merged in any order count what one tally of all counts, and travel as bytes."""
    draw = random.Random(3)
    outcomes = [
        dead(n, draw.choice(["decode", "predict"]))
        if n % 7 == 0
        else result(n, draw.choice("abc"), n / 300, n, tokens=3)
        for n in range(300)
    ]
    whole, merged = of(*outcomes), Tally()
    parts = [of(*outcomes[start : start + 20]) for start in range(0, 300, 20)]
    draw.shuffle(parts)
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(Tally.decode(part.encode()))))
    assert merged.totals == whole.totals and merged.distributions == whole.distributions
    assert merged.totals["messages"] == 300 and merged.totals["tokens"] == 3 * merged.totals["ok"] == 3 * 257
    assert merged.run == "run" and parts[0].totals["messages"] == 20
    for rank in (0.1, 0.5, 0.9):
        assert merged.quantile("input_bytes", rank) == pytest.approx(whole.quantile("input_bytes", rank), abs=15)
        assert merged.quantile("score", rank) == pytest.approx(rank, abs=0.05)
    assert Tally().quantile("score", 0.5) is None


def test_what_cannot_be_counted_costs_no_other(caplog):
    """A message on which counting fails is told, without its text, and the others are counted."""
    broken = Result(None, b"", b"", {}, "secret")  # type: ignore[arg-type]
    tallies = list(count([result(1), broken, result(2)], Windowing.parse("fixed:60"), "job", "run", 5.0))
    assert [tally.totals["messages"] for _, _, tally in tallies] == [2]
    assert "AttributeError" in caplog.text and "secret" not in caplog.text


def test_odd_predictions_are_counted_without_label():
    """No label, no list, NaN and endless labels: the message counts, and what it lacks is left out."""
    tally = of(result(1, None, math.nan), result(2, 7, "high"), result(3, "x" * 5000, math.inf))
    assert tally.totals["ok"] == 3 and set(tally.distributions["labels"]) == {"7", "x" * 200}
    assert tally.distributions["score_bins"] == {} and tally.quantile("score", 0.5) is None


@pytest.mark.parametrize("score", [1e300, -1e300, 10**400, 3e38, -3e38, math.inf, math.nan, True])
@pytest.mark.parametrize("published", [1.0, -math.inf, math.inf, math.nan, 1e300])
def test_no_number_is_too_large_for_a_row(score, published):
    """Whatever a model scores and a clock says, the message is counted and its quantiles are numbers or null."""
    message = Message(b"x", publish_time=published, event_time=1.0)
    made = Prediction(Request("x", message=message), [{"label": "a", "score": score}], INFO)
    found = of(Result(made, b"", b"", {}, ""))
    assert found.totals["ok"] == 1 and found.distributions["labels"] == {"a": 1}
    for name in ("score", "latency_ms"):
        value = found.quantile(name, 0.5)
        assert value is None or math.isfinite(value)


def test_labels_that_messages_give_do_not_fill_the_memory():
    """Beyond a thousand labels, the rest are counted together, also where tallies are merged."""
    first, second = (of(*(result(n, f"label {side} {n}") for n in range(900))) for side in "ab")
    first.merge(second)
    labels = first.distributions["labels"]
    assert len(labels) == LABELS + 1 and sum(labels.values()) == 1800 and labels[OTHERS] == 800


_TIMES = st.lists(st.floats(-1e6, 1e6).map(lambda t: round(t, 3)), min_size=1, max_size=40)
_KINDS = st.sampled_from(["fixed:60", "fixed:0.001", "sliding:60:25", "sliding:60:60", "sliding:7:0.5"])


@given(_TIMES, _KINDS)
def test_a_tally_is_in_the_windows_of_all_its_messages(times, kind):
    """What is stamped with one event time lies in the very windows in which Beam puts each of its messages."""
    windowing = Windowing.parse(kind)
    assign = lambda micros: windowing.beam().assign(WindowFn.AssignContext(Timestamp(micros=micros)))  # noqa: E731
    expected: dict = {}
    for time in times:
        for window in assign(Timestamp(time).micros):
            expected[window] = expected.get(window, 0) + 1
    found: dict = {}
    for micros, _, tally in count([result(time) for time in times], windowing, "job", "run", 0.0):
        for window in assign(micros):
            found[window] = found.get(window, 0) + tally.totals["messages"]
    assert found == expected


@given(st.lists(st.integers(0, 200), min_size=1, max_size=30), st.integers(1, 30))
def test_few_stamps_give_the_same_sessions(times, gap):
    """The stamps that stand for a bundle's messages merge into the sessions that all of them would."""
    stamps = session_stamps(sorted(set(times)), gap)
    assert set(stamps) <= set(times) and sessions(stamps, gap) == sessions(times, gap)


def sessions(times: list[int], gap: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for time in sorted(times):
        if found and time < found[-1][1]:
            found[-1] = (found[-1][0], time + gap)
        else:
            found.append((time, time + gap))
    return found


def test_a_busy_session_is_few_tallies():
    """Ten thousand messages within a minute and a gap of ten seconds are a dozen tallies."""
    messages = [result(n * 0.006) for n in range(10_000)]
    tallies = [tally for _, _, tally in count(messages, Windowing.parse("session:10"), "job", "run", 0.0)]
    assert len(tallies) < 15 and sum(tally.totals["messages"] for tally in tallies) == 10_000


def test_the_index_is_the_textbook_one():
    """Equal mixes give about 0, the worked example its sum, what is new stays finite, and few messages give none."""
    assert stability_index({"a": 500, "b": 500}, {"a": 5000, "b": 5000}) == pytest.approx(0, abs=1e-6)
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert stability_index({"a": 60_000, "b": 40_000}, {"a": 50_000, "b": 50_000}) == pytest.approx(expected, rel=1e-3)
    assert 1 < stability_index({"new": 100}, {"old": 100}) < math.inf
    assert stability_index({"a": 29}, {"a": 1000}) is None


def test_chance_alone_is_no_shift():
    """Of small windows of one unchanged mix, about one in a thousand is beyond what chance is taken to give."""
    draw = random.Random(11)
    names = [f"label {n}" for n in range(8)]
    beyond = 0
    for _ in range(2_000):
        now, before = (dict.fromkeys(names, 0) for _ in range(2))
        for counts, size in ((now, 60), (before, 600)):
            for name in draw.choices(names, k=size):
                counts[name] += 1
        beyond += stability_index(now, before) > chance(now, before)
    assert beyond < 12
