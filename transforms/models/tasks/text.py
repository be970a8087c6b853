"""What the text tasks share: a tokenizer, text inputs, and one row a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, TooLong, brief
from transforms.models.inputs import Ask
from transforms.models.inside import vocabulary
from transforms.models.tasks.base import Loading, Prepared, Task
from transforms.models.tasks.tokenizer import load_tokenizer, max_tokens
from transforms.models.tasks.tokenizing import Encoder, Row, Text

#: Padded tokens of one element's rows that are in the model at once; those of several elements are cut before.
_MOST_TOKENS = {"cpu": 16_384, "cuda": 65_536}


class TextTask(Task):
    """A task on one text a message, or on a text and its pair."""

    strategy: ClassVar[str] = "longest_first"
    reads_text = True
    #: The model's outputs that the task reads, and whether they have one vector a token.
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    by_token: ClassVar[bool] = False

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.tokenizer = load_tokenizer(loading.folder)
        self.encoder = Encoder(self.tokenizer, self.max_length(), self.strategy)
        #: Tokens that the model has a vector for, where its tokenizer knows more (tokens added, and never trained).
        known = vocabulary(self.model.module)
        self.known = known if known is not None and len(self.tokenizer) > known else None

    def max_length(self) -> int | None:
        """The longest input in tokens, special ones included."""
        return max_tokens(self.tokenizer, self.model)

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        rows = self.encoder.encode([ask.inputs for ask in asks])
        return [self.one(ask, row) for ask, row in zip(asks, rows, strict=True)]

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        """An element of one row."""
        wrong = self.unreadable([row])
        if wrong:
            return wrong
        if row.truncated and self.loading.refuse_too_long:
            return self.too_long()
        length = len(row.ids)
        return Prepared(ask, row, Size(length), length, row.truncated)

    def unreadable(self, rows: Sequence[Row], what: str = "inputs") -> InvalidInput | None:
        """The failure of an element of which a row has no token, fewer than the model can read, or one it has not."""
        shortest = min(len(row.ids) for row in rows)
        if not shortest:
            return InvalidInput(f"{what} has no token for this model: nothing in it is in the tokenizer's vocabulary")
        if shortest < self.sharing.least:
            return InvalidInput(f"{what} has {shortest} tokens; this model needs {self.sharing.least}")
        known = self.known
        strange = next((i for row in rows for i in row.ids if i >= known), None) if known is not None else None
        if strange is None:
            return None
        token = self.tokenizer.convert_ids_to_tokens(strange)
        return InvalidInput(f"{what} has the token {brief(token)}, which the tokenizer knows and the model does not")

    def too_long(self) -> TooLong:
        """The failure of an element over the model's maximum."""
        return TooLong(
            f"inputs is longer than the model's {self.encoder.max_length} tokens;"
            " shorten it, or run with on_too_long=truncate"
        )

    def cut_unasked(self, ask: Ask, rows: Sequence[Row], what: str = "inputs is") -> TooLong | None:
        """The failure of an element with a row that was cut, where the job or ``truncate`` would rather have none."""
        if not any(row.truncated for row in rows):
            return None
        if not self.loading.refuse_too_long and ask.parameters.get("truncate", True):
            return None
        return TooLong(
            f"{what} longer than the model's {self.encoder.max_length} tokens;"
            " shorten it, or let it be cut (on_too_long=truncate, parameters.truncate=true)"
        )

    def forward(self, batch: Sequence[Prepared]) -> Any:
        return self.logits([prepared.rows for prepared in batch])

    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """The model's logits for ``rows``, in float32 on the CPU."""
        return self.run(rows)[0].float().cpu()

    def run(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The model's ``outputs`` for ``rows``, each ``[len(rows), …]``; a row's tokens begin at 0 on either side of
        padding. Rows that must not share a forward do not."""
        lengths = [len(row.ids) for row in rows]
        fit = max(1, _MOST_TOKENS[self.device.type] // (max(lengths) or 1))
        parts = [part[i : i + fit] for part in self.sharing.parts(lengths) for i in range(0, len(part), fit)]
        done = [self._forward([rows[i] for i in part]) for part in parts]
        if len(parts) == 1:
            return done[0]
        longest = max(len(row.ids) for row in rows)
        whole = []
        for tensors in zip(*done, strict=True):
            shape = (longest, *tensors[0].shape[2:]) if self.by_token else tensors[0].shape[1:]
            both = tensors[0].new_zeros((len(rows), *shape))
            for part, tensor in zip(parts, tensors, strict=True):
                if self.by_token:
                    both[part, : tensor.shape[1]] = tensor
                else:
                    both[part] = tensor
            whole.append(both)
        return whole

    def _forward(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        self.sharing.restore()
        outputs = self.model.forward(**self.encoder.pad(rows, self.device))
        tensors = [getattr(outputs, name) for name in self.outputs]
        if not (self.by_token and self.encoder.left and len(rows) > 1):
            return tensors
        longest = max(len(row.ids) for row in rows)
        return [
            torch.stack([own.roll(len(row.ids) - longest, 0) for own, row in zip(tensor, rows, strict=True)])
            for tensor in tensors
        ]

    @property
    def longest(self) -> int | None:
        """The most tokens that the model takes, special ones included; None when nothing limits it."""
        return self.encoder.max_length

    def example(self, text: str) -> Text:
        """What the tokenizer is given of a message with ``text``."""
        return text

    def raw(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """What the model makes of each of ``rows``, for ``sharing.measure``."""
        tensors = self.run(rows)
        return [
            torch.cat([(tensor[i, : len(row.ids)] if self.by_token else tensor[i]).flatten() for tensor in tensors])
            for i, row in enumerate(rows)
        ]
