"""``python -m pipeline.emulators.bigquery --port 9050 --data FILE``: runs the embedded BigQuery until told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import threading

import duckdb

from pipeline.emulators.bigquery.api import Api
from pipeline.emulators.bigquery.server import BigQueryServer
from pipeline.emulators.bigquery.store import Store
from pipeline.emulators.process import add_exit_with_parent
from pipeline.signals import on_stop

#: What is under way when it is told to stop has this many seconds to end.
_LONGEST_END_S = 30


def main() -> None:
    """Serves until told to stop. The first line it prints says where it listens."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.emulators.bigquery", description="Embedded BigQuery.")
    parser.add_argument("--port", type=int, default=9050, help="port on 127.0.0.1; 0 takes a free one (default: 9050)")
    parser.add_argument("--data", default=":memory:", help="file that keeps the data; without it, memory does")
    add_exit_with_parent(parser)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    on_stop(stop.set, args.exit_with_parent)
    try:
        store = Store(args.data)
    except duckdb.Error as error:
        parser.error(f"--data {args.data}: {error}")
    try:
        server = BigQueryServer(Api(store), args.port)
    except (OSError, OverflowError) as error:
        parser.error(f"--port {args.port}: {error}")
    with server:
        serving = threading.Thread(target=server.serve_forever)
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


if __name__ == "__main__":
    main()
