"""``python -m pipeline.emulators``: embedded Pub/Sub and BigQuery with everything a job needs, until interrupted."""

from __future__ import annotations

import base64
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import extras, flags
from pipeline.flags import Flag, UsageError
from pipeline.matchers import NAME, PORT, PROJECT, path
from pipeline.signals import on_stop

_ABOUT = (
    "Starts embedded Pub/Sub and BigQuery servers on 127.0.0.1, makes the topics, subscriptions and the audit table "
    "that a job needs, and prints the lines that point every program to them. Ctrl-C stops."
)
_NAMES, _SERVERS = "Names of what is made", "Servers"
_FLAGS = (
    Flag("project", "project id of everything made", PROJECT, "my-project", group=_NAMES),
    Flag("name", "beginning of every name", NAME, "inference", group=_NAMES),
    Flag("pubsub_port", "port of Pub/Sub; 0 takes any free one", PORT, "8085", group=_SERVERS),
    Flag("bigquery_port", "port of BigQuery; 0 takes any free one", PORT, "9050", group=_SERVERS),
    Flag("data", "file of the tables", path, ".cache/bigquery.duckdb", group=_SERVERS),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until told to stop; returns the exit code: 0 stopped, 1 a server did not start, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if flags.wants_help(argv):
        return flags.print_help("emulators", "pipeline.emulators", _ABOUT, _FLAGS)
    try:
        values = flags.read(_FLAGS, argv)
        if 0 < values["pubsub_port"] == values["bigquery_port"]:
            raise UsageError(
                f"--bigquery_port {values['bigquery_port']!r}: it is also --pubsub_port; use another, or 0"
            )
        extras.need("emulators", "local", "duckdb", "fastavro", "pyarrow", "sqlglot")
        for name in ("pubsub_port", "bigquery_port"):
            _check_free(name, values[name])
        _make_folder(values["data"])
    except UsageError as error:
        return flags.wrong_usage(error)
    stop = threading.Event()
    on_stop(stop.set)
    try:
        serve(values, stop)
    except RuntimeError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
        return 1
    return 0


def serve(values: dict[str, Any], stop: threading.Event) -> None:
    """Runs both servers until ``stop`` is set.

    Raises:
        RuntimeError: one did not start.
    """
    from pipeline.emulators import setup
    from pipeline.emulators.process import spawn

    ports = {name: str(values[f"{name}_port"]) for name in ("pubsub", "bigquery")}
    with (
        spawn("pipeline.emulators.bigquery", "--port", ports["bigquery"], "--data", str(values["data"])) as bigquery,
        spawn("pipeline.emulators.pubsub", "--port", ports["pubsub"], "--bigquery", bigquery.address) as pubsub,
    ):
        os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
        resources = setup.Resources.named(values["project"], values["name"])
        setup.create(resources)
        for server in (pubsub, bigquery):
            print(f"export {server.name}={server.address}")
        print("\n# In another terminal, with those two lines:")
        print("python -m pipeline.main --runner=DirectRunner --model=MODEL \\")
        print(" \\\n".join(f"  {flag}" for flag in resources.flags()))
        body = base64.b64encode(b'{"inputs": "Where is my parcel?"}').decode()
        print("\n# A message from a shell (gcloud pubsub works too: see docs/emulators.md):")
        print(f"curl http://{pubsub.address}/v1/{resources.input_topic}:publish", end=" ")
        print(f'--json \'{{"messages": [{{"data": "{body}"}}]}}\'')
        print(f"\n# Publish to {resources.input_topic}; results arrive at {resources.output_subscription},")
        print(f"# dead letters at {resources.dead_letter_subscription}. Ctrl-C stops.", flush=True)
        stop.wait()


def _check_free(name: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"--{name} {port}: {error.strerror}; use another, or 0 for any free one") from None


def _make_folder(data: Path) -> None:
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--data {str(data)!r}: {error.strerror}; use a file in a folder that you may write") from None


if __name__ == "__main__":
    sys.exit(main())
