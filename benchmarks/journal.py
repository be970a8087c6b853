"""What the journal costs: its own time a message beside the model's, and the rate with and without it, in turns.

``python -m benchmarks.journal`` prints both for MiniLM's real weights on texts of mixed length. The rate's ratio is as
noisy as the machine; the time that the journal itself takes is not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from benchmarks import workloads  # noqa: E402
from transforms.models.handler import HuggingFaceModelHandler  # noqa: E402
from transforms.models.journal import Entry, Journal  # noqa: E402
from transforms.models.supervise import Supervisor  # noqa: E402
from transforms.records import Message, Request  # noqa: E402


class _NoJournal(Journal):
    """A journal on a disk that cannot be used."""

    def _prepare(self) -> bool:
        return False


class _Noted(Supervisor):
    """A supervisor that remembers which messages it was told of together, to do the same again without a model."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, 600.0)
        self.batches: list[tuple[Sequence[Request], list[Sequence[int]]]] = []

    def in_work(self, requests: Sequence[Request]) -> Any:
        self.batches.append((requests, []))
        return super().in_work(requests)

    def forward(self, entry: Entry, indices: Sequence[int]) -> Any:
        self.batches[-1][1].append(indices)
        return super().forward(entry, indices)


def measure(messages: int, turns: int) -> dict[str, Any]:
    """The journal's part of the time a message takes, and the rates with and without it."""
    where = Path(tempfile.mkdtemp(prefix="journal-"))
    texts = workloads.texts("mixed", messages)
    requests = [Request(text, {}, Message(b"x" * 200, {}, str(10**15 + n), 1.7e9)) for n, text in enumerate(texts)]
    handler = HuggingFaceModelHandler(workloads.model("6x384"), "text-classification", device="cpu", dtype="float32")
    model = handler.load_model()
    noted = _Noted(Journal(where))
    kinds = {"with": Supervisor(Journal(where), 600.0), "without": Supervisor(_NoJournal(where), 600.0)}

    def answer(supervisor: Supervisor) -> Callable[[], Any]:
        def run() -> None:
            model._supervisor = supervisor
            for start in range(0, messages, 1_000):
                handler.run_inference(requests[start : start + 1_000], model)

        return run

    answer(noted)()  # and warms up
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for turn in range(turns):
        for name in sorted(kinds, reverse=bool(turn % 2)):
            took[name].append(_timed(answer(kinds[name])))
    own = min(_timed(lambda: _again(kinds["with"], noted.batches))[1] for _ in range(7)) / messages
    whole = min(cpu for _, cpu in took["with"]) / messages
    rates = {name: statistics.median(messages / wall for wall, _ in each) for name, each in took.items()}
    ratios = [w[0] / j[0] for j, w in zip(took["with"], took["without"], strict=True)]
    return {
        "messages": messages,
        "forwards": sum(len(forwards) for _, forwards in noted.batches),
        "journal_cpu_us_per_message": round(own * 1e6, 2),
        "all_cpu_us_per_message": round(whole * 1e6, 1),
        "journal_share_percent": round(own / whole * 100, 3),
        "messages_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "rate_with_over_without": {
            "median": round(statistics.median(ratios), 3),
            "turns": [round(r, 3) for r in ratios],
        },
    }


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of all the process's CPUs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _again(supervisor: Supervisor, batches: Sequence[tuple[Sequence[Request], list[Sequence[int]]]]) -> None:
    """All that a supervisor does for ``batches``, and nothing else."""
    for requests, forwards in batches:
        supervisor._journal.deaths()
        with supervisor.in_work(requests) as entry:
            with supervisor.preparing(entry):
                pass
            for indices in forwards:
                with supervisor.forward(entry, indices):
                    pass


def main() -> int:
    """Returns the exit code: 1 where the journal takes a hundredth of the time or more."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    found = measure(args.messages, args.turns)
    print(json.dumps(found, indent=2))
    return 0 if found["journal_share_percent"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
