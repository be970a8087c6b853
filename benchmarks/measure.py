"""Runs one system over embedded (or Google's) servers and measures it, once it has produced every result."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.pubsub_v1 import SubscriberClient

from benchmarks.workloads import CACHE
from pipeline import io
from pipeline.local import setup
from transforms.records import Message

_TICK = os.sysconf("SC_CLK_TCK")


class Incomplete(RuntimeError):
    """A system did not produce every result: its rate means nothing."""


@dataclass
class Run:
    """One system's process over resources of its own."""

    system: str
    model: str
    resources: setup.Resources
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.time)

    @classmethod
    def start(cls, system: str, model: str, audit: bool = True, flags: Sequence[str] = ()) -> Run:
        resources = setup.Resources.named("my-project", f"bench-{time.time_ns()}")
        setup.create(resources)
        log = CACHE / "logs" / f"{resources.input_topic.rpartition('/')[2]}-{system.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        names = resources.flags() if audit else resources.flags()[:3]
        command = [sys.executable, "-m", "benchmarks.systems", system, model, *names, *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own module
        return cls(system, model, resources, process, log)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def publish(self, texts: Sequence[str]) -> list[str]:
        records = [Message(json.dumps({"inputs": text}).encode()) for text in texts]
        return io.publish_all(self.resources.input_topic, records)

    def results(self, count: int, timeout: float) -> dict[str, float]:
        """When each result was published, by the input's message id.

        Raises:
            Incomplete: fewer than ``count`` in ``timeout`` seconds, or the process ended.
        """
        found: dict[str, float] = {}
        client, deadline = io.pubsub(SubscriberClient), time.monotonic() + timeout
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
        return found

    def rows(self, ids: Sequence[str], timeout: float = 60) -> float:
        """Waits for every audit row; returns when the last was written.

        Raises:
            Incomplete: not all came in time.
        """
        table, deadline = self.resources.audit_table, time.monotonic() + timeout
        query = f"SELECT COUNT(DISTINCT message_id) AS n, UNIX_MICROS(MAX(processed_time)) AS last FROM `{table}`"
        while time.monotonic() < deadline:
            (row,) = io.bigquery_client(table.project).query(query).result()
            if row["n"] >= len(ids):
                return row["last"] / 1e6
            time.sleep(0.5)
        raise Incomplete(f"{self.system}: {row['n']} of {len(ids)} audit rows")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def peak_mib(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def loads(self) -> int:
        text = self.log.read_text(errors="replace")
        return (
            text.count("model loaded")
            + text.count(": loaded ModelInfo")
            + (self.system == "ours" and self.model == "null")
        )


def throughput(
    system: str, model: str, texts: Sequence[str], audit: bool = True, timeout: float = 300, flags: Sequence[str] = ()
) -> dict[str, Any]:
    """Messages a second from the first input published to the last result published and audit row written."""
    with Run.start(system, model, audit, flags) as run:
        warm = run.publish(texts[:20])
        first = run.results(len(warm), 120)
        if audit:
            run.rows(warm)
        cpu = run.cpu_s()
        begin = time.time()
        ids = run.publish(texts)
        # The rows are counted first, from time to time: fetching results while they are made would share its cores.
        last_row = run.rows([*warm, *ids], timeout) if audit else 0.0
        end = max(last_row, *run.results(len(ids), timeout).values())
        return {
            "system": system,
            "messages": len(ids),
            "rate": len(ids) / (end - begin),
            "cpu_s_per_1000": 1000 * (run.cpu_s() - cpu) / len(ids),
            "peak_mib": run.peak_mib(),
            "model_loads": run.loads(),
            "first_result_s": min(first.values()) - run.started,
        }


def latency(system: str, model: str, texts: Sequence[str], rate: float) -> dict[str, Any]:
    """Milliseconds from an input's publish to its result's, at ``rate`` messages a second (open loop)."""
    with Run.start(system, model) as run:
        run.results(len(run.publish(texts[:20])), 120)
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
        for number, text in enumerate(texts):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            before = time.time()
            published[run.publish([text])[0]] = before
        collector.join()
        if errors:
            raise errors[0]
        waits = sorted(1000 * (found[each] - published[each]) for each in published)
        cuts = statistics.quantiles(waits, n=100)
        return {
            "system": system,
            "rate": rate,
            "messages": len(texts),
            "p50": cuts[49],
            "p95": cuts[94],
            "p99": cuts[98],
        }
