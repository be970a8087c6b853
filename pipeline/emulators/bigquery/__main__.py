"""``python -m pipeline.emulators.bigquery --port 9050 --data FILE``: runs the embedded BigQuery until told to stop."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import duckdb

from pipeline import flags
from pipeline.command import command
from pipeline.emulators.bigquery.api import Api
from pipeline.emulators.bigquery.server import BigQueryServer
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.process import EXIT_WITH_PARENT
from pipeline.flags import Flag, UsageError
from pipeline.matchers import PORT, path
from pipeline.signals import on_stop

#: What is under way when it is told to stop has this many seconds to end.
_LONGEST_END_S = 30


_FLAGS = (
    Flag("port", "port on 127.0.0.1; 0 takes any free one", PORT, "9050"),
    Flag("data", "file that keeps the tables; without it, memory does", path),
    EXIT_WITH_PARENT,
)


@command
def main(argv: Sequence[str]) -> int:
    """Serves until told to stop, and returns the exit code. The first line it prints says where it listens."""
    if flags.wants_help(argv):
        return flags.print_help("", "pipeline.emulators.bigquery", "Embedded BigQuery, until told to stop.", _FLAGS)
    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    try:
        given = flags.read(_FLAGS, argv)
        on_stop(stop.set, given["exit_with_parent"])
        store, server = _open(given["port"], given["data"])
    except UsageError as error:
        return flags.wrong_usage(error)
    with server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)  # one that fails to start must end
        serving.start()
        print(f"BIGQUERY_EMULATOR_HOST={server.url}", flush=True)
        stop.wait()
        # What is under way is waited for, but a query may take for ever; what was committed is in the file.
        last = threading.Timer(_LONGEST_END_S, os._exit, (1,))
        last.daemon = True
        last.start()
        server.shutdown()
        serving.join()
    store.close()
    return 0


def _open(port: int, data: Path | None) -> tuple[Store, BigQueryServer]:
    try:
        store = Store(str(data or ":memory:"))
    except (duckdb.Error, OSError) as error:
        words = " ".join(str(error).split())[:300]
        raise UsageError(f"--data {str(data)!r}: {words}; use another file, or stop the server that has it") from None
    try:
        return store, BigQueryServer(Api(store), port)
    except OSError as error:
        store.close()
        raise UsageError(f"--port {port}: {error.strerror}; use another, or 0 for any free one") from None


if __name__ == "__main__":
    sys.exit(main())
