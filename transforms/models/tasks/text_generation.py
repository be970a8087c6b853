"""text-generation: prompts and chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from transforms.models import structured
from transforms.models.batching import Size
from transforms.models.chats import Messages, begun, continued, is_text, rendered
from transforms.models.errors import ElementError, InvalidInput, InvalidParameter, TooLong, brief
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared
from transforms.models.tasks.generation import check_generation, generate
from transforms.models.tasks.schemas import Grammars
from transforms.models.tasks.tokenizer import max_tokens
from transforms.models.tasks.tokenizing import Row
from transforms.models.tasks.writer import Writer


class TextGeneration(Writer):
    """``inputs``: a prompt, or a chat. ``prediction``: ``[{"generated_text"}]``, one for each returned sequence.

    The text holds the prompt too, unless ``return_full_text`` is false; for a chat it is the chat with one message
    more. Greedy unless the model's own generation configuration, or the message, asks for sampling. A prompt that
    leaves no room for the new tokens loses its beginning.
    """

    entry = TASKS["text-generation"]
    auto = (("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),)

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.encoder.left = True  # the new tokens come after the prompt's last
        ends = self.generator.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        self.grammars = Grammars(
            self.tokenizer,
            ends if isinstance(ends, list) else [] if ends is None else [ends],
            self.generator.get_output_embeddings().weight.shape[0] if self.generator.get_output_embeddings() else 0,
        )

    @cached_property
    def longest(self) -> int | None:
        """The most tokens that the model takes, new ones included."""
        return max_tokens(self.tokenizer, self.model)

    def max_length(self) -> int | None:
        """None: what fits depends on how many tokens are to be generated, so ``prepare`` cuts."""
        return None

    def check(self, inputs: Any) -> Any:
        checked = super().check(inputs)
        if isinstance(checked, str):
            return checked
        for i, message in enumerate(checked):
            content = message["content"]
            other = next((part for part in content if not is_text(part)), None) if isinstance(content, list) else None
            if other is not None:
                raise InvalidInput(f"inputs[{i}].content={brief(other)}: this model reads texts only")
        if self.tokenizer.chat_template is None:
            raise InvalidInput("inputs is a chat, and this model has no chat template; send a prompt as a string")
        return checked

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        check_generation(parameters)
        structure = structured.asked(parameters)
        if structure is not None:
            if parameters.get("num_beams", self.generator.generation_config.num_beams or 1) > 1:
                raise InvalidParameter(
                    "parameters.num_beams: an answer is held to response_format without beams; use 1"
                )
            self.grammars.compile(structure)

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        prompts = iter(self.encoder.encode([self._end(ask.inputs) for ask in asks if isinstance(ask.inputs, str)]))
        # A chat template writes the special tokens itself.
        chats = iter(
            self.encoder.encode(
                [self._end(self._render(ask.inputs)) for ask in asks if isinstance(ask.inputs, list)], special=False
            )
        )
        return [self.one(ask, next(prompts if isinstance(ask.inputs, str) else chats)) for ask in asks]

    def _end(self, prompt: str) -> str:
        """As much of ``prompt`` as decides on the tokens that are left of it: its beginning is cut."""
        return self.encoder.head(prompt, self.longest, end=True) if self.encoder.backend else prompt

    def _render(self, chat: Messages) -> str:
        return rendered(chat, self.tokenizer)

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        decoding = self.decoding(ask)
        wrong = self.unreadable([row])
        if wrong:
            return wrong
        keep = ask.parameters.get("truncate", len(row.ids))
        longest = self.longest
        if longest is not None:
            if decoding.new_tokens >= longest:
                return InvalidParameter(
                    f"parameters.max_new_tokens={decoding.new_tokens}: the model takes {longest} tokens in all,"
                    " prompt included; ask for fewer"
                )
            keep = min(keep, longest - decoding.new_tokens)
        cut = keep < len(row.ids)
        if cut and self.loading.refuse_too_long and "truncate" not in ask.parameters:
            return TooLong(
                f"inputs has {len(row.ids)} tokens or more; with {decoding.new_tokens} new ones that is over the"
                f" model's {longest}; shorten it, lower max_new_tokens, or run with on_too_long=truncate"
            )
        if cut:
            row = Row(row.ids[-keep:], row.type_ids and row.type_ids[-keep:], True)
        group = decoding.group(len(row.ids), False, self.encoder.pad_id >= len(self.tokenizer))
        size = Size(len(row.ids) + decoding.new_tokens, decoding.rows, group)
        return Prepared(ask, row, size, len(row.ids), cut)

    def forward(self, batch: Sequence[Prepared]) -> list[list[Any]]:
        structure = structured.asked(batch[0].ask.parameters)
        if structure is None:
            return super().forward(batch)
        inputs = self._inputs([prepared.rows for prepared in batch])
        held = self.grammars.held(structure, inputs["input_ids"].shape[1])
        limit_s = self.loading.spec.time_limit_s
        return generate(self.generator, self.reader, inputs, self.decoding(batch[0].ask), limit_s, held)

    def written(self, ask: Ask, row: torch.Tensor) -> dict[str, Any]:
        words = str(self.tokenizer.decode(row, skip_special_tokens=True))
        structure = structured.asked(ask.parameters)
        parsed = {} if structure is None else {"parsed": structure.read(words)}
        return {"generated_text": self._text(ask, words), **parsed}

    def _text(self, ask: Ask, words: str) -> str | Messages:
        if not ask.parameters.get("return_full_text", True):
            return words
        return ask.inputs + words if isinstance(ask.inputs, str) else answered(ask.inputs, words)


def answered(chat: Messages, text: str) -> Messages:
    """``chat`` with the model's ``text``: as a new message, or at the end of one that was begun."""
    if begun(chat):
        return [*chat[:-1], {**chat[-1], "content": continued(chat[-1]["content"], text)}]
    return [*chat, {"role": "assistant", "content": text}]
