"""``capacity``: how many Dataflow workers, and the month's bill for them, for Pub/Sub and for BigQuery.

What a worker does and what a message weighs are the user's own measurements (``beam-hf-inference bench``); prices are
list prices, and flags.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import flags
from pipeline.command import command
from pipeline.flags import Flag, UsageError
from pipeline.matchers import COUNT, Decimal, Integer, positive, seconds

_ABOUT = (
    "Turns messages a second into Dataflow workers and a month's bill. `beam-hf-inference bench` measures what one "
    "worker does with your model and messages, and how many bytes they have; the prices are list prices in US dollars "
    "unless you give your own."
)
_LOAD, _BYTES, _PRICES = "Load", "Bytes a message, as bench measures them", "Prices"
_MONEY = Decimal(1_000_000, "a price over 0")
FLAGS = (
    Flag("rate", "messages a second that arrive, on average", positive, required=True, group=_LOAD),
    Flag("peak", "messages a second that workers must keep up with; without it, --rate", positive, group=_LOAD),
    Flag("per_worker", "messages a second that one worker does", positive, required=True, group=_LOAD),
    Flag("latency", "seconds from publish to result that are asked for", seconds, "2", group=_LOAD),
    Flag("backlog", "messages that wait already", COUNT, group=_LOAD),
    Flag("message_bytes", "body and attributes of a message", COUNT, "1000", group=_BYTES),
    Flag("result_bytes", "of a result", COUNT, "1000", group=_BYTES),
    Flag("row_bytes", "of an audit row; 0 without an audit table", Integer(0, 10_000_000), "1000", group=_BYTES),
    Flag("readers", "subscriptions that read the results", Integer(0, 1000), "1", group=_BYTES),
    Flag("kept_days", "days for which rows are kept", COUNT, "365", group=_BYTES),
    Flag("price", "one worker for an hour", _MONEY, required=True, group=_PRICES),
    Flag("pubsub_price", "a TiB published or delivered", _MONEY, "40", group=_PRICES),
    Flag("insert_price", "a GB of rows inserted", _MONEY, "0.05", group=_PRICES),
    Flag("storage_price", "a GB of rows kept for a month", _MONEY, "0.02", group=_PRICES),
    Flag("json", "print the plan as JSON", switch=True),
)

#: Above this share of a worker's capacity the queue in front of it, and so the latency, grows steeply.
BUSY = 0.8

#: A month has 365 / 12 days.
MONTH_S = 365 / 12 * 86_400

#: Least that is billed: of a publish request (https://cloud.google.com/pubsub/pricing), and most publishers send one
#: message in each; of a row (https://cloud.google.com/bigquery/pricing#data_ingestion_pricing). And what Pub/Sub adds
#: to a message: its id and time.
LEAST_REQUEST_BYTES, LEAST_ROW_BYTES, PUBSUB_BYTES = 1000, 1024, 40


@dataclass(frozen=True, slots=True)
class Plan:
    """Workers for steady arrivals, how busy they are, and how long they take for a backlog."""

    workers: int
    busy: float
    drain_s: float
    cost_per_million: float


@dataclass(frozen=True, slots=True)
class Bill:
    """A month, by what it is paid for; ``kept`` is what rows cost once as many days of them as asked for are there."""

    workers: float
    pubsub: float
    inserted: float
    kept: float

    @property
    def total(self) -> float:
        return self.workers + self.pubsub + self.inserted + self.kept


def plan(rate: float, per_worker: float, price: float, latency_s: float, backlog: int = 0) -> Plan:
    """Workers that keep up with ``rate`` messages a second, each doing ``per_worker`` at full batches.

    A message waits for the batch in work and then for its own. In ``latency_s`` a worker must so do twice what arrives
    in half of it: it is kept at most ``BUSY`` busy. ``backlog`` messages are worked off with what is left over.

    Raises:
        ValueError: no number of workers can answer one message in ``latency_s``.
    """
    if 2 / per_worker > latency_s:
        raise ValueError(
            f"a message behind another takes {2 / per_worker:.2f} s, over --latency {latency_s}; use a smaller model"
        )
    workers = math.ceil(rate / (per_worker * BUSY))
    spare = workers * per_worker - rate
    return Plan(workers, rate / (workers * per_worker), backlog / spare, workers * price / 3600 / rate * 1e6)


def bill(found: Plan, given: dict[str, Any]) -> Bill:
    """What ``found`` costs in a month, with bytes and prices of ``given``, the flags by name."""
    messages = given["rate"] * MONTH_S
    message, result = given["message_bytes"] + PUBSUB_BYTES, given["result_bytes"] + PUBSUB_BYTES
    # The input is published and delivered; a result is published, by the thousand, and delivered to its readers.
    through = messages * (max(message, LEAST_REQUEST_BYTES) + message + result * (1 + given["readers"]))
    row = max(given["row_bytes"], LEAST_ROW_BYTES) if given["row_bytes"] else 0
    kept = given["row_bytes"] * given["rate"] * 86_400 * given["kept_days"]
    return Bill(
        workers=found.workers * given["price"] * MONTH_S / 3600,
        pubsub=through / 2**40 * given["pubsub_price"],
        inserted=messages * row / 2**30 * given["insert_price"],
        kept=kept / 2**30 * given["storage_price"],
    )


@command
def main(argv: Sequence[str]) -> int:
    """Prints the plan and the bill; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("capacity", "pipeline.capacity", _ABOUT, FLAGS)
    try:
        given = flags.read(FLAGS, argv)
        rate, peak = given["rate"], given["peak"] or given["rate"]
        if peak < rate:
            raise UsageError(f"--peak {peak:g}: is less than --rate {rate:g}")
        try:
            found = plan(peak, given["per_worker"], given["price"], given["latency"], given["backlog"] or 0)
        except ValueError as error:
            raise UsageError(str(error)) from None
    except UsageError as error:
        return flags.wrong_usage(error)
    month = bill(found, given)
    if given["json"]:
        print(json.dumps({**asdict(found), "month": {**asdict(month), "total": month.total}}, indent=2))
        return 0
    print(f"workers             {found.workers}  (--num_workers and --max_num_workers)")
    print(f"busy                {found.busy:.0%}")
    if given["backlog"]:
        print(f"backlog worked off  {found.drain_s:.0f} s")
    print(f"workers, a million  {found.cost_per_million:.2f}")
    print(f"\nA month of {rate * MONTH_S / 1e6:,.1f} million messages, without free tiers, discounts and queries:")
    for name, amount in (
        (f"{found.workers} workers", month.workers),
        ("Pub/Sub", month.pubsub),
        ("BigQuery, inserts", month.inserted),
        (f"BigQuery, {given['kept_days']} days of rows", month.kept),
        ("total", month.total),
    ):
        print(f"  {name:<28}{amount:>12,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
