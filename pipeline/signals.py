"""When a process is told to end: SIGTERM, SIGINT and the end of its parent as one event; and how it ends at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def on_stop(stop: Callable[[], None], exit_with_parent: bool = False) -> None:
    """Calls ``stop`` at SIGTERM, at SIGINT and, if asked, when the parent has died; call it from the main thread.

    ``stop`` runs in a thread of its own, possibly more than once: have it set an event and return.
    """

    def handle(signum: int, frame: object) -> None:
        threading.Thread(target=stop, daemon=True).start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)

    def watch_parent() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        stop()

    if exit_with_parent:
        threading.Thread(target=watch_parent, daemon=True).start()


def leave(code: int) -> NoReturn:
    """Ends the process with ``code``: idle threads of clients and of Torch have nothing left to do."""
    logging.shutdown()
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # nobody reads it any more, or it was closed
            output.flush()
    os._exit(code)
