"""What the tasks share that read a text and write one: the prompts, the generation, and what becomes of its tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from transforms.models.errors import ElementError, InvalidAnswer
from transforms.models.inputs import Ask
from transforms.models.tasks.base import Loading, Prepared
from transforms.models.tasks.generation import Decoding, generate, tokens_written
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizing import Row


class Writer(TextTask):
    """A task that generates text from one text, or from a chat."""

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        # Generation is many forwards with a cache between them: past the engine, on the model itself.
        self.generator = self.model.module
        # Reads the tokens that were generated, on another thread than the one that prepares.
        self.reader = self.tokenizer

    def decoding(self, ask: Ask) -> Decoding:
        """How the answer to ``ask`` is generated."""
        return Decoding(ask.parameters, self.generator.generation_config)

    def forward(self, batch: Sequence[Prepared]) -> list[list[Any]]:
        inputs = self._inputs([prepared.rows for prepared in batch])
        limit_s = self.loading.spec.time_limit_s
        return generate(self.generator, self.reader, inputs, self.decoding(batch[0].ask), limit_s)

    def tokens_written(self, output: Any) -> int:
        return tokens_written(output)

    def _inputs(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        self.sharing.restore()
        inputs = self.encoder.pad(rows, self.device)
        inputs.pop("token_type_ids", None)
        return inputs

    def raw(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The logits of the first two tokens: those after padding, and those after what the first step kept."""
        made = []
        for part in self.sharing.parts([len(row.ids) for row in rows]):
            steps = self.generator.generate(
                **self._inputs([rows[i] for i in part]),
                max_new_tokens=2,
                min_new_tokens=2,
                do_sample=False,
                num_beams=1,
                num_return_sequences=1,
                tokenizer=self.tokenizer,
                pad_token_id=self.encoder.pad_id,
                output_logits=True,
                return_dict_in_generate=True,
            ).logits
            made += [(place, torch.cat([step[i].flatten() for step in steps])) for i, place in enumerate(part)]
        return [logits for _, logits in sorted(made, key=lambda one: one[0])]

    def finish(self, outputs: list[list[Any]], batch: Sequence[Prepared]) -> list[Any]:
        return [
            rows[0] if isinstance(rows[0], ElementError) else self._answer(prepared.ask, rows)
            for prepared, rows in zip(batch, outputs, strict=True)
        ]

    def _answer(self, ask: Ask, rows: Sequence[torch.Tensor]) -> list[dict[str, Any]] | ElementError:
        try:
            return [self.written(ask, row) for row in rows]
        except InvalidAnswer as error:
            return error

    @abstractmethod
    def written(self, ask: Ask, row: torch.Tensor) -> dict[str, Any]:
        """The prediction's entry for one generated ``row``, without the tokens of its prompt.

        Raises:
          InvalidAnswer: it does not fit what was asked for.
        """
