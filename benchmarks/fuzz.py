"""Fuzzes every task's tiny model through the job's own steps: ``python -m benchmarks.fuzz --messages 100000 --seed 1``.

Prints how many messages ended how, and the causes of each error that nobody foresaw. Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.update(
    BEAM_HF_JOURNAL=tempfile.mkdtemp(prefix="journal-"),
    HF_HUB_OFFLINE="1",
    NO_GCE_CHECK="true",
    TOKENIZERS_PARALLELISM="false",
)

import task_fuzz  # noqa: E402, I001 - tests/support/task_fuzz.py, see sys.path

#: Messages of one round, all of one task.
_ROUND = 500


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.getLogger("transforms").addHandler(logging.NullHandler())
    logging.getLogger("transforms").propagate = False
    ended: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    started, done, seed = time.monotonic(), 0, args.seed
    while done < args.messages:
        for task in task_fuzz.MODELS:
            found, unexpected = task_fuzz.run(task, _ROUND, seed, ("none", "hash", "full")[seed % 3])
            ended += found
            causes += unexpected
            done += _ROUND
        seed += 1
    print(f"{done:,} messages to {len(task_fuzz.MODELS)} tasks in {time.monotonic() - started:.0f} s, each ended once")
    for name, count in ended.most_common():
        print(f"{count:8,}  {name}")
    print(f"{causes.total():,} errors that nobody foresaw")
    for cause, count in causes.most_common():
        print(f"{count:8,}  {cause}")
    return 1 if causes else 0


if __name__ == "__main__":
    sys.exit(main())
