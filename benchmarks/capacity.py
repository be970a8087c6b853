"""How many Dataflow workers: ``python -m benchmarks.capacity --rate 500 --per_worker 280 --price 0.24``.

``per_worker`` is what one worker was measured to do, ``price`` the user's own price of one worker for an hour.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

#: Above this share of a worker's capacity the queue in front of it, and so the latency, grows steeply.
BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """Workers for steady arrivals, and what they cost a million messages."""

    workers: int
    busy: float
    drain_s: float
    cost_per_million: float


def plan(rate: float, per_worker: float, price: float, latency_s: float, backlog: int = 0) -> Plan:
    """Workers that keep up with ``rate`` messages a second, each doing ``per_worker`` at full batches.

    A message waits for the batch in work and then for its own. In ``latency_s`` a worker must so do twice what arrives
    in half of it: it is kept at most ``BUSY`` busy. ``backlog`` messages are worked off with what is left over.

    Raises:
        ValueError: a number is not positive, or no number of workers can answer one message in ``latency_s``.
    """
    if min(rate, per_worker, price, latency_s) <= 0:
        raise ValueError("rate, per_worker, price and latency must be more than 0")
    if 2 / per_worker > latency_s:
        raise ValueError(
            f"a message behind another takes {2 / per_worker:.2f} s, over --latency {latency_s}; use a smaller model"
        )
    workers = math.ceil(rate / (per_worker * BUSY))
    spare = workers * per_worker - rate
    return Plan(workers, rate / (workers * per_worker), backlog / spare, workers * price / 3600 / rate * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--rate", type=float, required=True, help="messages a second that arrive")
    parser.add_argument(
        "--per_worker", type=float, required=True, help="messages a second that one worker does (make bench)"
    )
    parser.add_argument("--price", type=float, required=True, help="your price of one worker for an hour")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds from publish to result (default 2)")
    parser.add_argument("--backlog", type=int, default=0, help="messages that wait already")
    args = parser.parse_args()
    try:
        found = plan(args.rate, args.per_worker, args.price, args.latency, args.backlog)
    except ValueError as error:
        parser.error(str(error))
    print(f"workers:            {found.workers}  (--num_workers and --max_num_workers)")
    print(f"busy:               {found.busy:.0%}")
    print(f"backlog worked off: {found.drain_s:.0f} s")
    print(f"cost per million:   {found.cost_per_million:.2f} = workers x price / 3600 / rate x 1e6, in your currency")


if __name__ == "__main__":
    main()
