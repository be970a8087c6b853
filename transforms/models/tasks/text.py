"""What the text tasks share: a tokenizer, text inputs, and one row a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, TooLong, brief
from transforms.models.tasks.base import Ask, Loading, Prepared, Task
from transforms.models.tasks.tokenizing import Encoder, Row, Text, load_tokenizer, max_tokens


def check_text(value: Any, what: str = "inputs") -> str:
    """``value``, if it is a text.

    Raises:
      InvalidInput: it is no string, or an empty one.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what}={brief(value)}: must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidInput(f"{what} is an empty string; there is nothing to run the model on")
    return value


class TextTask(Task):
    """A task on one text a message, or on a text and its pair."""

    strategy: ClassVar[str] = "longest_first"

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.tokenizer = load_tokenizer(loading.folder)
        self.encoder = Encoder(self.tokenizer, self.max_length(), self.strategy)

    def max_length(self) -> int | None:
        """The longest input in tokens, special ones included."""
        return max_tokens(self.tokenizer, self.model)

    def check(self, inputs: Any) -> Text:
        return check_text(inputs)

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        rows = self.encoder.encode([ask.inputs for ask in asks])
        return [self.one(ask, row) for ask, row in zip(asks, rows, strict=True)]

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        """An element of one row."""
        if row.truncated and self.loading.refuse_too_long:
            return self.too_long()
        length = len(row.ids)
        return Prepared(ask, row, Size(length), length, row.truncated)

    def too_long(self) -> TooLong:
        """The failure of an element over the model's maximum."""
        return TooLong(
            f"inputs is longer than the model's {self.encoder.max_length} tokens;"
            " shorten it, or run with --on_too_long=truncate"
        )

    def forward(self, batch: Sequence[Prepared]) -> Any:
        return self.logits([prepared.rows for prepared in batch])

    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """The model's logits for ``rows``, in float32 on the CPU."""
        inputs = self.encoder.pad(rows, self.device)
        return self.model(**inputs).logits.float().cpu()
