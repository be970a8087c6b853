"""``emulators pull``: what waits on a subscription of the embedded Pub/Sub, printed and acknowledged."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions as api
from google.pubsub_v1 import SubscriberClient

from pipeline import clients, flags
from pipeline.command import command
from pipeline.emulators import target
from pipeline.flags import Flag, UsageError
from pipeline.matchers import COUNT, SUBSCRIPTION, seconds

_ABOUT = (
    "Prints what waits on a subscription of the embedded Pub/Sub, a message a line, and acknowledges it: results, "
    "unless --dead_letters or --subscription says otherwise. Ends with 1 if nothing comes."
)
FLAGS = (
    Flag("subscription", "subscription to read; without it, projects/PROJECT/subscriptions/NAME-output", SUBSCRIPTION),
    Flag("dead_letters", "read NAME-dead-letter in place of NAME-output", switch=True),
    Flag("count", "stop after so many", COUNT, "100"),
    Flag("wait_s", "wait so long for the first", seconds, "10"),
    Flag("json", "print id, attributes and body of each as one JSON object", switch=True),
    Flag("keep", "acknowledge nothing: they are delivered again", switch=True),
    *target.NAMED,
)
#: After the first, what is there comes at once.
_MORE_S = 0.5


def told(message: Any, whole: bool) -> str:
    """A message as a line; a body that is no text is base64."""
    try:
        body = message.data.decode()
        line = " ".join(body.split()) if "\n" in body else body
    except UnicodeDecodeError:
        body = line = base64.b64encode(message.data).decode()
    if not whole:
        failed = message.attributes.get("dead_letter_error")
        return f"{line}  # {message.attributes['dead_letter_stage']}: {failed}" if failed else line
    found = {"message_id": message.message_id, "attributes": dict(message.attributes), "body": body}
    return json.dumps(found, ensure_ascii=False)


@command
def main(argv: Sequence[str]) -> int:
    """Prints what there is; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("emulators pull", "pipeline.emulators.pull", _ABOUT, FLAGS)
    try:
        given = flags.read(FLAGS, argv)
        if given["subscription"] and given["dead_letters"]:
            raise UsageError("--subscription and --dead_letters name two; leave one of them out")
        target.find("PUBSUB_EMULATOR_HOST")
    except UsageError as error:
        return flags.wrong_usage(error)
    kind = "dead-letter" if given["dead_letters"] else "output"
    name = given["subscription"] or f"projects/{given['project']}/subscriptions/{given['name']}-{kind}"
    client, found = clients.pubsub(SubscriberClient), 0
    deadline = time.monotonic() + given["wait_s"]
    try:
        while found < given["count"] and time.monotonic() < deadline:
            pulled = _pull(client, name, given["count"] - found, deadline - time.monotonic())
            for each in pulled:
                print(told(each.message, given["json"]), flush=True)
            if pulled and not given["keep"]:
                client.acknowledge(subscription=name, ack_ids=[each.ack_id for each in pulled], retry=None, timeout=10)
            found += len(pulled)
            if pulled:
                deadline = time.monotonic() + _MORE_S
    except clients.API_ERRORS as error:
        print("error: nothing could be pulled:", clients.words(error), file=sys.stderr)
        return 1
    if not found:
        print(f"error: nothing came on {name} within {given['wait_s']:g} s", file=sys.stderr)
    return 0 if found else 1


def _pull(client: SubscriberClient, name: str, most: int, wait_s: float) -> Sequence[Any]:
    try:
        answer = client.pull(subscription=name, max_messages=min(most, 1000), retry=None, timeout=max(0.1, wait_s))
    except api.DeadlineExceeded:
        return []
    return list(answer.received_messages)


if __name__ == "__main__":
    sys.exit(main())
