"""The real job, started again whenever it ends, as systemd does it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from streams import ROOT

#: On a PYTHONPATH, it plants messages that kill (``killers/sitecustomize.py``).
KILLERS = ROOT / "tests" / "support" / "killers"


class Restarted:
    """A command that is run again until :meth:`drain`; ``codes`` has how its lives ended so far."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, started: Callable[[int], None]
    ):
        self.codes: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._environment = environment
        self._log = log
        self._started = started
        self._lock = threading.Lock()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._ending:
                    return
                with self._log.open("ab") as output:
                    self.process = subprocess.Popen(
                        self._command, cwd=ROOT, env=dict(self._environment), stdout=output, stderr=output
                    )
                self._started(self.process.pid)
            code = self.process.wait()
            with self._lock:
                if not self._ending:
                    self.codes.append(code)

    def words(self) -> str:
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def drain(self, timeout: float = 120) -> int:
        """SIGTERM to the life that is on, and its exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        self._end(signal.SIGKILL, 60)

    def _end(self, number: int, timeout: float) -> int:
        with self._lock:
            self._ending = True
            process = self.process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        code = process.wait(timeout)
        self._thread.join()
        return code


@contextlib.contextmanager
def restarted(
    flags: Sequence[str],
    log: Path,
    journal: Path,
    lease_s: int = 10,
    started: Callable[[int], None] = lambda pid: None,
) -> Iterator[Restarted]:
    """A job of ``flags`` with killers planted, and a journal of its own; ``started`` is told each life's pid."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(KILLERS), str(ROOT)]),
        "BEAM_HF_JOURNAL": str(journal),
        "PLANTED_LEASE_S": str(lease_s),
        "OMP_NUM_THREADS": "1",
    }
    job = Restarted([sys.executable, "-m", "pipeline.main", *flags], environment, log, started)
    try:
        yield job
    finally:
        job.kill()
