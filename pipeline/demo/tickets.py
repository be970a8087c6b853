"""The bundled tickets: what is streamed, and how fast."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transforms.records import Message

TICKETS = Path(__file__).parent / "data" / "tickets.ndjson"

#: Attribute with the label that a person gave the ticket. The job passes it through and makes nothing of it.
EXPECTED = "expected"
#: Attribute that says what is wrong with a ticket that is malformed on purpose.
MALFORMED = "malformed"

_SWING, _WAVES = 0.8, 3


def read_tickets(path: Path = TICKETS) -> list[Message]:
    """The tickets in an ndjson file; ``data_base64`` holds the bodies that are no text."""
    return [_message(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _message(line: dict[str, Any]) -> Message:
    body = base64.b64decode(line["data_base64"]) if "data_base64" in line else line["data"].encode()
    return Message(body, line["attributes"], ordering_key=line.get("ordering_key", ""))


def repeated(tickets: list[Message], count: int) -> Iterator[Message]:
    """``count`` of ``tickets``, over and over if need be."""
    return itertools.islice(itertools.cycle(tickets), count)


def words(ticket: Message) -> str:
    """The ticket's text on one line, or of a malformed one as much as can be read."""
    text = ticket.data.decode("utf-8", "replace")
    if ticket.attributes.get("content-type") != "text/plain" and MALFORMED not in ticket.attributes:
        text = json.loads(text)["inputs"]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def due(elapsed: float, seconds: float, count: int) -> int:
    """How many of ``count`` tickets are to be out after ``elapsed`` of ``seconds``; the rate comes in waves."""
    part = min(1.0, elapsed / seconds)
    turn = 2 * math.pi * _WAVES
    # The integral of 1 + swing * sin(turn * part), which is never negative and ends at 1.
    return round(count * (part + _SWING * (1 - math.cos(turn * part)) / turn))
