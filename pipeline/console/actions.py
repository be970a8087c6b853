"""Actions: what the console does to a job's topics: publish a message, and publish dead letters again."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from google.api_core import exceptions as api

from pipeline import clients
from pipeline.console.book import Book
from pipeline.console.story import Story
from pipeline.publish import publish_all
from pipeline.way_back import Elsewhere, Stranger, WayBack, is_read
from transforms.dead_letter import restore
from transforms.records import Message

#: Bytes of a message typed or chosen on the page.
MOST_BYTES = 8 << 20


class Refused(ValueError):
    """What the page asked for cannot be done; its text is for the person who asked."""


def compose(body: Mapping[str, Any]) -> Message:
    """The message that the page asks for: ``text``, ``json`` (a body as it is), or ``base64`` with ``content_type``.

    A trace of its own goes along, so that its result and its audit row can be found by it.

    Raises:
        Refused: it holds none of them, is too large, or its attributes are not text.
    """
    attributes = body.get("attributes") or {}
    if not isinstance(attributes, dict) or not all(
        isinstance(part, str) for item in attributes.items() for part in item
    ):
        raise Refused("attributes: use an object whose keys and values are text")
    attributes = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01", **attributes}
    if isinstance(body.get("text"), str):
        data = json.dumps({"inputs": body["text"]}, ensure_ascii=False).encode("utf-8", "replace")
    elif isinstance(body.get("json"), str):
        data = body["json"].encode("utf-8", "replace")
    elif isinstance(body.get("base64"), str):
        try:
            data = base64.b64decode(body["base64"], validate=True)
        except binascii.Error as error:
            raise Refused(f"base64: {error}") from None
        attributes["content-type"] = str(body.get("content_type") or "application/octet-stream")
    else:
        raise Refused("nothing to publish: give text, json or base64")
    if len(data) > MOST_BYTES:
        raise Refused(f"the message has {len(data):,} bytes; the page publishes up to {MOST_BYTES:,}")
    return Message(data, attributes)


def publish(topic: str, message: Message) -> str:
    """Publishes ``message`` and returns its id."""
    return publish_all(topic, [message])[0]


def replay(book: Book, topic: str, stories: Sequence[Story]) -> list[dict[str, str]]:
    """Publishes the original messages of dead letters again, and notes under which ids; those of other inputs stay.

    These are the console's copies: the dead letters in other subscriptions stay where they are.

    Raises:
        Refused: none of them may go to ``topic``, or nobody reads it.
    """
    waiting = [
        (story.message_id, story.output)
        for story in stories
        if story.status == "dead_letter" and not story.replayed_as and story.output
    ]
    way_back, why_not = WayBack(topic), ""
    chosen = []
    for message_id, letter in waiting:
        try:
            way_back.check(letter)
        except (Stranger, Elsewhere) as error:
            why_not = str(error)
        else:
            chosen.append((message_id, letter))
    if why_not and not chosen:
        raise Refused(f"not replayed to {topic}: {why_not}; python -m pipeline.replay has flags for that")
    if chosen and not _may_be_read(topic):
        raise Refused(f"not replayed: {topic} has no subscription, what is published to it would be gone")
    new_ids = publish_all(topic, [restore(letter, clients.LIMITS) for _, letter in chosen])
    replayed = []
    for (message_id, _), new_id in zip(chosen, new_ids, strict=True):
        book.replayed(message_id, new_id)
        replayed.append({"message_id": message_id, "replayed_as": new_id})
    return replayed


def _may_be_read(topic: str) -> bool:
    try:
        return is_read(topic)
    except api.Forbidden:  # may publish, but not look
        return True
