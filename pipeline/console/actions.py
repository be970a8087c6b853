"""Actions: what the console does to a job's topics: publish a message, and publish dead letters again."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.api_core import exceptions as api

from pipeline import clients
from pipeline.publish import publish_all
from pipeline.way_back import Elsewhere, Stranger, WayBack, is_read
from transforms.dead_letter import restore
from transforms.records import Message

#: Bytes of a message typed or chosen on the page, and of one that is edited there.
MOST_BYTES = 8 << 20
MOST_EDITED = 256 << 10


class Refused(ValueError):
    """What the page asked for cannot be done; its text is for the person who asked."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that is to go back, and what is to go in its place if it was edited."""

    message_id: str
    message: Message
    edited: Message | None = None


def compose(body: Mapping[str, Any]) -> Message:
    """The message that the page asks for: ``text``, ``json`` (a body as it is), or ``base64`` with ``content_type``.

    A trace of its own goes along, so that its result and its audit row can be found by it.

    Raises:
        Refused: it holds none of them, is too large, or its attributes are not text.
    """
    attributes = _attributes(body.get("attributes") or {})
    attributes = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01", **attributes}
    if isinstance(body.get("text"), str):
        data = json.dumps({"inputs": body["text"]}, ensure_ascii=False).encode("utf-8", "replace")
    elif isinstance(body.get("json"), str):
        data = body["json"].encode("utf-8", "replace")
    elif isinstance(body.get("base64"), str):
        try:
            data = base64.b64decode(body["base64"], validate=True)
        except ValueError as error:
            raise Refused(f"base64: {error}") from None
        attributes["content-type"] = str(body.get("content_type") or "application/octet-stream")
    else:
        raise Refused("nothing to publish: give text, json or base64")
    if len(data) > MOST_BYTES:
        raise Refused(f"the message has {len(data):,} bytes; the page publishes up to {MOST_BYTES:,}")
    return Message(data, attributes)


def _attributes(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(part, str) for item in given.items() for part in item):
        raise Refused("attributes: use an object whose keys and values are text")
    return dict(given)


def draft(letter: Message) -> dict[str, Any]:
    """What of a dead letter can be edited: its text, None where it is none, and its own attributes."""
    try:
        text = letter.data.decode() if len(letter.data) <= MOST_EDITED else None
    except UnicodeDecodeError:
        text = None
    kept = restore(letter, clients.LIMITS).attributes
    return {"text": text, "attributes": {key: kept[key] for key in kept if key in _own(letter)}}


def _own(letter: Message) -> set[str]:
    return {key for key in letter.attributes if not key.startswith("dead_letter_")}


def edited(letter: Message, body: Mapping[str, Any]) -> Message:
    """``letter`` with another ``text`` and other ``attributes``, still naming the one that failed first.

    Raises:
        Refused: the text or the attributes are none, or nothing was changed.
    """
    old = draft(letter)
    text, attributes = body.get("text", old["text"]), _attributes(body.get("attributes", old["attributes"]))
    if text is not None and not isinstance(text, str):
        raise Refused("text: use a text")
    if (text, attributes) == (old["text"], old["attributes"]):
        raise Refused("nothing was changed: replay it as it is")
    notes = {key: value for key, value in letter.attributes.items() if key not in _own(letter)}
    data = letter.data if text is None else text.encode("utf-8", "replace")
    return Message(data, {**attributes, **notes}, ordering_key=letter.ordering_key)


def publish(topic: str, message: Message) -> str:
    """Publishes ``message`` and returns its id."""
    return publish_all(topic, [message])[0]


def replay(topic: str, letters: Sequence[Letter]) -> list[tuple[Letter, str]]:
    """Publishes the original messages of dead letters again, or what they were edited to; under which ids.

    Those of other inputs stay, and so do the dead letters in other subscriptions: these are the console's copies.

    Raises:
        Refused: none of them may go to ``topic``, or nobody reads it.
    """
    way_back, why_not = WayBack(topic), ""
    chosen = []
    for letter in letters:
        try:
            way_back.check(letter.message)
        except (Stranger, Elsewhere) as error:
            why_not = str(error)
        else:
            chosen.append(letter)
    if why_not and not chosen:
        raise Refused(f"not replayed to {topic}: {why_not}; python -m pipeline.replay has flags for that")
    if chosen and not _may_be_read(topic):
        raise Refused(f"not replayed: {topic} has no subscription, what is published to it would be gone")
    new_ids = publish_all(topic, [restore(each.edited or each.message, clients.LIMITS) for each in chosen])
    return list(zip(chosen, new_ids, strict=True))


def _may_be_read(topic: str) -> bool:
    try:
        return is_read(topic)
    except api.Forbidden:  # may publish, but not look
        return True
