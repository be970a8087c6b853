"""capacity: workers that keep up, and a month's bill that follows from measured bytes and given prices."""

from __future__ import annotations

import json

import pytest

from pipeline import capacity

FLAGS = ["--rate=500", "--per_worker=280", "--price=0.24"]


def test_workers_keep_up_with_room_to_spare() -> None:
    """No plan lets a worker be busier than its bound, and the cost is the user's own price for the hours used."""
    found = capacity.plan(rate=500, per_worker=280, price=0.24, latency_s=2, backlog=1000)
    assert found.workers == 3 and found.busy == pytest.approx(500 / 840)
    assert found.drain_s == pytest.approx(1000 / 340)
    assert found.cost_per_million == pytest.approx(3 * 0.24 / 3600 / 500 * 1e6)


def test_a_month_is_the_bytes_at_their_prices(capsys) -> None:
    """Each line of the bill by hand: workers, what goes through Pub/Sub, rows inserted and kept."""
    sizes = ["--message_bytes=5000", "--result_bytes=300", "--row_bytes=2048", "--readers=2", "--kept_days=30"]
    assert capacity.main([*FLAGS, *sizes, "--json"]) == 0
    month = json.loads(capsys.readouterr().out)["month"]
    messages = 500 * 365 / 12 * 86400
    assert month["workers"] == pytest.approx(3 * 0.24 * 365 / 12 * 24)
    assert month["pubsub"] == pytest.approx(messages * (2 * 5040 + 3 * 340) / 2**40 * 40)
    assert month["inserted"] == pytest.approx(messages * 2048 / 2**30 * 0.05)
    assert month["kept"] == pytest.approx(500 * 86400 * 30 * 2048 / 2**30 * 0.02)
    assert month["total"] == pytest.approx(sum(month[name] for name in ("workers", "pubsub", "inserted", "kept")))


def test_small_messages_and_rows_cost_the_least_that_is_billed(capsys) -> None:
    """A request counts a thousand bytes and a row a KiB, however small; no table, no rows."""
    assert capacity.main([*FLAGS, "--message_bytes=10", "--result_bytes=10", "--row_bytes=10", "--json"]) == 0
    month, messages = json.loads(capsys.readouterr().out)["month"], 500 * 365 / 12 * 86400
    assert month["pubsub"] == pytest.approx(messages * (1000 + 3 * 50) / 2**40 * 40)
    assert month["inserted"] == pytest.approx(messages * 1024 / 2**30 * 0.05)
    assert capacity.main([*FLAGS, "--row_bytes=0", "--json"]) == 0
    month = json.loads(capsys.readouterr().out)["month"]
    assert (month["inserted"], month["kept"]) == (0, 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--rate=0"], "--rate '0': use a number over 0"),
        (["--price=-1"], "--price '-1': use a price over 0"),
        (["--latency=0.001"], "over --latency 0.001; use a smaller model"),
        (["--peak=1"], "--peak 1: is less than --rate 500"),
    ],
)
def test_what_cannot_be_planned_is_said(wrong, words, capsys) -> None:
    """A number that is not positive, a latency that one worker cannot reach, a peak under the average."""
    assert capacity.main([*FLAGS, *wrong]) == 2
    assert words in capsys.readouterr().err
