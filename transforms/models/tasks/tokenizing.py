"""Text to padded tensors: a whole batch in one call of the tokenizer, padding by hand for each micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from transforms.errors import quoted
from transforms.models.errors import InvalidInput, TooLong

#: A text, or a text and its pair.
Text = str | tuple[str, str]

#: Characters a token beyond which a text is looked at in part first. Most tokens of most texts are far shorter.
_A_TOKEN = 16

#: Characters of a text that nothing cuts. Tokens are some 300 bytes each before they are as few as the model takes.
_MOST = 2_000_000

#: Characters that are tokenised at once.
_SLICE = 1_000_000

#: Characters of one call's texts and pairs, as far as they are read: a message has one text beside each of a thousand
#: others, and where it has no blanks, all of it is read each time.
_MOST_TOGETHER = 20_000_000

#: Windows that one text may be read in.
MAX_WINDOWS = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenised row: ids, segment ids where the model reads them, and whether it was cut.

    ``encoding`` is the Rust tokenizer's own record (offsets, words, overflow); None with a tokenizer in Python, and of
    what was cut where nobody reads it.
    """

    ids: list[int]
    type_ids: list[int] | None
    truncated: bool
    encoding: Any = None


class Encoder:
    """Tokenises for one model. Not thread-safe: a tokenizer keeps its truncation as state.

    ``max_length`` is in tokens, special ones included; None never cuts. ``strategy`` is the tokenizer's name for which
    of a pair is cut: ``longest_first``, ``only_first`` or ``only_second``.
    """

    def __init__(self, tokenizer: Any, max_length: int | None, strategy: str = "longest_first") -> None:
        self.tokenizer = tokenizer
        self.backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self.max_length = max_length
        self.strategy = strategy
        self._state: tuple[int | None, int] | None = None
        self.segments = "token_type_ids" in tokenizer.model_input_names
        self.masked = "attention_mask" in tokenizer.model_input_names
        self.pad_id = tokenizer.pad_token_id or 0
        self.left = tokenizer.padding_side == "left"
        self.pad_type_id = tokenizer.pad_token_type_id
        #: Whether the encodings of rows that were cut are read too.
        self.keeps = False

    def encode(self, texts: Sequence[Text], *, special: bool = True) -> list[Row]:
        """One row for each of ``texts``; ``special`` adds the model's special tokens.

        Raises:
          TooLong: of them all, too much would have to be read.
        """
        if self.backend is None:
            return [self._encode_slowly(text, special) for text in texts]
        heads: dict[str, str] = {}  # each of them once: of pairs, one is often the same
        texts = [self._read(text, heads) for text in texts]
        together = sum(map(_length, texts))
        if together > _MOST_TOGETHER:
            raise TooLong(
                f"inputs would be read as {together:,} characters, each text beside each of the others; at most"
                f" {_MOST_TOGETHER:,} are; send shorter or fewer texts"
            )
        self._truncate(self.max_length, 0)
        return [row for part in _slices(texts) for row in self._rows(part, special)]

    def _rows(self, texts: Sequence[Text], special: bool) -> list[Row]:
        try:
            # The Rust tokenizer itself: __call__ builds dicts nobody reads, which takes as long as tokenising.
            encodings = self.backend.encode_batch(texts, add_special_tokens=special)
        except Exception as error:
            # Its own errors have no class of their own; a pair of which only the second may be cut is one of them.
            if type(error) is Exception:
                raise InvalidInput(f"the model's tokenizer cannot take it: {quoted(str(error)[:200])}") from error
            raise
        return [self._row(encoding) for encoding in encodings]

    def _read(self, text: Text, heads: dict[str, str]) -> Text:
        """As much of ``text`` as decides on the tokens that are left of it."""
        if isinstance(text, tuple):
            return self._head_of(text[0], heads), self._head_of(text[1], heads)
        return self._head_of(text, heads)

    def _head_of(self, text: str, heads: dict[str, str]) -> str:
        if text not in heads:
            heads[text] = self.head(text)
        return heads[text]

    def head(self, text: str, most: int | None = None, end: bool = False) -> str:
        """The beginning of ``text`` that holds twice ``most`` tokens, or its ``end``; all of it if it is not longer.

        ``most`` is the model's maximum where none is given. Ten megabytes of a text of which the model reads two pages
        would take gigabytes and half a minute.

        Raises:
          TooLong: there is no maximum, and it is too long for memory.
        """
        most = most or self.max_length
        if most is None:
            if len(text) > _MOST:
                raise TooLong(f"inputs has {len(text):,} characters; at most {_MOST:,} are read at once")
            return text
        # Cut on the left, what is left of it has its places counted from the first character.
        if not end and self.tokenizer.truncation_side == "left":
            return text
        size = 2 * most * _A_TOKEN
        while size < len(text):
            part = text[-size:] if end else text[:size]
            if self._count(part) >= 2 * most:
                return part
            size *= 4
        return text

    def _count(self, text: str) -> int:
        self._truncate(None, 0)
        return len(self.backend.encode(text, add_special_tokens=False).ids)

    def _has_over(self, text: str, most: int) -> bool:
        """Whether ``text`` has more than ``most`` tokens."""
        size = most
        while len(text) * 24 > most:  # bytes a character, times what one byte can become when it is normalised
            if self._count(text[:size]) > most:
                return True
            if size >= len(text):
                break
            size *= 4
        return False

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where each token of ``text`` stands in it, in characters; special tokens stand nowhere."""
        self._truncate(None, 0)
        return [place for place in self.backend.encode(text, add_special_tokens=False).offsets if place[0] < place[1]]

    def windows(self, text: Text, max_length: int | None, stride: int, step: int) -> list[Row]:
        """``text`` as rows of at most ``max_length`` tokens that overlap by ``stride``, each with ``step`` new ones.

        Raises:
          NotImplementedError: the model's tokenizer is one in Python, which knows no offsets.
          TooLong: it would be read in more than ``MAX_WINDOWS``.
        """
        if self.backend is None:
            raise NotImplementedError("this model's tokenizer cannot split a text into windows; send shorter texts")
        if self._has_over(text if isinstance(text, str) else text[1], MAX_WINDOWS * step):
            raise TooLong(
                f"inputs would be read in over {MAX_WINDOWS:,} windows with {step} new tokens each; shorten it, or let"
                " the windows overlap less"
            )
        self._truncate(max_length, stride)
        first = self.backend.encode(*((text,) if isinstance(text, str) else text))
        return [Row(e.ids, e.type_ids if self.segments else None, False, e) for e in (first, *first.overflowing)]

    def _truncate(self, max_length: int | None, stride: int) -> None:
        # Set only when it changes: the Rust tokenizer refuses while another thread decodes with it.
        if self.backend.padding is not None:
            self.backend.no_padding()
        if (max_length, stride) == self._state:
            return
        if max_length is None:
            self.backend.no_truncation()
        else:
            side = self.tokenizer.truncation_side
            self.backend.enable_truncation(max_length, stride=stride, strategy=self.strategy, direction=side)
        self._state = (max_length, stride)

    def _row(self, encoding: Any) -> Row:
        ids = encoding.ids
        cut = self.max_length is not None and len(ids) >= self.max_length and bool(encoding.overflowing)
        # An encoding holds on to all that was cut off.
        return Row(ids, encoding.type_ids if self.segments else None, cut, encoding if self.keeps or not cut else None)

    def _encode_slowly(self, text: Text, special: bool) -> Row:
        pair = (text,) if isinstance(text, str) else text
        whole = self.tokenizer(*pair, add_special_tokens=special)["input_ids"]
        encoded = self.tokenizer(
            *pair,
            add_special_tokens=special,
            truncation=self.strategy if self.max_length else False,
            max_length=self.max_length,
        )
        return Row(encoded["input_ids"], encoded.get("token_type_ids"), len(encoded["input_ids"]) < len(whole))

    def pad(self, rows: Sequence[Row], device: torch.device) -> dict[str, torch.Tensor]:
        """The model's inputs for ``rows``: ``[len(rows), longest]`` each, padded on the right unless ``self.left``."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = np.full(shape, self.pad_id, np.int64)
        mask = np.zeros(shape, np.int64)
        types = np.full(shape, self.pad_type_id, np.int64) if rows[0].type_ids is not None else None
        for i, row in enumerate(rows):
            length = len(row.ids)
            where = slice(shape[1] - length, None) if self.left else slice(0, length)
            ids[i, where] = row.ids
            mask[i, where] = 1
            if types is not None and row.type_ids is not None:
                types[i, where] = row.type_ids
        inputs = {"input_ids": ids}
        if self.masked:
            inputs["attention_mask"] = mask
        if types is not None:
            inputs["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def _slices(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """``texts`` in parts of ``_SLICE`` characters, or of one text."""
    start = size = 0
    for end, text in enumerate(texts):
        length = _length(text)
        if size + length > _SLICE and end > start:
            yield texts[start:end]
            start, size = end, 0
        size += length
    if start < len(texts):
        yield texts[start:]
