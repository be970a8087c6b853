"""``emulators publish``: messages from a shell to the embedded Pub/Sub, for those without gcloud."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import clients, flags, publish
from pipeline.command import command
from pipeline.emulators import target
from pipeline.flags import Flag, UsageError
from pipeline.matchers import TOPIC, pair
from transforms.errors import SinkUnavailable
from transforms.records import Message

_ABOUT = (
    'Publishes each TEXT as a message {"inputs": TEXT} to the embedded Pub/Sub, and prints its id. With --file, each '
    "line of a file is a message's whole body; - reads standard input. Every message has the attribute source=shell."
)
FLAGS = (
    Flag("topic", "topic to publish to; without it, projects/PROJECT/topics/NAME-input", TOPIC),
    Flag("file", "file with a message's body on each line, or - for standard input"),
    Flag("attribute", "an attribute of every message, KEY=VALUE", pair, repeated=True),
    *target.NAMED,
)
_OPERANDS = "[TEXT ...]"


def bodies(texts: Sequence[str], file: str | None) -> Iterator[bytes]:
    """What to publish.

    Raises:
        UsageError: the file cannot be read.
    """
    for text in texts:
        yield json.dumps({"inputs": text}, ensure_ascii=False).encode()
    if file is None:
        return
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file!r}: {error.strerror}; use a file with a message a line, or -") from None
    yield from (line for line in data.splitlines() if line.strip())


@command
def main(argv: Sequence[str]) -> int:
    """Publishes; returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("emulators publish", "pipeline.emulators.publish", _ABOUT, FLAGS, _OPERANDS)
    try:
        given, texts = flags.read_with_words(FLAGS, argv)
        attributes = {"source": "shell", **dict(given["attribute"])}
        messages = [Message(body, attributes) for body in bodies(texts, given["file"])]
        if not messages:
            raise UsageError('what to publish is missing; use a text, such as "Where is my parcel?", or --file=-')
        target.find("PUBSUB_EMULATOR_HOST")
    except UsageError as error:
        return flags.wrong_usage(error)
    topic = given["topic"] or f"projects/{given['project']}/topics/{given['name']}-input"
    try:
        for message_id in publish.publish_all(topic, messages):
            print(message_id)
    except SinkUnavailable as error:
        print("error: not published:", clients.words(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
