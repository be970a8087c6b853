"""Event times as messages carry them: what is read, and what falls back to the publish time."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone

import pytest
from failing_messages import message
from hypothesis import given
from hypothesis import strategies as st

from pipeline.direct.event_time import parse_timestamp
from transforms.encode import LAST_SECOND, rfc3339

NEVER = -1.5


def test_nanoseconds_are_read() -> None:
    """Go, .NET and protobuf write nine digits; the event time has six of them."""
    stamp = message("rfc3339-nanoseconds").attributes["ts"]
    assert rfc3339(parse_timestamp(stamp, NEVER)) == "2026-01-31T12:00:00.123456Z"


def test_the_last_second_is_read() -> None:
    """The end of the year 9999 is an event time."""
    assert parse_timestamp(message("end-of-time-timestamp").attributes["ts"], NEVER) == LAST_SECOND


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from("Tt "),
)
def test_every_rfc_3339_time_is_read(when: datetime, offset: int, between: str) -> None:
    """Any date, fraction and offset, to the microsecond that a float holds."""
    zoned = when.replace(tzinfo=timezone(timedelta(minutes=offset)))
    expected = (zoned - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()
    assert parse_timestamp(zoned.isoformat(between), NEVER) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T12:00:00.1Z", 1_769_860_800.1),
        ("2026-01-31t12:00:00.123456789012345z", 1_769_860_800.123456),
        ("2016-12-31T23:59:60Z", 1_483_228_800.0),
        ("2999-01-01T00:00:00Z", 32_472_144_000.0),
        ("1850-01-01T00:00:00Z", -3_786_825_600.0),
        ("0", 0.0),
    ],
)
def test_forms_of_time(text: str, seconds: float) -> None:
    """Fractions of any length, a leap second, the far future and the past."""
    assert parse_timestamp(text, NEVER) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00.5",
        "2026-01-31",
        "20260131T120000Z",
        "2026-01-31T12Z",
        "2026-W05-6T12:00:00Z",
        "2026-01-31T12:00:00+01",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:61Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:00.Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "٢٠٢٦-01-31T12:00:00Z",
        "1.5",
        "1e3",
        "nan",
        " 0",
        "253402300800000",
        "9" * 30,
    ],
)
def test_what_is_no_time_falls_back(text: str) -> None:
    """No offset, no RFC 3339: such a time is in a zone that nobody knows. The publish time stands in."""
    assert parse_timestamp(text, NEVER) == NEVER


def test_the_machines_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text is the same second wherever the job runs."""
    monkeypatch.setitem(os.environ, "TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert parse_timestamp("1970-01-01T00:00:00", NEVER) == NEVER
        assert parse_timestamp("1970-01-01T00:00:00Z", NEVER) == 0.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text: str) -> None:
    """Nothing is raised, and what comes out has a date."""
    assert rfc3339(parse_timestamp(text, NEVER))
