"""The real job, ``python -m pipeline.main``, as a process of its own with its log in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pipeline.emulators.process import ROOT


class Job:
    """The job while it runs. Leaving its ``with`` block drains it.

    It stays in the terminal's process group, so that Ctrl-C and a closed window reach it too.
    """

    def __init__(self, flags: Sequence[str], log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "pipeline.main", "--runner=DirectRunner", *flags]
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        with self.log.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, count)).rstrip()

    def stop(self, timeout: float = 20) -> None:
        """Drains it with SIGTERM, and kills it after ``timeout`` seconds; does nothing where it has ended already."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
