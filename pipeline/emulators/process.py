"""An embedded server as a process of its own: start it, learn its address, and never leave it behind.

The child prints ``NAME=host:port`` as its first line once it accepts connections, and ends by itself when its standard
input closes: that happens however its parent dies, SIGKILL included.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from pipeline.flags import Flag

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A running embedded server. Leaving its ``with`` block stops it.

    ``name`` is the environment variable that points clients to it, ``address`` its ``host:port``.
    """

    def __init__(self, process: subprocess.Popen[str], name: str, address: str) -> None:
        self.process = process
        self.name = name
        self.address = address

    def stop(self, timeout: float = 10) -> None:
        """Asks it to end with SIGTERM, kills it after ``timeout`` seconds; does nothing where it has ended already."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def spawn(module: str, *args: str, timeout: float = 180) -> Server:
    """Runs ``python -m module *args --exit_with_parent`` and waits until it says where it listens.

    The child has its own session, so Ctrl-C reaches the parent alone, which can still drain into its servers.

    Raises:
      Refused: its flags cannot be, such as a port that is taken.
      RuntimeError: the child ended, or said something else, or nothing within ``timeout`` seconds.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", module, *args, "--exit_with_parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    line = process.stdout.readline().strip()
    watchdog.cancel()
    name, separator, address = line.partition("=")
    if not separator:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(2) == 2:
                raise Refused(f"python -m {module} {' '.join(args)} was refused; its line, above, says why")
        process.kill()
        raise RuntimeError(
            f"python -m {module} {' '.join(args)}: expected NAME=host:port as its first line, got {line!r}"
            f" (exit code {process.wait()}); its error output, above, says why"
        )
    return Server(process, name, address)


#: The flag that :func:`spawn` passes to every server.
EXIT_WITH_PARENT = Flag("exit_with_parent", "end when standard input closes", switch=True, hidden=True)


class Refused(RuntimeError):
    """A server did not start, and has said why on standard error."""
