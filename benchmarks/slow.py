"""Services as slow as the real ones may be, for every system alike, and a neighbour that keeps a core busy.

A system's process adds the time to each insert and each publish in the client libraries that all of them use, while it
is told to: so instant and slow services are compared in one process, turn by turn, over the same embedded servers.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Seconds that an insert and a publish take longer.
INSERT_S, PUBLISH_S = 0.3, 0.03

#: What turns the slowness on and off in a system's process.
ON, OFF = signal.SIGUSR1, signal.SIGUSR2

_slow = False


def obey() -> None:
    """Has this process be slow from ``ON`` to ``OFF``."""
    from google.cloud.bigquery import Client
    from google.pubsub_v1 import PublisherClient

    def turn(to: bool) -> Callable[..., None]:
        def handle(*_: object) -> None:
            global _slow
            _slow = to

        return handle

    signal.signal(ON, turn(True))
    signal.signal(OFF, turn(False))
    Client.insert_rows_json = _later(Client.insert_rows_json, INSERT_S)
    PublisherClient.publish = _later(PublisherClient.publish, PUBLISH_S)


def _later(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _slow:
            time.sleep(seconds)
        return call(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """One more process than there is work for, which computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
