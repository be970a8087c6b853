"""``emulators create``: makes what a job's flags name on the embedded servers, as the job's own hints ask for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline import clients, flags, summary_sink
from pipeline.command import command
from pipeline.emulators import setup, target
from pipeline.flags import Flag, UsageError
from pipeline.matchers import SUBSCRIPTION, TOPIC, table_name

_ABOUT = (
    "Makes, on the emulators, the topics, subscriptions and tables that are named and not there yet. Each topic that "
    "the job writes gets a subscription of its name, to read it by."
)
FLAGS = (
    Flag("input_subscription", "subscription that the job reads", SUBSCRIPTION),
    Flag("topic", "topic of --input_subscription; without it, one of the subscription's name", TOPIC),
    Flag("output_topic", "topic of results", TOPIC),
    Flag("dead_letter_topic", "topic of dead letters", TOPIC),
    Flag("summary_topic", "topic of window summaries", TOPIC),
    Flag("audit_table", "audit table, with its dataset and view", table_name),
    Flag("summary_table", "table of window summaries, with its dataset", table_name),
)


@command
def main(argv: Sequence[str]) -> int:
    """Makes them; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("emulators create", "pipeline.emulators.create", _ABOUT, FLAGS)
    try:
        given = flags.read(FLAGS, argv)
        named = {name for name, value in given.items() if value}
        if not named or named == {"topic"}:
            raise UsageError("nothing to make: give --input_subscription, --output_topic, --audit_table, …")
        tables = {"audit_table", "summary_table"} & named
        target.find(
            *(["PUBSUB_EMULATOR_HOST"] if named - tables else []), *(["BIGQUERY_EMULATOR_HOST"] if tables else [])
        )
    except UsageError as error:
        return flags.wrong_usage(error)
    try:
        subscription = given["input_subscription"]
        if subscription:
            topic = given["topic"] or subscription.replace("/subscriptions/", "/topics/")
            setup.create_topic(topic, subscription)
            print(f"{subscription}, of {topic}")
        for name in ("output_topic", "dead_letter_topic", "summary_topic"):
            if topic := given[name]:
                setup.create_topic(topic, topic.replace("/topics/", "/subscriptions/"))
                print(f"{topic}, read by {topic.replace('/topics/', '/subscriptions/')}")
        if table := given["audit_table"]:
            setup.create_audit_table(table)
            print(f"{table}")
        if table := given["summary_table"]:
            clients.bigquery_client(table.project).create_dataset(f"{table.project}.{table.dataset}", exists_ok=True)
            summary_sink.create_table(table)
            print(f"{table}")
    except clients.API_ERRORS as error:
        print("error: not all was made:", clients.words(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
