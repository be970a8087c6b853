"""``bench``: what one worker does with one's own model and messages, over the embedded servers of this machine.

The real job runs as a process of its own; what is counted is its audit table, from the first message published to the
last row.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.pubsub_v1 import SubscriberClient

from pipeline import clients, extras, flags, publish
from pipeline.command import command
from pipeline.emulators import setup
from pipeline.emulators.process import ROOT, spawn
from pipeline.flags import Flag, UsageError
from pipeline.matchers import Integer, path, seconds
from pipeline.signals import leave
from transforms.records import Message

_ABOUT = (
    "Publishes the lines of a file to embedded servers, runs the job over them with your model, and prints messages a "
    "second, latency, bytes, and the capacity command for them. Every flag of the job is taken, too: --task, --device, "
    "--inference_params, … A worker on Dataflow has other cores: measure on the machine type that you will take."
)
FLAGS = (
    Flag("messages", "file with one message a line, as the topic gets them", path, required=True),
    Flag("count", "messages to measure with: the file's lines, again and again", Integer(10, 1_000_000), "1000"),
    Flag("timeout", "give up after so many seconds", seconds, "1800"),
)
#: Messages that warm the job up before it is measured.
_WARM_UP = 50
#: Results whose bytes are looked at.
_SAMPLE = 500
_ROWS = "SELECT COUNT(DISTINCT message_id) AS n, UNIX_MICROS(MAX(processed_time)) AS last FROM `{}`"


class Failed(RuntimeError):
    """The job ended, or did not end its messages in time."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates in messages a second, latencies in milliseconds, sizes in bytes a message."""

    rate: float
    p50: float
    p95: float
    dead_letters: int
    error: str | None
    message_bytes: int
    result_bytes: int
    row_bytes: int


def measure(bodies: Sequence[bytes], count: int, job_flags: Sequence[str], timeout_s: float) -> Measured:
    """Runs the job with ``job_flags`` over ``count`` of ``bodies``.

    Raises:
        Failed: it ended, or took longer than ``timeout_s``.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tables, log = Path(folder, "tables.duckdb"), Path(folder, "job.log")
        with (
            spawn("pipeline.emulators.bigquery", "--port", "0", "--data", str(tables)) as bigquery,
            spawn("pipeline.emulators.pubsub", "--port", "0") as pubsub,
        ):
            os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
            resources = setup.Resources.named("my-project", "bench")
            setup.create(resources)
            with log.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                    [sys.executable, "-m", "pipeline.main", *resources.flags(), *job_flags],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            try:
                return _measure(bodies, count, resources, process, log, time.monotonic() + timeout_s)
            finally:
                process.kill()
                process.wait()


def _measure(
    bodies: Sequence[bytes],
    count: int,
    resources: setup.Resources,
    process: subprocess.Popen[bytes],
    log: Path,
    deadline: float,
) -> Measured:
    lines = itertools.cycle(bodies)
    warm_up = [Message(next(lines)) for _ in range(_WARM_UP)]
    publish.publish_all(resources.input_topic, warm_up)
    _wait_for_rows(resources, _WARM_UP, process, log, deadline)
    messages = [Message(next(lines)) for _ in range(count)]
    begin = time.time()
    ids = publish.publish_all(resources.input_topic, messages)
    last = _wait_for_rows(resources, _WARM_UP + count, process, log, deadline)
    wanted = frozenset(ids)
    table = resources.audit_table
    found = clients.bigquery_client(table.project).query(f"SELECT * FROM `{table}`").result()
    rows = [dict(row) for row in found if row["message_id"] in wanted]
    dead = [row for row in rows if row["status"] != "ok"]
    cuts = statistics.quantiles([row["total_ms"] for row in rows], n=100)
    return Measured(
        rate=count / (last - begin),
        p50=cuts[49],
        p95=cuts[94],
        dead_letters=len(dead),
        error=dead[0]["error"] if dead else None,
        message_bytes=round(statistics.mean(len(each.data) for each in messages)),
        result_bytes=_result_bytes(resources.output_subscription) if len(dead) < len(rows) else 0,
        row_bytes=round(statistics.mean(_row_bytes(row) for row in rows)),
    )


def _wait_for_rows(
    resources: setup.Resources, count: int, process: subprocess.Popen[bytes], log: Path, deadline: float
) -> float:
    """When the last of ``count`` messages was done with, in seconds since the epoch."""
    client = clients.bigquery_client(resources.audit_table.project)
    found = 0
    while time.monotonic() < deadline:
        # A query shares the cores of what is measured; the time that counts is the row's own.
        time.sleep(0.5)
        if process.poll() is not None:
            end = log.read_text("utf-8", "replace").rstrip().rpartition("\n")[2]
            raise Failed(f"the job ended with exit code {process.returncode}: {end}")
        (row,) = client.query(_ROWS.format(resources.audit_table)).result()
        if row["n"] > found:
            found = row["n"]
            print(f"{found} of {count} messages", end="\n" if found >= count else "\r", file=sys.stderr, flush=True)
        if found >= count:
            return float(row["last"]) / 1e6
    raise Failed(f"{found} of {count} messages when --timeout was over")


def _result_bytes(subscription: str) -> int:
    pulled = clients.pubsub(SubscriberClient).pull(subscription=subscription, max_messages=_SAMPLE, timeout=60)
    sizes = [
        len(each.message.data) + sum(len(key) + len(value) for key, value in each.message.attributes.items())
        for each in pulled.received_messages
    ]
    return round(statistics.mean(sizes))


def _row_bytes(row: dict[str, Any]) -> int:
    """As BigQuery bills it: texts by their length and two bytes, numbers and times by eight; nothing for NULL.

    https://cloud.google.com/bigquery/pricing#data
    """
    return sum(
        2 + len(str(value).encode()) if isinstance(value, str | dict | list) else 8
        for value in row.values()
        if value is not None
    )


@command
def main(argv: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("bench", "pipeline.emulators.bench", _ABOUT, FLAGS)
    try:
        texts, job_flags = flags.split(FLAGS, argv)
        given = flags.values(FLAGS, texts)
        extras.need("bench", "local", "duckdb", "pyarrow", "sqlglot")
        bodies = _lines(given["messages"])
    except UsageError as error:
        return flags.wrong_usage(error)
    try:
        found = measure(bodies, given["count"], job_flags, given["timeout"])
    except (Failed, *clients.API_ERRORS) as error:
        print("error: nothing was measured:", clients.words(error), file=sys.stderr)
        return 1
    print(f"messages a second   {found.rate:.1f}")
    print(f"all at once         p50 {found.p50:.0f} ms, p95 {found.p95:.0f} ms, most of it waiting for those before")
    print(f"bytes               {found.message_bytes} in, {found.result_bytes} out, {found.row_bytes} in the audit row")
    if found.dead_letters:
        print(f"dead letters        {found.dead_letters} of {given['count']}, such as: {found.error}")
    print("\nbeam-hf-inference capacity --rate=RATE --price=PRICE \\")
    print(f"  --per_worker={found.rate:.1f} --message_bytes={found.message_bytes} \\")
    print(f"  --result_bytes={max(1, found.result_bytes)} --row_bytes={found.row_bytes}")
    return 0 if found.dead_letters < given["count"] else 1


def _lines(file: Path) -> list[bytes]:
    try:
        lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"--messages {str(file)!r}: {error.strerror}; use a file with a message a line") from None
    if not lines:
        raise UsageError(f"--messages {str(file)!r}: is empty; use a file with a message a line")
    return lines


if __name__ == "__main__":
    leave(main())
