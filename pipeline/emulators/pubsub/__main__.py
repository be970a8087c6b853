"""``python -m pipeline.emulators.pubsub --port 8085``: runs the embedded Pub/Sub until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc

from pipeline import flags
from pipeline.command import command
from pipeline.emulators.process import EXIT_WITH_PARENT
from pipeline.emulators.pubsub import front
from pipeline.emulators.pubsub.broker import Broker
from pipeline.emulators.pubsub.exports import Exports
from pipeline.emulators.pubsub.journal import Journal
from pipeline.emulators.pubsub.methods import methods_of
from pipeline.emulators.pubsub.rest import RestServer
from pipeline.emulators.pubsub.rpc import handlers
from pipeline.emulators.pubsub.service import Service
from pipeline.flags import Flag, UsageError
from pipeline.matchers import PORT, path
from pipeline.signals import on_stop

_OPTIONS = [
    # Above the 10 MB of a publish request: it is the broker that refuses what is too large, in the service's words.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    # Otherwise a second server on the same port would silently take half of the calls.
    ("grpc.so_reuseport", 0),
]


_FLAGS = (
    Flag("port", "port on 127.0.0.1; 0 takes any free one", PORT, "8085"),
    Flag("state", "file that keeps topics, subscriptions and unacknowledged messages; without it, memory does", path),
    Flag("bigquery", "address of the BigQuery that BigQuery subscriptions write to: http://HOST:PORT"),
    EXIT_WITH_PARENT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Serves until told to stop, and returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("", "pipeline.emulators.pubsub", "Embedded Pub/Sub, until told to stop.", _FLAGS)
    try:
        given = flags.read(_FLAGS, argv)
        asyncio.run(serve(given["port"], given["state"], given["exit_with_parent"], given["bigquery"]))
    except UsageError as error:
        return flags.wrong_usage(error)
    return 0


async def serve(port: int, state: Path | None, exit_with_parent: bool, tables: str | None = None) -> None:
    """Serves until told to stop; says on standard output where.

    Raises:
        UsageError: the port is taken, or the state's file cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def request_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    on_stop(request_stop, exit_with_parent)
    try:
        listener = front.listen(port)
    except OSError as error:
        raise UsageError(
            f"--port {port}: {os.strerror(error.errno or 0)}; use another, or 0 for any free one"
        ) from None
    try:
        journal = Journal(state)
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"--state {str(state)!r}: {error}; use another file, or stop the server that has it") from None
    service = Service(Broker(journal, exports=tables is not None))
    methods = methods_of(service)
    rest = RestServer(methods, service.broker.commit, loop)
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(handlers(service, methods))
    inner_port = server.add_insecure_port("127.0.0.1:0")
    # A deep backlog is millions of small objects without cycles: full collections would only stop the world for them.
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
    await server.start()
    rest.start()
    door = front.start(listener, inner_port, rest.port)
    assert door.stdin is not None
    print(f"PUBSUB_EMULATOR_HOST=127.0.0.1:{listener.getsockname()[1]}", flush=True)
    listener.close()  # the door has it
    ticking = asyncio.create_task(service.tick())
    exporting = asyncio.create_task(Exports(service.broker, tables).run()) if tables else None
    watching = asyncio.create_task(asyncio.to_thread(door.wait))
    watching.add_done_callback(lambda _: stop.set())  # without its door the server reaches nobody
    await stop.wait()
    ticking.cancel()
    if exporting:
        exporting.cancel()
    service.close()
    await server.stop(grace=1)
    door.stdin.close()
    await watching
    rest.stop()
    service.broker.close()


if __name__ == "__main__":
    sys.exit(main())
