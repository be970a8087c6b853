"""``python -m benchmarks.summaries``: what window summaries cost: the same job with and without them, in turns.

Two processes of the job, one with ``--summary_table`` and windows of a second, take turns on the same messages; while
one works the other is stopped. A ratio is the median of the pairs', of the rate and of the process's CPU time for a
message: the first is as noisy as the machine, the second less. A model that costs nothing shows the most it can be.

``--workers`` measures the steps in two worker processes of Beam's local runner instead, as a service has them: the CPU
time of whole runs, less that of runs of ten messages, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import time
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.__main__ import embedded_servers
from benchmarks.measure import Run
from benchmarks.null import NullHandler
from benchmarks.workloads import model, texts
from pipeline import clients, graph
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Message
from transforms.summary import Summarise
from transforms.window import Window
from transforms.windowing import Windowing

#: Messages a turn by model: some seconds each.
COUNTS = {"null": 20_000, "6x384": 1_000}


def measure(name: str, count: int, turns: int) -> dict[str, Any]:
    """Both jobs on ``turns`` times ``count`` messages; the medians, and the median of the pairs' ratios."""
    dataset = f"summaries_{time.time_ns()}"
    client = clients.bigquery_client("my-project")
    client.create_dataset(f"my-project.{dataset}")
    flags = {"without": [], "with": [f"--summary_table=my-project:{dataset}.summary", "--window=fixed:1"]}
    folder = name if name == "null" else model(name)
    inputs = texts("short" if name == "null" else "mixed", count * turns)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in flags}
    with contextlib.ExitStack() as stack:
        runs = {}
        for kind, more in flags.items():
            runs[kind] = stack.enter_context(Run.start("ours", folder, more))
            runs[kind].warm_up(inputs[:20])
            runs[kind].process.send_signal(signal.SIGSTOP)
        for turn in range(turns):
            for kind in sorted(runs, reverse=bool(turn % 2)):
                runs[kind].process.send_signal(signal.SIGCONT)
                found[kind].append(runs[kind].turn(inputs[turn * count : (turn + 1) * count]))
                runs[kind].process.send_signal(signal.SIGSTOP)
        sql = f"SELECT COUNT(*) AS n, SUM(messages) AS m FROM `my-project.{dataset}.summary`"
        (panes,) = client.query(sql).result()
    pairs = list(zip(found["with"], found["without"], strict=True))
    return {
        "model": name,
        "messages": count * turns,
        "panes": panes["n"],
        "counted": panes["m"],
        "rates": {kind: statistics.median(rate for rate, _ in each) for kind, each in found.items()},
        "cpu_us": {kind: statistics.median(1e6 * cpu / count for _, cpu in each) for kind, each in found.items()},
        "rate_ratio": statistics.median(one[0] / other[0] for one, other in pairs),
        "cpu_ratio": statistics.median(one[1] / other[1] for one, other in pairs),
        "ratios": [round(one[0] / other[0], 3) for one, other in pairs],
    }


def on_workers(name: str, count: int, turns: int) -> str:
    """Medians of the CPU microseconds a message with and without the windows, of a minute each, as a table's row."""
    cpu = {summed: [run(name, count, summed) - run(name, 10, summed) for _ in range(turns)] for summed in (False, True)}
    without, with_them = (1e6 * statistics.median(cpu[summed]) / (count - 10) for summed in (False, True))
    return f"| {name}, worker processes | | | | {without:.0f} | {with_them:.0f} | {with_them / without:.3f} |"


def run(name: str, count: int, summed: bool) -> float:
    """CPU seconds of the worker processes that answer ``count`` messages, a hundred a second of event time."""
    now, kind = time.time(), "short" if name == "null" else "mixed"
    messages = [
        Message(json.dumps({"inputs": text}).encode(), {}, str(n), now - n / 100, now - n / 100)
        for n, text in enumerate(texts(kind, count))
    ]
    handler = NullHandler() if name == "null" else HuggingFaceModelHandler(model(name), "text-classification")
    options = PipelineOptions(["--runner=DirectRunner"], direct_num_workers=2, direct_running_mode="multi_processing")
    before = _children_s()
    with beam.Pipeline(options=options) as pipeline:
        outcome = graph.serve(pipeline | beam.Create(messages), handler)
        outcome.results | "Drop" >> beam.Map(_drop)
        if summed:
            outcomes = (outcome.results, outcome.failures) | beam.Flatten()
            tallies = outcomes | "Window" >> Window(Windowing.parse("fixed:60"), "job", "run", 3600.0)
            tallies | "Summarise" >> Summarise() | "DropRows" >> beam.Map(_drop)
    return _children_s() - before


def _drop(_: Any) -> None:
    pass


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summaries", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual messages a turn")
    parser.add_argument("--workers", action="store_true", help="in worker processes")
    args = parser.parse_args()
    os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    rows = []
    print("| model | msg/s without | with | ratio | µs of CPU a message without | with | ratio |")
    print("|---|---|---|---|---|---|---|")
    if args.workers:
        for name in args.models:
            print(on_workers(name, int(COUNTS[name] * args.share), args.turns), flush=True)
        return
    with embedded_servers():
        for name in args.models:
            row = measure(name, int(COUNTS[name] * args.share), args.turns)
            rates, cpu = row["rates"], row["cpu_us"]
            print(
                f"| {name} | {rates['without']:.0f} | {rates['with']:.0f} | {row['rate_ratio']:.3f} "
                f"| {cpu['without']:.0f} | {cpu['with']:.0f} | {row['cpu_ratio']:.3f} |",
                flush=True,
            )
            rows.append(row)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
