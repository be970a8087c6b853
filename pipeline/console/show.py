"""Show: a story as the page takes it, in JSON; bodies as text where they are text, and cut to what a person reads."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.console.cases import Case
from pipeline.console.pictures import picture
from pipeline.console.story import Story
from transforms.records import Message

#: Characters of an input or a prediction that a list shows, and of a body that a page of its own does.
PREVIEW = 300
BODY = 20_000
#: Of a result, which is drawn as what it is: masks over a picture and long vectors are more than a person reads.
RESULT = 1 << 20
#: Bytes of a body that are parsed for a list's row.
_PARSED = 65_536


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
    if message is None or len(message.data) > _PARSED:
        return readable(message)
    try:
        inputs = orjson.loads(message.data)["inputs"]
    except (ValueError, KeyError, TypeError):
        return readable(message)
    text = inputs if isinstance(inputs, str) else orjson.dumps(inputs).decode()
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def summary(story: Story) -> dict[str, Any]:
    """A story as a list shows it."""
    source = story.source()
    return {
        "message_id": story.message_id,
        "number": story.number,
        "status": story.status,
        "published": story.input.publish_time if story.input else None,
        "ended": story.ended,
        "latency_ms": story.latency_ms,
        # What failed may be beside the model's input.
        "input": readable(source) if story.status == "dead_letter" else input_text(source),
        "has_picture": picture(source) is not None,
        "label": story.label,
        "score": story.score,
        "prediction": _prediction(story),
        "model": story.note("model"),
        "revision": story.note("model_revision"),
        "variant": story.note("variant"),
        "stage": story.stage,
        "error_type": story.error_type,
        "error": story.error,
        "reason": story.reason,
        "replay_of": story.replay_of,
        "replayed_as": story.replayed_as,
        "edited": story.edited,
    }


def letter(case: Case) -> dict[str, Any]:
    """A dead letter in the list, with all that became of it."""
    return {
        **summary(case.letter),
        "root": case.root,
        "case": case.number,
        "state": case.state,
        "why": case.why,
        "steps": case.steps,
        "attributes": _own(case.letter.output),
    }


def _own(message: Message | None) -> dict[str, str]:
    notes = message.attributes if message else {}
    return {key: value for key, value in notes.items() if not key.startswith("dead_letter_") and key != "traceparent"}


def _prediction(story: Story) -> str | None:
    if story.status != "ok" or story.output is None or story.label is not None:
        return None
    if len(story.output.data) <= _PARSED:
        try:
            return orjson.dumps(orjson.loads(story.output.data)["prediction"]).decode()[:PREVIEW]
        except (ValueError, KeyError, TypeError):
            return None
    _, found, rest = story.output.data[: 4 * PREVIEW].decode("utf-8", "ignore").partition('"prediction":')
    return (rest if found else "")[:PREVIEW] or None


def _said(story: Story) -> str | None:
    """What came in as the result itself tells it (``--result_input``)."""
    if story.status != "ok" or story.output is None:
        return None
    try:
        result = orjson.loads(story.output.data)
        told = result.get("inputs", result.get("body"))
    except (ValueError, AttributeError):
        return None
    if told is None:
        return None
    return (told if isinstance(told, str) else orjson.dumps(told).decode())[:BODY]


def whole(story: Story, case: Case | None = None) -> dict[str, Any]:
    """Everything known of a story. What came in is None where neither a topic nor the result told it."""
    source = story.source()
    return {
        **summary(story),
        "attributes": dict(source.attributes) if source else None,
        "body": readable(source, BODY) if source else _said(story),
        "body_bytes": len(source.data) if source else None,
        "body_from": None if source is None and _said(story) is None else "the result" if source is None else "topic",
        "output": readable(story.output, RESULT) if story.status == "ok" else None,
        "output_bytes": len(story.output.data) if story.output else None,
        "output_attributes": dict(story.output.attributes) if story.output and story.status == "ok" else None,
        "ordering_key": (story.input or story.output or Message()).ordering_key,
        "case": {"root": case.root, "state": case.state, "why": case.why, "steps": case.steps} if case else None,
    }
