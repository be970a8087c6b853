"""The real job around the fake model, in processes that start at once: they are forked with everything imported.

``python tests/support/fake_job.py FLAGS…`` runs one in the foreground.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fakes import FakeHandler

import pipeline.main
from pipeline import clients, sidecars
from pipeline.direct import leases
from transforms.records import Failure, Limits, Prediction, Request

HERE = Path(__file__).parent

#: What the server that forks imports; it counts before the first job.
PRELOAD = ["fake_job"]


@dataclass(frozen=True)
class Behaviour:
    """How the fake model and its process differ from well-behaved ones.

    ``delay_ms`` a message; texts that hold ``refuse`` become failures; a text that holds ``hang`` stops the model for
    ever; a batch takes ``allocate_mb`` of memory, of which the process gets ``memory_mb``; results may have
    ``message_bytes``; leases last ``lease_s``; a model that is ``unloadable`` is so for a reason that nobody
    foresaw; on a text that holds ``bug`` it raises what nobody foresaw either. A ``labelled`` model's label is a
    text's first word. The job says every ``status_s`` how it does.
    """

    delay_ms: float = 0.0
    refuse: str = ""
    hang: str = ""
    allocate_mb: int = 0
    memory_mb: int = 0
    message_bytes: int = clients.LIMITS.message_bytes
    lease_s: int = leases.LEASE_S
    unloadable: bool = False
    bug: str = ""
    labelled: bool = False
    status_s: float = sidecars.STATUS_EVERY_S


class Handler(FakeHandler):
    """The fake model, behaving as told."""

    def __init__(self, behaviour: Behaviour):
        super().__init__()
        self._behaviour = behaviour

    def load_model(self) -> Any:
        if self._behaviour.unloadable:
            raise RuntimeError("header too large\nor so")
        return super().load_model()

    def run_inference(
        self, batch: Sequence[Request], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterator[Prediction | Failure]:
        how = self._behaviour
        time.sleep(how.delay_ms * len(batch) / 1000)
        if how.hang and any(how.hang in str(request.inputs) for request in batch):
            print("the model hangs", flush=True)
            threading.Event().wait()
        if how.bug and any(how.bug in str(request.inputs) for request in batch):
            raise KeyError([request.inputs for request in batch])
        memory = bytearray(how.allocate_mb << 20)
        for request, answer in zip(batch, super().run_inference(batch, model), strict=True):
            if how.refuse and how.refuse in str(request.inputs):
                yield Failure(request.message, "predict", "ModelError", "scripted refusal", time.time())
            elif how.labelled and isinstance(answer, Prediction):
                yield replace(answer, prediction=[{"label": str(request.inputs).partition(" ")[0], "score": 0.9}])
            else:
                yield answer
        del memory


def run(argv: Sequence[str], how: Behaviour) -> int:
    """Runs the job in this process and returns its exit code."""
    pipeline.handlers.make_handler = lambda settings: Handler(how)
    clients.LIMITS = Limits(how.message_bytes, clients.LIMITS.attributes, clients.LIMITS.attribute_value_bytes)
    leases.LEASE_S, leases.RENEW_S = how.lease_s, max(1, how.lease_s // 3)
    sidecars.STATUS_EVERY_S = how.status_s
    if how.memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (how.memory_mb << 20, how.memory_mb << 20))
    return pipeline.main.main(argv)


class Job:
    """A job as a process of its own, with its log at ``log``."""

    def __init__(self, process: Any, log: Path):
        self.process = process
        self.log = log

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def drain(self, timeout: float = 120) -> int | None:
        """SIGTERM once it runs, and the exit code; None if it has not ended after ``timeout`` seconds."""
        self.until_running()
        if self.alive:
            os.kill(self.process.pid, signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def words(self) -> str:
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def until_running(self, timeout: float = 120) -> None:
        """Waits until it says that it runs."""
        self.until("running; Ctrl-C", timeout)

    def until(self, words: str, timeout: float = 120) -> None:
        """Waits until its log has ``words``."""
        deadline = time.monotonic() + timeout
        while words not in self.words():
            if not self.alive or time.monotonic() > deadline:
                if words in self.words():
                    return
                raise RuntimeError(f"the job did not say {words!r}: {self.words()}")
            time.sleep(0.02)


@contextlib.contextmanager
def fake_job(
    flags: Sequence[str],
    log: Path,
    how: Behaviour = Behaviour(),
    environment: dict[str, str] | None = None,
    target: Callable[[Sequence[str], Behaviour], int] = run,
) -> Iterator[Job]:
    """Starts a job of ``flags``, beside ``--model=fake``; it is killed at the end if it has not ended by itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    # The server that forks imports its modules by the path of the environment.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    log.unlink(missing_ok=True)
    argv = ["--model=fake", *flags]
    process = context.Process(target=_child, args=(target, argv, how, str(log), {**os.environ, **(environment or {})}))
    process.start()
    job = Job(process, log)
    try:
        yield job
    finally:
        job.kill()


def _child(target: Any, argv: list[str], how: Behaviour, log: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    code = 1
    try:
        code = target(argv, how)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """A job must not outlive the tests that started it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    code = run(["--model=fake", *sys.argv[1:]], Behaviour())
    sys.stdout.flush()
    os._exit(code)
