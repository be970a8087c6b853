"""What the console watches and what it may do, from its flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.options import TableName, UsageError, table_name


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """Names of what is watched, None where there is none, and what is allowed.

    ``own_subscriptions`` says whether the console makes subscriptions of its own, ``may_publish`` whether it publishes
    and replays, ``may_query`` whether it runs a user's own SQL. All three are so on emulators; on a real project the
    first never, the others when a flag says so.
    """

    input_topic: str | None
    output_topic: str | None
    dead_letter_topic: str | None
    output_subscription: str | None
    dead_letter_subscription: str | None
    audit_table: TableName | None
    summary_table: TableName | None
    metrics_file: Path | None
    own_subscriptions: bool
    may_publish: bool
    may_query: bool
    port: int = 8088
    exit_with_parent: bool = False


def parse(argv: Sequence[str] | None = None) -> ConsoleSettings:
    """Reads the command line.

    Raises:
        UsageError: a table's name is wrong, or there is nothing to watch.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.console",
        description="Serves a page on 127.0.0.1 that shows a job at work. With no names it watches the resources that "
        "`python -m pipeline.emulators` makes.",
    )
    parser.add_argument("--project", default="my-project", help="project of the names left out (default my-project)")
    parser.add_argument("--name", default="inference", help="beginning of the names left out (default inference)")
    parser.add_argument("--input_topic", help="topic that the job's subscription reads: to type messages, to replay")
    parser.add_argument(
        "--output_topic", help="topic of results, watched through a subscription made for it (emulator)"
    )
    parser.add_argument("--dead_letter_topic", help="topic of dead letters, watched likewise")
    parser.add_argument(
        "--output_subscription",
        help="a subscription to watch results by, for the console alone: what it shows it acknowledges",
    )
    parser.add_argument("--dead_letter_subscription", help="one to watch dead letters by, likewise")
    parser.add_argument("--audit_table", help="the job's audit table, PROJECT:DATASET.TABLE")
    parser.add_argument("--summary_table", help="the job's table of window summaries")
    parser.add_argument("--metrics_file", type=Path, help="the job's --metrics_file")
    parser.add_argument("--allow_publish", action="store_true", help="publish and replay on a real project too")
    parser.add_argument(
        "--allow_query", action="store_true", help="run one's own SQL on a real project too; it is billed"
    )
    parser.add_argument("--port", type=int, default=8088, help="0 takes any free one (default 8088)")
    parser.add_argument("--exit_with_parent", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    pubsub, tables = "PUBSUB_EMULATOR_HOST" in os.environ, "BIGQUERY_EMULATOR_HOST" in os.environ
    named = any((args.output_topic, args.output_subscription, args.dead_letter_subscription, args.audit_table))
    if not named and not pubsub:
        raise UsageError(
            "nothing to watch: give --output_subscription, --dead_letter_subscription or --audit_table; or start "
            "`python -m pipeline.emulators` and export the two lines it prints"
        )
    if not named:
        topic = f"projects/{args.project}/topics/{args.name}"
        args.input_topic = args.input_topic or f"{topic}-input"
        args.output_topic, args.dead_letter_topic = f"{topic}-output", args.dead_letter_topic or f"{topic}-dead-letter"
        if tables:
            args.audit_table = f"{args.project}:{args.name.replace('-', '_')}.audit"
    return ConsoleSettings(
        args.input_topic,
        args.output_topic,
        args.dead_letter_topic,
        args.output_subscription,
        args.dead_letter_subscription,
        _table("audit_table", args.audit_table),
        _table("summary_table", args.summary_table),
        args.metrics_file,
        own_subscriptions=pubsub,
        may_publish=pubsub or args.allow_publish,
        may_query=tables or args.allow_query,
        port=args.port,
        exit_with_parent=args.exit_with_parent,
    )


def _table(flag: str, text: str | None) -> TableName | None:
    if text is None:
        return None
    try:
        return table_name(text)
    except ValueError as error:
        raise UsageError(f"--{flag} {text!r}: {error}") from None
