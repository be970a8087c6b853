"""Show: a story as the page takes it, in JSON; bodies as text where they are text, and cut to what a person reads."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from pipeline.console.story import Story
from transforms.records import Message

#: Characters of an input or a prediction that a list shows.
PREVIEW = 300

#: Pictures that the page shows, up to so many bytes: kinds that hold pixels and nothing else.
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
PICTURE_BYTES = 1 << 20


def readable(message: Message | None, limit: int = PREVIEW) -> str | None:
    """A message's body for a person, cut to ``limit`` characters: its text, with what is no UTF-8 as ``\\xff``.

    Of an image or a sound, its size and kind.
    """
    if message is None:
        return None
    kind = message.attributes.get("content-type", "")
    if kind.startswith(("image/", "audio/")):
        return f"({len(message.data):,} bytes, {kind})"
    # A character that the cut splits is left out; one that is none is shown.
    cut = len(message.data) > 4 * limit
    text = message.data[: 4 * limit].decode("utf-8", "ignore" if cut else "backslashreplace")
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
        # What failed may be beside the model's input.
        "input": readable(source) if story.status == "dead_letter" else input_text(source),
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


def _picture(message: Message | None) -> str | None:
    """A picture's data: address, for an ``<img>``; None for anything else."""
    kind = message.attributes.get("content-type", "") if message else ""
    if message is None or kind not in PICTURES or len(message.data) > PICTURE_BYTES:
        return None
    return f"data:{kind};base64,{base64.b64encode(message.data).decode()}"


def whole(story: Story) -> dict[str, Any]:
    """Everything known of a story."""
    return {
        **summary(story),
        "published": story.input.publish_time if story.input else None,
        "attributes": dict(story.input.attributes) if story.input else None,
        "body": readable(story.input or story.output, 20_000),
        "picture": _picture(story.input or story.output),
        "output": readable(story.output, 20_000),
        "output_attributes": dict(story.output.attributes) if story.output else None,
        "ordering_key": (story.input or story.output or Message()).ordering_key,
    }
