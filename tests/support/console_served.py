"""The console on a port of its own, in a thread of the tests' process: it is there at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

from pipeline.console.app import Console
from pipeline.console.observer import Observer
from pipeline.console.settings import parse


@dataclass(frozen=True)
class Served:
    """Where it listens, ``host:port``, and what it observes."""

    address: str
    observer: Observer


@contextlib.contextmanager
def served(*flags: str) -> Iterator[Served]:
    """What ``python -m pipeline.console --port=0 FLAGS…`` serves, as long as the block lasts.

    Tests of how the program starts, halts and ends need it as a process: ``pipeline.emulators.process.spawn``.
    """
    observer = Observer(parse(["--port=0", *flags]))
    console = Console(observer)
    config = uvicorn.Config(console.application(), log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    console.stopping = lambda: server.should_exit
    listener = socket.create_server(("127.0.0.1", 0))
    observer.start()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(f"127.0.0.1:{listener.getsockname()[1]}", observer)
    finally:
        server.should_exit = True
        thread.join(30)
        observer.close()
