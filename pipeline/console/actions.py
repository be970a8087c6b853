"""Actions: what the console does to a job's topics: publish a message, and publish dead letters again."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import clients
from pipeline.console.book import Book, Story
from pipeline.publish import publish_all
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
    """Publishes the original messages of dead letters again, and notes under which ids.

    These are the console's copies: the dead letters in other subscriptions stay where they are.
    """
    waiting = [story for story in stories if story.status == "dead_letter" and not story.replayed_as and story.output]
    new_ids = publish_all(topic, [restore(story.output, clients.LIMITS) for story in waiting if story.output])
    replayed = []
    for story, new_id in zip(waiting, new_ids, strict=True):
        book.replayed(story.message_id, new_id)
        replayed.append({"message_id": story.message_id, "replayed_as": new_id})
    return replayed
