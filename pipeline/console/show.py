"""Show: a story as the page takes it, in JSON; bodies as text where they are text, and cut to what a person reads."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.console.book import Story
from transforms.records import Message

#: Characters of an input or a prediction that a list shows.
PREVIEW = 300


def readable(message: Message | None, limit: int = PREVIEW) -> str | None:
    """A message's body for a person: its text, cut to ``limit`` characters, or what kind of bytes it holds."""
    if message is None:
        return None
    try:
        text = message.data[: 4 * limit].decode("utf-8", "strict" if len(message.data) <= 4 * limit else "ignore")
    except UnicodeDecodeError:
        kind = message.attributes.get("content-type", "bytes")
        return f"({len(message.data):,} bytes, {kind})"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def input_text(message: Message | None) -> str | None:
    """What the model was asked, where the body is JSON with ``inputs``; else the body."""
    if message is None or len(message.data) > 65_536:
        return readable(message)
    try:
        inputs = orjson.loads(message.data)["inputs"]
    except (ValueError, KeyError, TypeError):
        return readable(message)
    text = inputs if isinstance(inputs, str) else orjson.dumps(inputs).decode()
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def summary(story: Story) -> dict[str, Any]:
    """A story as a list shows it."""
    source = story.input or (story.output if story.status == "dead_letter" else None)
    return {
        "message_id": story.message_id,
        "number": story.number,
        "status": story.status,
        "ended": story.ended,
        "latency_ms": story.latency_ms,
        "input": input_text(source),
        "label": story.label,
        "score": story.score,
        "prediction": _prediction(story),
        "stage": story.stage,
        "error_type": story.error_type,
        "error": story.error,
        "replay_of": story.replay_of,
        "replayed_as": story.replayed_as,
    }


def _prediction(story: Story) -> str | None:
    if story.status != "ok" or story.output is None or story.label is not None:
        return None
    _, found, rest = story.output.data[: 4 * PREVIEW].decode("utf-8", "ignore").partition('"prediction":')
    return (rest if found else "")[:PREVIEW] or None


def whole(story: Story) -> dict[str, Any]:
    """Everything known of a story."""
    return {
        **summary(story),
        "published": story.input.publish_time if story.input else None,
        "attributes": dict(story.input.attributes) if story.input else None,
        "body": readable(story.input or story.output, 20_000),
        "output": readable(story.output, 20_000),
        "output_attributes": dict(story.output.attributes) if story.output else None,
        "ordering_key": (story.input or story.output or Message()).ordering_key,
    }
