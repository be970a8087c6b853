"""``python -m benchmarks.overlap``: what a slow audit table costs the model, on Dataflow's workers: JSON and a table.

Worker processes as a Dataflow VM has them: they share one model, loaded once, by Beam's own ``MultiProcessShared``.
In each, one thread a key works through its bundles: forward, encode, insert; or, with rows in a stage of their own as
:func:`pipeline.io.spread` makes it, hands the results on. Model, encoding, rows and the (embedded) table are the job's;
what is not here is the runner itself. Beam's local ones run one stage after the other, and so cannot overlap two.

With ``--forward_ms`` a forward takes that long and no core, as on a GPU: the ratios then depend little on what else
this machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.__main__ import embedded_servers
from benchmarks.workloads import model, texts
from pipeline import clients
from pipeline.audit_sink import BigQuerySink
from pipeline.emulators import setup
from pipeline.matchers import TableName
from transforms.audit_row import AuditContext, row, row_id, to_json
from transforms.encode import encode
from transforms.models.gather import KEYS, Turns
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Message, ModelInfo, Prediction, Request
from transforms.windowing import Windowing

#: Requests of a bundle, and threads that write rows: few enough that a turn of seconds has several bundles a key.
BUNDLE, WRITERS = 64, 4


@dataclass(frozen=True)
class Way:
    """How a worker is set up: its processes, the keys of each, and whether rows have a stage of their own."""

    name: str
    processes: int
    keys: int
    spread: bool


WAYS = (
    Way("one process, one key", 1, 1, False),
    Way(f"one process, {KEYS} keys, rows in a stage of their own", 1, KEYS, True),
    Way("two processes, one key each", 2, 1, False),
    Way(f"two processes, {KEYS} keys each, rows in a stage of their own", 2, KEYS, True),
)


class Device:
    """A model on a device of its own: one forward at a time, during which no core is busy."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()

    def forward(self) -> None:
        with self._lock:
            time.sleep(self._seconds)


class OnDevice(HuggingFaceModelHandler):
    """Answers every text alike, after a forward of ``Device``."""

    forward_s = 0.0

    def load_model(self) -> Any:
        return Device(self.forward_s)

    def run_inference(self, batch: Sequence[Request], model: Any, inference_args: Any = None) -> list[Any]:
        model.forward()
        info = ModelInfo("text-classification", "device", "0", "device", "float32")
        return [Prediction(request, [{"label": "A", "score": 1.0}], info) for request in batch]


def work(way: Way, table: TableName, name: str, inputs: Sequence[str], latency_s: float, begin: float) -> float:
    """One process's share, from ``begin`` on: answers ``inputs`` and writes a row each; when it ended."""
    from apache_beam.utils.multi_process_shared import MultiProcessShared

    forward_s = float(os.environ.get("OVERLAP_FORWARD_S", "0"))
    handler = (OnDevice if forward_s else HuggingFaceModelHandler)(name, "text-classification")
    OnDevice.forward_s = forward_s
    shared = MultiProcessShared(handler.load_model, tag="overlap", always_proxy=True).acquire()
    sink, context = BigQuerySink(table), AuditContext(Windowing("global"), "overlap", "0")

    def write(answers: Sequence[Prediction]) -> None:
        results = [encode(answer, clients.LIMITS) for answer in answers]
        time.sleep(latency_s)
        refused = sink.insert(
            [to_json(row(each, context, time.time())) for each in results], [row_id(each, context) for each in results]
        )
        assert not refused, refused

    def bundle(requests: Sequence[Request]) -> Future[None] | None:
        answers = handler.run_inference(requests, shared)
        if way.spread:
            return writers.submit(write, answers)
        write(answers)
        return None

    turns = Turns(way.keys, BUNDLE, 3600)
    requests = [Request(text, {}, Message(text.encode(), {}, str(n))) for n, text in enumerate(inputs)]
    if begin == 0:
        write(handler.run_inference(requests, shared))
        return time.time()
    keys = {key: ThreadPoolExecutor(1) for key in turns.keys}
    writers = ThreadPoolExecutor(WRITERS)
    time.sleep(max(0.0, begin - time.time()))
    waiting = []
    for batch in [requests[start : start + BUNDLE] for start in range(0, len(requests), BUNDLE)]:
        key, *_ = [turns.key(0.0) for _ in batch]
        waiting.append(keys[key].submit(bundle, batch))
    written = [each.result() for each in waiting]
    for each in written:
        if each is not None:
            each.result()
    return time.time()


class Workers:
    """The processes of one way, kept from turn to turn."""

    def __init__(self, way: Way, table: TableName, name: str) -> None:
        self.way, self._table, self._name = way, table, name
        context = multiprocessing.get_context("spawn")
        self._processes = [ProcessPoolExecutor(1, context) for _ in range(way.processes)]
        for process in self._processes:  # one after the other: the first loads the model
            process.submit(work, way, table, name, texts("mixed", 8), 0.0, 0.0).result()

    def rate(self, inputs: Sequence[str], latency_s: float) -> float:
        """Messages a second, all processes together."""
        begin, count = time.time() + 0.5, len(self._processes)
        running = [
            process.submit(work, self.way, self._table, self._name, inputs[place::count], latency_s, begin)
            for place, process in enumerate(self._processes)
        ]
        return len(inputs) / (max(each.result() for each in running) - begin)

    def close(self) -> None:
        for process in self._processes:
            process.shutdown()


def measure(count: int, rounds: int, latency_s: float) -> Iterator[dict[str, object]]:
    """Each way with instant and with slow inserts, in turns; the ratio is the median of the rounds'."""
    name = model("6x384")
    resources = setup.Resources.named("my-project", f"overlap-{time.time_ns()}")
    setup.create(resources)
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            # Where a worker's processes find each other, and how Beam tells them that they are a worker's.
            os.environ |= {"TMPDIR": folder, "CONTROL_API_SERVICE_DESCRIPTOR": "url: '127.0.0.1:9'"}
            tempfile.tempdir = None
            workers = Workers(way, resources.audit_table, name)
            pairs = [
                [workers.rate(texts("mixed", count, seed), each) for each in (0.0, latency_s)] for seed in range(rounds)
            ]
            workers.close()
        os.environ.pop("TMPDIR")
        tempfile.tempdir = None
        yield {
            "way": way.name,
            "gathering_keys": way.processes * way.keys,
            "instant": statistics.median(pair[0] for pair in pairs),
            "slow": statistics.median(pair[1] for pair in pairs),
            "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlap", description=__doc__)
    parser.add_argument("--messages", type=int, default=2048, help="a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency_ms", type=int, default=300, help="added to each insert")
    parser.add_argument("--forward_ms", type=int, default=0, help="a forward's length on a device that takes no core")
    args = parser.parse_args()
    os.environ["OVERLAP_FORWARD_S"] = str(args.forward_ms / 1000)
    os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    found = []
    print("| | gathering keys | instant inserts, msg/s | slow inserts, msg/s | ratio |\n|---|---|---|---|---|")
    with embedded_servers():
        for each in measure(args.messages, args.rounds, args.latency_ms / 1000):
            found.append(each)
            print("| {way} | {gathering_keys} | {instant:.0f} | {slow:.0f} | {ratio:.2f} |".format(**each), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
