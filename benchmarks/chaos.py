"""``make chaos``: the job under long, seeded faults, and the account of every message.

Kills, outages of each sink, a Pub/Sub that dies, and fuzzed payloads, against the real job as a process over the
embedded servers. The model is a fake one: what is tested is the accounting. Writes ``chaos.json`` and ``chaos.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]
os.environ.update(NO_GCE_CHECK="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import grpc  # noqa: E402
import stock_job  # noqa: E402
from chaos import Collector, Load, account  # noqa: E402, I001 - tests/support/chaos.py, see sys.path
from fake_job import Behaviour, fake_job, run  # noqa: E402
from faults import Answer, DropHalf, GrpcProxy, Hang, HttpProxy  # noqa: E402
from fuzz import payload  # noqa: E402
from streams import Servers, fresh, use_pubsub  # noqa: E402

from pipeline import publish  # noqa: E402
from pipeline.emulators import setup  # noqa: E402
from pipeline.emulators.pubsub import start as start_pubsub  # noqa: E402
from transforms.records import Message  # noqa: E402

#: A model of 500 messages a second, and a load that two lives out of three cannot keep up with.
MODEL = Behaviour(delay_ms=2)
RATE = 60.0


def kills(servers: Servers, work: Path, count: int, seed: int, stock: bool = False) -> dict[str, Any]:
    """``count`` SIGKILLs at random moments of as many lives under load, then one life in peace."""
    resources, moments = fresh("kills"), random.Random(seed)
    target = stock_job.run if stock else run
    started = time.monotonic()
    with Load(resources.input_topic, RATE) as load, Collector(resources) as collected:
        for _ in range(count):
            with fake_job(resources.flags(), work / "log", MODEL, target=target) as job:
                job.until_running()
                time.sleep(moments.uniform(0, 3))
                job.kill()
        load.stop()
        with fake_job(resources.flags(), work / "log", MODEL, target=target) as job:
            _settle(collected, load.sent, patience=75)
            job.kill() if stock else job.drain()
        found = account(resources, load.sent, collected).as_dict()
    if stock:
        # It writes no audit rows and has no dead letters; only the results count.
        found = {key: found[key] for key in ("sent", "results", "lost", "repeated_results")}
    return {"kills": count, **found, "seconds": round(time.monotonic() - started)}


def _settle(collected: Collector, sent: list[str], patience: float) -> None:
    """Waits until all have come out, or nothing new has for ``patience`` seconds: longer than any lease."""
    known, since = -1, time.monotonic()
    while set(sent) - collected.first.keys() and time.monotonic() - since < patience:
        if len(collected.first) != known:
            known, since = len(collected.first), time.monotonic()
        time.sleep(0.5)


def outage(servers: Servers, work: Path, seconds: float, seed: int, sink: str) -> dict[str, Any]:
    """``sink`` down for ``seconds`` in the middle of a load of which every tenth message is a dead letter."""
    resources, moments = fresh("outage"), random.Random(seed)
    topic = getattr(resources, sink, "?").encode()
    down = False
    http = [
        Answer(500, "internalError"),
        Answer(503, "backendError"),
        Answer(429, "rateLimitExceeded"),
        DropHalf(),
        Hang(2.0),
        Hang(0.0, forwarded=True),
    ]

    def refuse_insert(method: str, path: str) -> Any:
        return moments.choice(http) if down and "insertAll" in path else None

    def refuse_publish(method: str, request: bytes) -> grpc.StatusCode | None:
        return grpc.StatusCode.UNAVAILABLE if down and method == "Publish" and topic in request[:300] else None

    with (
        HttpProxy(servers.bigquery.address) as bigquery,
        GrpcProxy(servers.pubsub.address) as pubsub,
        Load(resources.input_topic, 100, _one_in_ten_broken) as load,
        Collector(resources) as collected,
    ):
        bigquery.fault, pubsub.fault = refuse_insert, refuse_publish
        environment = {"BIGQUERY_EMULATOR_HOST": bigquery.address}
        if sink != "bigquery":
            environment = {"PUBSUB_EMULATOR_HOST": pubsub.address}
        with fake_job(resources.flags(), work / "log", Behaviour(), environment) as job:
            job.until_running()
            time.sleep(5)
            down = True
            time.sleep(seconds)
            down = False
            return _recover(resources, load, collected, job, seconds, faults=bigquery.faults + pubsub.faults)


def pubsub_outage(servers: Servers, work: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Pub/Sub itself killed, away for ``seconds``, and started again on its state."""
    server = start_pubsub(0, work / "state")
    port = int(server.address.rpartition(":")[2])
    use_pubsub(server.address)
    try:
        resources = fresh("pubsub-outage")
        with (
            Load(resources.input_topic, 100, _one_in_ten_broken) as load,
            Collector(resources) as collected,
            fake_job(resources.flags(), work / "log", Behaviour()) as job,
        ):
            job.until_running()
            time.sleep(5)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            time.sleep(seconds)
            server = start_pubsub(port, work / "state")
            return _recover(resources, load, collected, job, seconds)
    finally:
        server.stop()
        use_pubsub(servers.pubsub.address)


def _recover(
    resources: setup.Resources, load: Load, collected: Collector, job: Any, seconds: float, **also: Any
) -> dict:
    """The account of an outage that has just ended; ``recovery_s`` until all that was sent before its end came out."""
    ended = time.time()
    before = [key for key, sent in zip(load.sent, load.times, strict=False) if sent < ended]
    time.sleep(5)
    load.stop()
    _settle(collected, load.sent, patience=150)
    code = job.drain()
    found = account(resources, load.sent, collected)
    recovery = max((collected.first.get(key, float("inf")) - ended for key in before), default=0.0)
    healthy = found.dead_letters - len([n for n in range(found.sent) if n % 10 == 0])
    return {
        "outage_s": seconds,
        **also,
        **found.as_dict(),
        "healthy_dead_lettered": healthy,
        "recovery_s": round(max(recovery, 0.0), 1),
        "exit_code": code,
    }


def _one_in_ten_broken(n: int) -> Message:
    text = b'{"inputs": "message %d"}' % n
    return Message(text if n % 10 else text[:-1], {"n": str(n)})


def fuzz(servers: Servers, work: Path, count: int, seed: int) -> dict[str, Any]:
    """``count`` fuzzed payloads with fuzzed attributes through the whole job; its memory is watched."""
    resources, source = fresh("fuzz"), random.Random(seed)
    sent: list[str] = []
    memory: list[float] = []
    with Collector(resources) as collected:
        flags = [*resources.flags(), "--timestamp_attribute=ts"]
        with fake_job(flags, work / "log", Behaviour()) as job:
            job.until_running()
            while len(sent) < count:
                sent += publish.publish_all(
                    resources.input_topic, [payload(source) for _ in range(min(1000, count - len(sent)))]
                )
                while len(sent) - len(collected.first) > 5_000 and job.alive:
                    time.sleep(0.05)
                memory.append(_megabytes(job.process.pid))
            _settle(collected, sent, patience=30)
            memory.append(_megabytes(job.process.pid))
            alive = job.alive
            code = job.drain()
        found = account(resources, sent, collected)
    early = memory[len(memory) // 5]
    return {
        "payloads": count,
        **found.as_dict(),
        "alive": alive,
        "exit_code": code,
        "memory_mb_at_a_fifth": early,
        "memory_mb_at_the_end": memory[-1],
    }


def _megabytes(pid: int) -> float:
    """Resident memory of a process; 0 where /proc does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS")), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--outage_s", type=float, default=60)
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--only", default="", help="run the scenarios whose name holds this")
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "benchmarks")
    args = parser.parse_args()
    scenarios: dict[str, Callable[[Servers, Path], dict[str, Any]]] = {
        "kills": lambda servers, work: kills(servers, work, args.kills, args.seed),
        "kills of the stock pipeline": lambda servers, work: kills(servers, work, args.kills, args.seed, stock=True),
        "outage of the audit table": lambda servers, work: outage(servers, work, args.outage_s, args.seed, "bigquery"),
        "outage of the output topic": lambda servers, work: outage(
            servers, work, args.outage_s, args.seed, "output_topic"
        ),
        "outage of the dead-letter topic": lambda servers, work: outage(
            servers, work, args.outage_s, args.seed, "dead_letter_topic"
        ),
        "outage of Pub/Sub": lambda servers, work: pubsub_outage(servers, work, args.outage_s, args.seed),
        "fuzzed payloads": lambda servers, work: fuzz(servers, work, args.payloads, args.seed),
    }
    report: dict[str, Any] = {
        "seed": args.seed,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    kept = True
    args.report.mkdir(parents=True, exist_ok=True)
    for name, scenario in scenarios.items():
        if args.only not in name:
            continue
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory() as folder, Servers.start(Path(folder) / "tables.duckdb") as servers:
            found = report[name] = scenario(servers, Path(folder))
        kept = kept and found.get("kept", True)
        print(json.dumps(found, indent=2), flush=True)
        (args.report / "chaos.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        (args.report / "chaos.md").write_text(markdown(report), "utf-8")
    print("the promise was kept" if kept else "the promise was BROKEN")
    return 0 if kept else 1


def markdown(report: dict[str, Any]) -> str:
    """The report as tables, one a scenario."""
    parts = [f"# Chaos report\n\nSeed {report['seed']}, {report['machine']}.\n"]
    for name, found in report.items():
        if isinstance(found, dict):
            rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in found.items())
            parts.append(f"## {name[0].upper()}{name[1:]}\n\n| | |\n|---|---:|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
