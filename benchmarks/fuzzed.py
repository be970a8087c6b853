"""What ``make chaos`` does with fuzzed payloads: the whole job's account of them, and its memory."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from chaos import Collector, account
from fake_job import Behaviour, fake_job
from fuzz import payload
from scenarios import settle
from streams import Servers, fresh

from pipeline import publish


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
            settle(collected, sent, patience=30)
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
