"""Story: one message as the console tells it, what its answer was, and which words find it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from transforms.dead_letter import FIRST_ID
from transforms.records import Message

#: Characters of a label that are kept: it stands in every list, and in every event.
LABEL = 200


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
    reason: str | None = None
    replay_of: str | None = None
    replayed_as: str | None = None
    edited: bool = False
    #: Of a dead letter: waiting, replayed, mended (its replay became a result), or dismissed.
    state: str | None = None

    def size(self) -> int:
        return sum(len(m.data) + 64 * len(m.attributes) + 300 for m in (self.input, self.output) if m is not None)

    def note(self, name: str) -> str | None:
        """What the job wrote beside the answer, such as the model's name; a dead letter has no such."""
        return self.output.attributes.get(name) if self.status == "ok" and self.output is not None else None

    def root(self) -> str:
        """The id under which this message, or the one that it is a replay of, failed first."""
        for message in (self.output, self.input):
            if message is not None and message.attributes.get(FIRST_ID):
                return message.attributes[FIRST_ID]
        return self.message_id

    def source(self) -> Message | None:
        """What came in: from the input topic, or a dead letter, whose bytes are the message's own."""
        return self.input or (self.output if self.status == "dead_letter" else None)

    def holds(self, words: str, most: int) -> bool:
        """Whether label, error or input have ``words``, in small letters, in them."""
        texts = (self.label, self.error, self.error_type)
        if any(words in text.lower() for text in texts if text):
            return True
        source = self.source()
        return source is not None and words in source.data[:most].decode("utf-8", "ignore").lower()


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
    return (label[:LABEL] if isinstance(label, str) else None), score


def reason(error: str) -> str:
    """An error without what is of one message alone: quoted words and numbers. The same cause gives the same reason."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|“[^”]*”", "…", error[:400])
    text = re.sub(r"\b(?=\w*\d)(?:0x)?[0-9a-f][\w.,:-]*", "#", text)
    # What is left of quotes must not end the quotes of a filter.
    return " ".join(text.replace('"', "'").split())[:200]
