"""What the console watches and what it may do, from its flags."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import flags
from pipeline.flags import Flag, UsageError
from pipeline.matchers import NAME, PORT, PROJECT, SUBSCRIPTION, TOPIC, Attribute, TableName, path, table_name


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
    id_attribute: str | None
    own_subscriptions: bool
    may_publish: bool
    may_query: bool
    port: int
    exit_with_parent: bool = False


ABOUT = (
    "Serves a page on 127.0.0.1 that shows a job at work. With no names it watches the resources that "
    "`python -m pipeline.emulators` makes."
)
_LEFT_OUT, _TOPICS, _TABLES = "Names left out", "Topics and subscriptions", "Tables and files"
_ALLOWED, _PAGE = "What is allowed on a real project", "The page"
FLAGS = (
    Flag("project", "project of the names left out", PROJECT, "my-project", group=_LEFT_OUT),
    Flag("name", "beginning of the names left out", NAME, "inference", group=_LEFT_OUT),
    Flag("input_topic", "topic that the job's subscription reads: to type messages, to replay", TOPIC, group=_TOPICS),
    Flag(
        "output_topic",
        "topic of results, watched through a subscription made for it (emulator)",
        TOPIC,
        group=_TOPICS,
    ),
    Flag("dead_letter_topic", "topic of dead letters, watched likewise", TOPIC, group=_TOPICS),
    Flag(
        "output_subscription",
        "a subscription to watch results by, for the console alone: what it shows it acknowledges",
        SUBSCRIPTION,
        group=_TOPICS,
    ),
    Flag("dead_letter_subscription", "one to watch dead letters by, likewise", SUBSCRIPTION, group=_TOPICS),
    Flag("audit_table", "the job's audit table, PROJECT:DATASET.TABLE", table_name, group=_TABLES),
    Flag("summary_table", "the job's table of window summaries", table_name, group=_TABLES),
    Flag("metrics_file", "the job's --metrics_file", path, group=_TABLES),
    Flag("id_attribute", "the job's --id_attribute, where its metrics file does not say", Attribute(), group=_TABLES),
    Flag("allow_publish", "publish and replay on a real project too", switch=True, group=_ALLOWED),
    Flag("allow_query", "run one's own SQL on a real project too; it is billed", switch=True, group=_ALLOWED),
    Flag("port", "port on 127.0.0.1; 0 takes any free one", PORT, "8088", group=_PAGE),
    Flag("exit_with_parent", "end when standard input closes", switch=True, hidden=True),
)


def parse(argv: Sequence[str]) -> ConsoleSettings:
    """Reads the command line.

    Raises:
        UsageError: a flag is wrong, or there is nothing to watch.
    """
    given = flags.read(FLAGS, argv)
    pubsub, tables = "PUBSUB_EMULATOR_HOST" in os.environ, "BIGQUERY_EMULATOR_HOST" in os.environ
    watched = ("output_topic", "output_subscription", "dead_letter_subscription", "audit_table")
    named = any(given[each] for each in watched)
    if not named and not pubsub:
        raise UsageError(
            "nothing to watch: give --output_subscription, --dead_letter_subscription or --audit_table; or start "
            "`python -m pipeline.emulators` and export the two lines it prints"
        )
    project, name = given.pop("project"), given.pop("name")
    if not named:
        for each in ("input", "output", "dead_letter"):
            made = f"projects/{project}/topics/{name}-{each.replace('_', '-')}"
            given[f"{each}_topic"] = given[f"{each}_topic"] or made
        if tables:
            given["audit_table"] = TableName(project, name.replace("-", "_"), "audit")
    may_publish, may_query = given.pop("allow_publish") or pubsub, given.pop("allow_query") or tables
    return ConsoleSettings(**given, own_subscriptions=pubsub, may_publish=may_publish, may_query=may_query)
