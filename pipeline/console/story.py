"""Story: one message as the console tells it, what its answer was, and which words find it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson

from transforms.records import Message


@dataclass(slots=True)
class Story:
    """One message: what came in (None where the input topic is not watched), and how it ended."""

    message_id: str
    number: int
    input: Message | None = None
    output: Message | None = None
    status: str | None = None
    ended: float | None = None
    latency_ms: float | None = None
    label: str | None = None
    score: float | None = None
    stage: str | None = None
    error_type: str | None = None
    error: str | None = None
    replay_of: str | None = None
    replayed_as: str | None = None

    def size(self) -> int:
        return sum(len(m.data) + 64 * len(m.attributes) + 300 for m in (self.input, self.output) if m is not None)


def label_and_score(data: bytes) -> tuple[str | None, float | None]:
    """The first label of a result's prediction and its score, where its task has such."""
    try:
        prediction = orjson.loads(data)["prediction"]
    except (ValueError, KeyError, TypeError):
        return None, None
    first = prediction[0] if isinstance(prediction, list) and prediction else prediction
    if not isinstance(first, dict):
        return None, None
    label, score = first.get("label"), first.get("score")
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        score = None
    return (label if isinstance(label, str) else None), score


def matcher(words: str) -> Callable[[Story], bool]:
    """Whether a story fits ``words``: a message id, ``key=value`` of an attribute, or text of input, label or error."""
    words = words.strip()
    if not words:
        return lambda story: True
    key, equals, value = words.partition("=")
    lower = words.lower()

    def fits(story: Story) -> bool:
        if story.message_id == words:
            return True
        messages = [m for m in (story.input, story.output) if m is not None]
        if equals and any(m.attributes.get(key.strip()) == value.strip() for m in messages):
            return True
        texts: Iterable[str] = (story.label or "", story.error or "", story.error_type or "")
        return any(lower in text.lower() for text in texts) or any(
            lower in m.data[:65_536].decode("utf-8", "ignore").lower() for m in messages if m is story.input
        )

    return fits
