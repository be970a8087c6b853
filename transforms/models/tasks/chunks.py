"""Long texts in pieces: where to cut them, by tokens that overlap or by sentences, so that no piece is cut again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.models.errors import InvalidParameter, TooLong
from transforms.models.tasks.tokenizing import Encoder, Row

#: Most pieces of one message.
MAX_CHUNKS = 1000

#: Tokens of a piece where neither the message nor the model says.
USUAL_TOKENS = 512

#: Where a sentence ends: after its mark and what closes it, or with its line.
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut: into pieces of at most ``tokens``, special ones and the prompt's included."""

    by: str = "tokens"
    tokens: int | None = None
    overlap: int = 0

    @classmethod
    def of(cls, asked: str | Mapping[str, Any]) -> Chunking:
        """What ``parameters.chunk`` says."""
        return cls(asked) if isinstance(asked, str) else cls(**asked)


class Chunks:
    """Cuts texts for one model."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def cut(self, text: str, chunking: Chunking, prompt: str) -> tuple[list[Span], list[Row]]:
        """Where the pieces of ``text`` stand in it, in characters, and the row of each behind ``prompt``.

        Raises:
          InvalidParameter: no piece has room, or the tokenizer knows no places.
          TooLong: there are over ``MAX_CHUNKS`` of them.
        """
        if self.encoder.backend is None:
            raise InvalidParameter("parameters.chunk: this model's tokenizer is one in Python, and knows no places")
        longest = self.encoder.max_length
        most = min(n for n in (chunking.tokens or longest or USUAL_TOKENS, longest) if n)
        room = most - len(self.encoder.encode([prompt])[0].ids)
        if room <= chunking.overlap:
            raise InvalidParameter(
                f"parameters.chunk: {most} tokens leave {room} for a text; the overlap of {chunking.overlap}"
                " must be less than that"
            )
        places = _filled(text, self.encoder.places(text))
        while True:
            spans = self._spans(text, places, chunking, room)
            if len(spans) > MAX_CHUNKS:
                raise TooLong(f"inputs makes {len(spans)} chunks; at most {MAX_CHUNKS} are taken of a message")
            texts = [prompt + text[start:end] for start, end in spans]
            rows = self.encoder.encode(texts)
            if not any(row.truncated or len(row.ids) > most for row in rows):
                return spans, rows
            # A word that was cut in two may have more tokens than it had whole.
            if room - 1 <= chunking.overlap:
                raise InvalidParameter(f"parameters.chunk: {most} tokens are too few for a piece of this text")
            room = max(chunking.overlap + 1, room * 9 // 10)

    def _spans(self, text: str, places: Sequence[Span], chunking: Chunking, room: int) -> list[Span]:
        if chunking.by == "tokens" or not places:
            return _by_tokens(text, places, room, chunking.overlap)
        return _by_sentences(text, places, room)


def _by_tokens(text: str, places: Sequence[Span], room: int, overlap: int) -> list[Span]:
    """Pieces of ``room`` tokens, cut between words where there are some in the second half."""
    if not places:
        return [(0, len(text))]
    spans: list[Span] = []
    first = done = 0
    while True:
        end = min(first + room, len(places))
        if end < len(places):
            end = _between_words(text, places, first, end, done)
        begin = first
        if end > done:  # else it is within the piece before
            spans.append((places[first][0], places[end - 1][1]))
            if end == len(places):
                return spans
            done = end
            begin = max(first + 1, end - overlap)
            while begin > first and _inside(places, begin):
                begin -= 1
        if begin == first:
            begin = next(place for place in range(first + 1, done + 1) if place == done or not _inside(places, place))
        first = begin


def _between_words(text: str, places: Sequence[Span], first: int, end: int, done: int) -> int:
    """The last place up to ``end`` to cut at: before a word, else between two characters, else ``end`` itself.

    A word before ``done``, where the piece before was cut, is none to cut at.
    """
    whole = end
    while whole > first + 1 and _inside(places, whole):
        whole -= 1
    for place in range(end, max(done, first + (end - first) // 2), -1):
        begin = places[place][0]
        if begin > places[place - 1][1] or text[begin : begin + 1].isspace():
            return place
    return whole


def _inside(places: Sequence[Span], place: int) -> bool:
    """Whether the token at ``place`` goes on with the character of the one before."""
    return places[place][0] < places[place - 1][1]


def _filled(text: str, places: Sequence[Span]) -> list[Span]:
    """``places``, where what has no token of its own is with the one before it: an accent, or an unseen mark."""
    filled: list[Span] = []
    for start, end in places:
        if not filled:
            start -= len(text[:start].lstrip())
        elif filled[-1][1] < start:
            before = filled[-1]
            filled[-1] = before[0], before[1] + len(text[before[1] : start].rstrip())
        filled.append((start, end))
    if filled:
        start, end = filled[-1]
        filled[-1] = start, end + len(text[end:].rstrip())
    return filled


def _by_sentences(text: str, places: Sequence[Span], room: int) -> list[Span]:
    """As many whole sentences as have room; one that has not is cut by tokens."""
    borders = [*(found.end() for found in _SENTENCE.finditer(text)), len(text)]
    sentences: list[list[Span]] = []
    token = 0
    for border in borders:
        own = []
        while token < len(places) and places[token][0] < border:
            own.append(places[token])
            token += 1
        if own:
            sentences.append(own)
    spans: list[Span] = []
    open_: list[Span] = []
    for own in sentences:
        if open_ and len(open_) + len(own) > room:
            spans.append((open_[0][0], open_[-1][1]))
            open_ = []
        if len(own) > room:
            spans += _by_tokens(text, own, room, 0)
        else:
            open_ += own
    return [*spans, (open_[0][0], open_[-1][1])] if open_ else spans
