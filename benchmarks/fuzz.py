"""Fuzzes every task's tiny model: ``python -m benchmarks.fuzz --messages 100000 --seed 1``.

Through the whole job, a process over the embedded servers, with flags drawn for each: ``--steps`` takes the job's own
steps in this process in their place. Prints how many messages ended how, and the causes of each error that nobody
foresaw, at the end or when interrupted. Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.update(
    BEAM_HF_JOURNAL=tempfile.mkdtemp(prefix="journal-"),
    HF_HUB_OFFLINE="1",
    NO_GCE_CHECK="true",
    TOKENIZERS_PARALLELISM="false",
)

import fake_job  # noqa: E402
import job_fuzz  # noqa: E402
import task_fuzz  # noqa: E402
from streams import Servers  # noqa: E402

#: Messages of one round, all of one task, unless asked for otherwise.
_ROUND = 1_000

Round = tuple[str, Counter[str], Counter[str]]


def steps(seed: int, count: int) -> Iterator[Round]:
    """A round of each task through the job's own steps."""
    for task in task_fuzz.MODELS:
        yield task, *task_fuzz.run(task, count, seed, ("none", "hash", "full")[seed % 3])


def jobs(seed: int, count: int) -> Iterator[Round]:
    """A round of each task through a job of its own."""
    for lane in job_fuzz.lanes(seed):
        with tempfile.TemporaryDirectory() as folder:
            yield f"{lane.task} {lane.flags}", *job_fuzz.run(lane, count, seed, Path(folder))


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--round", type=int, default=_ROUND)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", action="store_true", help="the job's steps alone, in this process: far faster")
    args = parser.parse_args()
    logging.getLogger("transforms").addHandler(logging.NullHandler())
    logging.getLogger("transforms").propagate = False
    fake_job.PRELOAD = ["real_job"]
    ended: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    started, done, seed = time.monotonic(), 0, args.seed
    rounds = steps if args.steps else jobs
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory() as folder,
        Servers.start(Path(folder) / "tables.duckdb"),
    ):
        while done < args.messages:
            for name, found, unexpected in rounds(seed, args.round):
                ended += found
                causes += unexpected
                done += args.round
                print(f"{done:8,} {time.monotonic() - started:6.0f} s  {name} {dict(unexpected) or ''}", flush=True)
                if done >= args.messages:
                    break
            seed += 1
    how = "the job's steps" if args.steps else "whole jobs"
    print(f"{done:,} messages through {how} in {time.monotonic() - started:.0f} s: each ended once, with its row")
    for name, count in ended.most_common():
        print(f"{count:8,}  {name}")
    print(f"{causes.total():,} errors that nobody foresaw")
    for cause, count in causes.most_common():
        print(f"{count:8,}  {cause}")
    return 1 if causes else 0


if __name__ == "__main__":
    code = main()
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(code)
