"""SIGTERM, SIGINT and the end of the parent process as one event."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable


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
