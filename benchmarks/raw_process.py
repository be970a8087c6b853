"""The raw model in a process of its own, which takes its turn beside the systems."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any


class Incomplete(RuntimeError):
    """A system did not produce every result: its rate means nothing."""


class Raw:
    """The raw model in a process of its own, which runs all of its inputs at every turn."""

    def __init__(self, folder: str, workload: str, count: int, engine: str = "torch"):
        command = [sys.executable, "-m", "benchmarks.raw", folder, workload, str(count), engine]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._found = self._read()
        self._rates: list[float] = []
        self._cpu = 0.0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Incomplete("the raw model's process ended")
        return json.loads(line)

    def turn(self) -> None:
        """Runs all inputs once."""
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        self._found.update(self._read())
        self._rates.append(self._found["rate"])
        self._cpu += self._found["cpu_s_per_1000"]

    def row(self) -> dict[str, Any]:
        turns = len(self._rates)
        return {
            **self._found,
            "messages": self._found["messages"] * turns,
            "rate": statistics.median(self._rates),
            "rates": self._rates,
            "cpu_s_per_1000": self._cpu / turns,
        }
