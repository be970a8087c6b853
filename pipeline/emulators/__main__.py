"""``python -m pipeline.emulators``: embedded Pub/Sub and BigQuery with everything a job needs, until interrupted."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline import clients, extras, flags
from pipeline.command import command
from pipeline.emulators import setup
from pipeline.emulators.process import Refused, spawn
from pipeline.flags import Flag, UsageError
from pipeline.matchers import NAME, PORT, PROJECT, text
from pipeline.signals import on_stop


def folder(given: str) -> Path:
    """A folder of this machine, which need not be there yet."""
    found = Path(text(given)).expanduser()
    if found.exists() and not found.is_dir():
        raise ValueError("is a file; use a folder")
    return found


_ABOUT = (
    "Starts embedded Pub/Sub and BigQuery servers on 127.0.0.1, makes the topics, subscriptions and the audit table "
    "that a job needs, and prints the lines that point every program to them. Ctrl-C stops. `emulators publish`, "
    "`emulators pull` and `emulators create` talk to them from another terminal."
)
#: Commands of their own, for what runs: modules beside this one.
_COMMANDS = ("create", "publish", "pull")
_NAMES, _SERVERS = "Names of what is made", "Servers"
_FLAGS = (
    Flag("project", "project id of everything made", PROJECT, setup.DEFAULTS["project"], group=_NAMES),
    Flag("name", "beginning of every name", NAME, setup.DEFAULTS["name"], group=_NAMES),
    Flag("pubsub_port", "port of Pub/Sub; 0 takes any free one", PORT, "8085", group=_SERVERS),
    Flag("bigquery_port", "port of BigQuery; 0 takes any free one", PORT, "9050", group=_SERVERS),
    Flag(
        "state",
        "folder that keeps tables, topics and messages not yet acknowledged; without it, they end with the servers",
        folder,
        group=_SERVERS,
    ),
)


@command
def main(argv: Sequence[str]) -> int:
    """Serves until told to stop; returns the exit code: 0 stopped, 1 a server did not start, 2 wrong usage."""
    if argv and argv[0] in _COMMANDS:
        run: Callable[[Sequence[str]], int] = importlib.import_module(f"pipeline.emulators.{argv[0]}").main
        return run(argv[1:])
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
        _make_folder(values["state"])
    except UsageError as error:
        return flags.wrong_usage(error)
    stop = threading.Event()
    on_stop(stop.set)
    try:
        serve(values, stop)
    except Refused:  # in its own words, which are on standard error
        return 2
    except (RuntimeError, *clients.API_ERRORS) as error:
        print("error: the servers did not start:", clients.words(error), file=sys.stderr)
        return 1
    return 0


def serve(values: dict[str, Any], stop: threading.Event) -> None:
    """Runs both servers until ``stop`` is set.

    Raises:
        RuntimeError: one did not start.
    """
    ports = {name: str(values[f"{name}_port"]) for name in ("pubsub", "bigquery")}
    state = values["state"]
    kept = {"data": "tables.duckdb", "state": "messages.sqlite"} if state else {}
    tables, messages = ([f"--{flag}", str(state / kept[flag])] if state else [] for flag in ("data", "state"))
    with (
        spawn("pipeline.emulators.bigquery", "--port", ports["bigquery"], *tables) as bigquery,
        spawn(
            "pipeline.emulators.pubsub", "--port", ports["pubsub"], "--bigquery", bigquery.address, *messages
        ) as pubsub,
    ):
        os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
        resources = setup.Resources.named(values["project"], values["name"])
        setup.create(resources)
        for server in (pubsub, bigquery):
            print(f"export {server.name}={server.address}")
        print("\n# In another terminal, with those two lines:")
        print("python -m pipeline.main --runner=DirectRunner --model=MODEL \\")
        print(" \\\n".join(f"  {flag}" for flag in resources.flags()))
        names = "".join(
            f" --{name}={values[name]}" for name in ("project", "name") if values[name] != setup.DEFAULTS[name]
        )
        print("\n# And in a third, a message, what became of it, and its row:")
        print(f'beam-hf-inference emulators publish "Where is my parcel?"{names}')
        print(f"beam-hf-inference emulators pull{names}  # --dead_letters for those")
        table = resources.audit_table
        print(f"beam-hf-inference audit find --audit_table={table.project}:{table.dataset}.{table.table} source=shell")
        print("# Ctrl-C stops.", flush=True)
        stop.wait()


def _check_free(name: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"--{name} {port}: {error.strerror}; use another, or 0 for any free one") from None


def _make_folder(state: Path | None) -> None:
    try:
        if state:
            state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--state {str(state)!r}: {error.strerror}; use a folder that you may write") from None


if __name__ == "__main__":
    sys.exit(main())
