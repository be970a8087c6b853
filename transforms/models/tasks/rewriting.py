"""text2text-generation, summarization and translation: models that read one text whole, and write another.

transformers 5 has no pipeline for them; the answers are those of the model's own ``generate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidParameter, ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared
from transforms.models.tasks.generation import MAX_NEW_TOKENS, Decoding, check_generation
from transforms.models.tasks.languages import Languages, Told
from transforms.models.tasks.tokenizer import load_tokenizer, max_tokens
from transforms.models.tasks.tokenizing import Row
from transforms.models.tasks.writer import Writer


class Text2TextGeneration(Writer):
    """``inputs``: a text. ``prediction``: ``[{"generated_text"}]``, one for each returned sequence.

    What the model's configuration says of the task (``task_specific_params``, ``prefix``) holds where the message does
    not say otherwise: a prefix goes before the text, unless it is there already.
    """

    entry = TASKS["text2text-generation"]
    auto = (("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),)
    key: ClassVar[str] = "generated_text"

    def __init__(self, loading: Loading) -> None:
        if not loading.config.is_encoder_decoder:
            raise ModelLoadError("it has no encoder that reads a text whole; use text-generation")
        super().__init__(loading)
        special = getattr(self.config, "task_specific_params", None)
        own = special.get(self.entry.name) if isinstance(special, dict) else None
        self.special: Mapping[str, Any] = own if isinstance(own, dict) else {}
        self.prefix = str(self.special.get("prefix") or getattr(self.config, "prefix", None) or "")
        self.languages = Languages(
            self.tokenizer, self.config, self.generator.generation_config, self.entry.name == "translation"
        )
        if self.languages.codes:
            # Another source language changes the tokenizer, which must not happen while its tokens are read.
            self.reader = load_tokenizer(loading.folder)

    def max_length(self) -> int | None:
        encoder = getattr(self.config, "max_encoder_position_embeddings", None)  # LED's
        limits = [n for n in (encoder, max_tokens(self.tokenizer, self.model)) if n]
        return min(limits) if limits else None

    @property
    def most_new(self) -> int | None:
        """The most new tokens that the decoder has positions for, beside the one it starts with."""
        config = self.config.get_text_config(decoder=True)
        rows = getattr(config, "max_decoder_position_embeddings", None)
        rows = rows or getattr(config, "max_position_embeddings", None)
        return rows - 1 if rows and rows > 0 else None

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        given = {"num_beams": self.generator.generation_config.num_beams or 1, **self.special, **parameters}
        check_generation({name: value for name, value in given.items() if name in self.entry.parameters})
        least, most = parameters.get("min_length"), parameters.get("max_length")
        if least is not None and most is not None and least > most:
            raise InvalidParameter(f"parameters.min_length={least}: is over max_length={most}")

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        told: list[Told | ElementError] = [self._told(ask) for ask in asks]
        rows: dict[int, Row] = {}
        sources = dict.fromkeys(each.source for each in told if isinstance(each, Told))
        for source in sources:
            own = [i for i, each in enumerate(told) if isinstance(each, Told) and each.source == source]
            if source is not None:
                self.tokenizer.src_lang = source
            texts = [self._text(asks[i].inputs, told[i]) for i in own]
            rows.update(zip(own, self.encoder.encode(texts), strict=True))
        return [
            each if isinstance(each, ElementError) else self.one(ask, rows[i])
            for i, (ask, each) in enumerate(zip(asks, told, strict=True))
        ]

    def _told(self, ask: Ask) -> Told | ElementError:
        try:
            return self.languages.told(ask.inputs, ask.parameters)
        except InvalidParameter as error:
            return error

    def _text(self, text: str, told: Any) -> str:
        prefix = told.prefix or self.prefix
        return text if text.startswith(prefix.strip() or prefix) else prefix + text

    def decoding(self, ask: Ask) -> Decoding:
        told = self.languages.told(ask.inputs, ask.parameters)
        # What is not declared, as a prefix, is none of generate's business; nor is a value that no message could have.
        declared = self.entry.parameters
        special = {
            name: value
            for name, value in {**self.special, **told.settings}.items()
            if name in ("forced_bos_token_id", "decoder_start_token_id")
            or (name in declared and declared[name].accepts(value))
        }
        own = {name: value for name, value in ask.parameters.items() if name not in ("src_lang", "tgt_lang")}
        longest = own.get("max_length", special.get("max_length"))
        if longest and "max_new_tokens" not in own:
            own["max_new_tokens"] = longest - 1  # transformers counts the token that the decoder starts with
        given = {name: value for name, value in {**special, **own}.items() if name != "max_length"}
        generation = self.generator.generation_config
        usual = generation.max_length - 1 if (generation.max_length or 0) > 1 else MAX_NEW_TOKENS
        return Decoding(given, generation, min(usual, self.most_new or usual))

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        prepared = super().one(ask, row)
        if isinstance(prepared, ElementError):
            return prepared
        decoding = self.decoding(ask)
        most = self.most_new
        if most is not None and decoding.new_tokens > most:
            return InvalidParameter(
                f"parameters.max_new_tokens={decoding.new_tokens}: the model writes {most} tokens; ask for fewer"
            )
        length = len(row.ids) + decoding.new_tokens
        return replace(prepared, size=Size(length, decoding.rows, decoding.group(len(row.ids), True)))

    def written(self, ask: Ask, row: torch.Tensor) -> dict[str, Any]:
        if len(row) and int(row[0]) in self.languages.codes.values():
            row = row[1:]  # the language is no part of the text, and not every tokenizer knows it for a mark
        return {self.key: str(self.reader.decode(row, skip_special_tokens=True))}


class Summarization(Text2TextGeneration):
    """``inputs``: a text. ``prediction``: ``[{"summary_text"}]``."""

    entry = TASKS["summarization"]
    key = "summary_text"


class Translation(Text2TextGeneration):
    """``inputs``: a text. ``prediction``: ``[{"translation_text"}]``.

    A model for several languages must be told which, as :class:`~transforms.models.tasks.languages.Languages` says.
    """

    entry = TASKS["translation"]
    key = "translation_text"
