"""What ``make chaos`` does to the job, and the account of every message afterwards: one function a fault."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import real_job
import stock_job
from chaos import Collector, Load, account
from fake_job import Behaviour, fake_job, run
from faults import Answer, DropHalf, GrpcProxy, Hang, HttpProxy
from streams import Servers, fresh, use_pubsub
from tiny_models import sentiment

from pipeline import publish
from pipeline.emulators import setup
from pipeline.emulators.pubsub import start as start_pubsub
from transforms.records import Message

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
            settle(collected, load.sent, patience=75)
            job.kill() if stock else job.drain()
        found = account(resources, load.sent, collected).as_dict()
    if stock:
        # It writes no audit rows and has no dead letters; only the results count.
        found = {key: found[key] for key in ("sent", "results", "lost", "repeated_results")}
    return {"kills": count, **found, "seconds": round(time.monotonic() - started)}


def settle(collected: Collector, sent: list[str], patience: float) -> None:
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
    settle(collected, load.sent, patience=150)
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


def killers(servers: Servers, work: Path, count: int, rate: float) -> dict[str, Any]:
    """``count`` messages to a real tiny model under load, one of each kind of killer among them, and restarts."""
    kinds = ("segfault", "kill", "abort", "exit", "hang", "spin")
    planted = {(2 * place + 1) * count // (2 * len(kinds)): kind for place, kind in enumerate(kinds)}
    resources = fresh("killers")
    started = time.monotonic()

    def make(n: int) -> Message:
        text = f"killer: {planted[n]}" if n in planted else f"message {n}"
        return Message(json.dumps({"inputs": text}).encode(), {"n": str(n)})

    flags = [*resources.flags(), f"--model={sentiment()}", "--task=text-classification", "--max_forward_s=5"]
    environment = {"BEAM_HF_JOURNAL": str(work / "journal"), "OMP_NUM_THREADS": "1"}
    codes: list[int | None] = []
    with Load(resources.input_topic, rate, make) as load, Collector(resources) as collected:
        while True:
            with fake_job(flags, work / "log", Behaviour(lease_s=10), environment, real_job.run_with_killers) as job:
                while job.alive and (len(load.sent) < count or set(load.sent) - collected.first.keys()):
                    time.sleep(0.2)
                    if len(load.sent) >= count:
                        load.stop()
                if job.alive:
                    code = job.drain()
                    break
                codes.append(job.process.exitcode)
                if len(codes) > 3 * len(kinds):
                    raise RuntimeError(f"it dies again and again: {codes} {job.words()[-2_000:]}")
        found = account(resources, load.sent, collected)
    blamed = {load.sent[n] for n in planted}
    return {
        "killers": len(planted),
        "deaths": len(codes),
        "exit_codes": sorted(codes),
        **found.as_dict(),
        "killers_dead_lettered": len(blamed & collected.letters.keys()),
        "healthy_dead_lettered": len(collected.letters.keys() - blamed),
        "exit_code": code,
        "seconds": round(time.monotonic() - started),
        "kept": found.kept and blamed == collected.letters.keys(),
    }


def slow_drain(servers: Servers, work: Path) -> dict[str, Any]:
    """SIGTERM in a bundle that takes more than twice as long as a lease: it is finished, the next job has the rest."""
    resources = fresh("drain")
    sent = publish.publish_all(resources.input_topic, [_one_in_ten_broken(n) for n in range(400)])
    started = time.monotonic()
    with Collector(resources) as collected:
        with fake_job(resources.flags(), work / "log", Behaviour(delay_ms=60, lease_s=10)) as job:
            job.until_running()
            time.sleep(3)
            more = publish.publish_all(resources.input_topic, [_one_in_ten_broken(n) for n in range(400, 500)])
            code = job.drain(300)
        drained, first = len(collected.first), round(time.monotonic() - started)
        with fake_job(resources.flags(), work / "log", Behaviour(lease_s=10)) as job:
            settle(collected, [*sent, *more], patience=60)
            also = job.drain(300)
        found = account(resources, [*sent, *more], collected)
    return {
        "drained_after_s": first,
        "ended_by_the_drained": drained,
        **found.as_dict(),
        "exit_codes": [code, also],
        "kept": found.kept and not found.repeated_results and not found.repeated_rows,
    }


def _one_in_ten_broken(n: int) -> Message:
    text = b'{"inputs": "message %d"}' % n
    return Message(text if n % 10 else text[:-1], {"n": str(n)})
