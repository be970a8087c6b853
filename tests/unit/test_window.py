"""Window: the flag's language, and windows as Beam itself assigns them."""

import pytest
from apache_beam.transforms import window as beam_window
from apache_beam.utils.timestamp import Timestamp
from failing_messages import case
from hypothesis import given
from hypothesis import strategies as st

from transforms.encode import FIRST_SECOND, LAST_SECOND, rfc3339
from transforms.windowing import Windowing

TIMES = st.integers(-(10**9), 4 * 10**9)


@given(TIMES, st.integers(1, 86_400))
def test_fixed_windows_are_beams(time, size):
    """fixed:SIZE gives the window that Beam's FixedWindows assigns."""
    (expected,) = beam_window.FixedWindows(size).assign(_at(time))
    assert Windowing.parse(f"fixed:{size}").bounds(time) == (expected.start, expected.end)


@given(TIMES, st.integers(1, 1000), st.integers(1, 50))
def test_sliding_windows_are_the_last_of_beams(time, period, factor):
    """Of the windows that Beam's SlidingWindows assigns, the one that starts last."""
    size = period * factor
    last = max(beam_window.SlidingWindows(size, period).assign(_at(time)), key=lambda each: each.start)
    assert Windowing.parse(f"sliding:{size}:{period}").bounds(time) == (last.start, last.end)


@given(TIMES, st.integers(1, 86_400))
def test_sessions_are_beams_before_merging(time, gap):
    """session:GAP gives the proto-session that Beam assigns."""
    (expected,) = beam_window.Sessions(gap).assign(_at(time))
    assert Windowing.parse(f"session:{gap}").bounds(time) == (expected.start, expected.end)


def test_global_has_no_bounds():
    """The global window leaves the audit row's bounds null."""
    assert Windowing.parse("global").bounds(0.0) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fixd:60", "unknown kind 'fixd'"),
        ("", "unknown kind ''"),
        ("fixed", "takes 1 number"),
        ("fixed:60:30", "takes 1 number"),
        ("fixed:sixty", "'sixty' is not in seconds"),
        ("fixed:0", "must be positive"),
        ("fixed:-1", "must be positive"),
        ("fixed:nan", "must be positive"),
        ("fixed:inf", "must be positive"),
        ("fixed:1e400", "must be positive"),
        ("fixed:999999999999", "to 316224000 (ten years)"),
        ("session:316224001", "to 316224000 (ten years)"),
        ("sliding:1e12:60", "to 316224000 (ten years)"),
        ("fixed:1e-9", "from 0.001"),
        ("fixed:1_0", "is not in seconds"),
        ("fixed: 60", "is not in seconds"),
        ("fixed:６0", "is not in seconds"),
        ("sliding:30:60", "leaves gaps"),
        ("global:1", "takes 0 number"),
        ("fixed:999999999999", "ten years"),
        ("session:1e300", "ten years"),
        ("sliding:60:1e-9", "from 0.001 to"),
    ],
)
def test_bad_windows_are_named(text, words):
    """A wrong --window says what is wrong with it and what to write instead."""
    with pytest.raises(ValueError, match="use fixed:SECONDS") as error:
        Windowing.parse(text)
    assert words in str(error.value)


@given(
    st.floats(FIRST_SECOND, LAST_SECOND) | st.sampled_from([FIRST_SECOND, LAST_SECOND]),
    st.sampled_from(["fixed", "sliding", "session"]),
    st.floats(0.001, 36_525 * 86_400),
)
def test_every_window_of_every_time_has_a_date(time, kind, size):
    """At both ends of the calendar a window's bound is the end itself: a row can always be written."""
    start, end = Windowing(kind, size, size / 2).bounds(time)
    assert start <= time <= end
    assert rfc3339(start) <= rfc3339(time) <= rfc3339(end)


def test_a_window_beyond_the_calendar_is_refused_at_launch():
    """The flag of the report is one line of error."""
    flag = case("window-beyond-calendar")["flags"][0].removeprefix("--window=")
    with pytest.raises(ValueError, match="from 0.001 to 316224000"):
        Windowing.parse(flag)


def _at(time):
    return beam_window.WindowFn.AssignContext(Timestamp.of(time))
