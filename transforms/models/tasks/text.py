"""What the text tasks share: a tokenizer, text inputs, and one row a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, TooLong
from transforms.models.inputs import Ask
from transforms.models.tasks.base import Loading, Prepared, Task
from transforms.models.tasks.tokenizing import Encoder, Row, load_tokenizer, max_tokens


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
            " shorten it, or run with on_too_long=truncate"
        )

    def forward(self, batch: Sequence[Prepared]) -> Any:
        return self.logits([prepared.rows for prepared in batch])

    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """The model's logits for ``rows``, in float32 on the CPU."""
        inputs = self.encoder.pad(rows, self.device)
        logits: torch.Tensor = self.model.forward(**inputs).logits
        return logits.float().cpu()
