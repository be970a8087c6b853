"""Runs systems over embedded (or Google's) servers and measures them, once each has produced every result.

The speed of a shared machine drifts by a fifth and more within seconds. So systems that are compared take turns, a few
seconds each, several rounds long; while one works the others are stopped, and a ratio is the median of the rounds'.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.pubsub_v1 import SubscriberClient

from benchmarks.raw_process import Incomplete, Raw
from benchmarks.workloads import CACHE
from pipeline import clients, publish
from pipeline.emulators import setup
from transforms.records import Message

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """One system's process over resources of its own."""

    system: str
    model: str
    resources: setup.Resources
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.time)
    published: int = 0

    @classmethod
    def start(cls, system: str, model: str, flags: Sequence[str] = ()) -> Run:
        resources = setup.Resources.named("my-project", f"bench-{time.time_ns()}")
        setup.create(resources)
        log = CACHE / "logs" / f"{resources.input_topic.rpartition('/')[2]}-{system.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.systems", system, model, *resources.flags(), *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own module
        return cls(system, model, resources, process, log)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def publish(self, texts: Sequence[str], attributes: Sequence[Mapping[str, str]] = ()) -> list[str]:
        given = attributes or [{}] * len(texts)
        records = [
            Message(json.dumps({"inputs": text}).encode(), dict(each)) for text, each in zip(texts, given, strict=True)
        ]
        ids = publish.publish_all(self.resources.input_topic, records)
        self.published += len(ids)
        return ids

    def warm_up(self, texts: Sequence[str]) -> float:
        """Waits for the first results; returns the seconds from the process's start to the first."""
        first = self.results(len(self.publish(texts)), 120)
        self.rows()
        return min(first.values()) - self.started

    def turn(
        self, texts: Sequence[str], timeout: float = 300, attributes: Sequence[Mapping[str, str]] = ()
    ) -> tuple[float, float]:
        """Messages a second, from the first input published to the last result and audit row; and CPU seconds."""
        cpu, begin = self.cpu_s(), time.time()
        ids = self.publish(texts, attributes)
        # The rows are counted first, from time to time: fetching results while they are made would share its cores.
        last_row = self.rows(timeout)
        end = max(last_row, *self.results(len(ids), timeout).values())
        return len(ids) / (end - begin), self.cpu_s() - cpu

    def results(self, count: int, timeout: float) -> dict[str, float]:
        """When each result was published, by the input's message id.

        Raises:
            Incomplete: fewer than ``count`` in ``timeout`` seconds, or the process ended.
        """
        found: dict[str, float] = {}
        client, deadline = clients.pubsub(SubscriberClient), time.monotonic() + timeout
        while len(found) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise Incomplete(f"{self.system}: {len(found)} of {count} results; see {self.log}")
            name = self.resources.output_subscription
            try:
                pulled = client.pull(subscription=name, max_messages=1000, timeout=5).received_messages
            except Exception:  # nothing there yet
                continue
            if not pulled:
                continue
            for each in pulled:
                found[each.message.attributes["message_id"]] = each.message.publish_time.timestamp()
            client.acknowledge(subscription=name, ack_ids=[each.ack_id for each in pulled])
            if len(pulled) < 1000:
                time.sleep(0.2)  # when a result was published is what counts, not when it is fetched
        return found

    def rows(self, timeout: float = 60) -> float:
        """Waits for the audit row of every message published; returns when the last was written.

        Raises:
            Incomplete: not all came in time.
        """
        table, deadline = self.resources.audit_table, time.monotonic() + timeout
        query = f"SELECT COUNT(DISTINCT message_id) AS n, UNIX_MICROS(MAX(processed_time)) AS last FROM `{table}`"
        while time.monotonic() < deadline:
            # A query shares the cores of what is measured; the time that counts is the row's own.
            time.sleep(1)
            (row,) = clients.bigquery_client(table.project).query(query).result()
            if row["n"] >= self.published:
                return row["last"] / 1e6
        raise Incomplete(f"{self.system}: {row['n']} of {self.published} audit rows")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def peak_mib(self) -> float:
        return self._memory_mib("VmHWM")

    def resident_mib(self) -> float:
        return self._memory_mib("VmRSS")

    def _memory_mib(self, name: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    def loads(self) -> int:
        text = self.log.read_text(errors="replace")
        return (
            text.count("model loaded")
            + text.count(": loaded ModelInfo")
            + (self.system == "ours" and self.model == "null")
        )


def throughput(
    system: str,
    model: str,
    texts: Sequence[str],
    timeout: float = 300,
    flags: Sequence[str] = (),
    attributes: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """One system alone, on all of ``texts`` at once."""
    with Run.start(system, model, flags) as run:
        first = run.warm_up(texts[:20])
        rate, cpu = run.turn(texts, timeout, attributes)
        return _row(run, [rate], cpu, len(texts), first)


def rounds(
    counts: Mapping[str, int], model: str, texts: Sequence[str], turns: int, raws: Sequence[Raw] = ()
) -> list[dict[str, Any]]:
    """Every system of ``counts``, so many messages a turn, each going on in the same stream of ``texts``."""
    with contextlib.ExitStack() as stack:
        runs, firsts = [], []
        for system in counts:
            run = stack.enter_context(Run.start(system, model))
            runs.append(run)
            firsts.append(run.warm_up(texts[:20]))
            run.process.send_signal(signal.SIGSTOP)
        rates: dict[str, list[float]] = {run.system: [] for run in runs}
        cpu = dict.fromkeys(rates, 0.0)
        for turn in range(turns):
            for raw in raws:
                raw.turn()
            for run in runs:
                count = counts[run.system]
                run.process.send_signal(signal.SIGCONT)
                rate, seconds = run.turn(texts[turn * count : (turn + 1) * count])
                run.process.send_signal(signal.SIGSTOP)
                rates[run.system].append(rate)
                cpu[run.system] += seconds
        rows = [
            _row(run, rates[run.system], cpu[run.system], turns * counts[run.system], first)
            for run, first in zip(runs, firsts, strict=True)
        ]
        return [*(raw.row() for raw in raws), *rows]


def _row(run: Run, rates: list[float], cpu: float, messages: int, first: float) -> dict[str, Any]:
    return {
        "system": run.system,
        "messages": messages,
        "rate": statistics.median(rates),
        "rates": rates,
        "cpu_s_per_1000": 1000 * cpu / messages,
        "peak_mib": run.peak_mib(),
        "model_loads": run.loads(),
        "first_result_s": first,
    }


def latency(run: Run, texts: Sequence[str], rate: float) -> dict[str, Any]:
    """Milliseconds from an input's publish to its result's, at ``rate`` messages a second (open loop)."""
    found: dict[str, float] = {}
    published: dict[str, float] = {}
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            found.update(run.results(len(texts), len(texts) / rate + 60))
        except BaseException as error:
            errors.append(error)

    collector = threading.Thread(target=collect)
    collector.start()
    start = time.monotonic()
    sent = 0
    while sent < len(texts):
        time.sleep(max(0.0, start + sent / rate - time.monotonic()))
        due = min(len(texts), 1 + int((time.monotonic() - start) * rate))
        before = time.time()
        published.update(dict.fromkeys(run.publish(texts[sent:due]), before))
        sent = due
        time.sleep(0.01)  # a request for each message would take the cores that are measured
    collector.join()
    if errors:
        raise errors[0]
    waits = sorted(1000 * (found[each] - published[each]) for each in published)
    cuts = statistics.quantiles(waits, n=100)
    return {
        "system": run.system,
        "rate": rate,
        "messages": len(texts),
        "p50": cuts[49],
        "p95": cuts[94],
        "p99": cuts[98],
    }
