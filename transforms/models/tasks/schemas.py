"""Generation that is held to a JSON schema: at each step only those tokens that the schema lets follow."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import llguidance
import numpy as np
import torch
from transformers import LogitsProcessor

from transforms.errors import quoted
from transforms.models.errors import InvalidParameter
from transforms.models.structured import Structure

#: One space after a comma or a colon, as models write JSON, and none elsewhere: one could go on with them for ever.
_SPACES: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

#: Schemas that are kept compiled.
_KEPT = 64


class Grammars:
    """The schemas of one model's messages, compiled for its tokenizer."""

    def __init__(self, tokenizer: Any, ends: list[int], size: int) -> None:
        self._source = tokenizer
        self._ends = ends
        self._size = size
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, str] = OrderedDict()

    def compile(self, structure: Structure) -> str:
        """The grammar of ``structure``.

        Raises:
          InvalidParameter: this model cannot be held to it.
        """
        found = self._compiled.get(structure.text)
        if found is not None:
            self._compiled.move_to_end(structure.text)
            return found
        tokenizer, grammar = self.tokenizer(), ""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(structure.text, overrides=_SPACES)
            wrong = llguidance.LLMatcher.validate_grammar(grammar, tokenizer)
        except ValueError as error:  # a schema that is no object, or options of the library's own in it
            wrong = str(error)
        if wrong:
            why = " ".join(wrong.split())[:300]
            raise InvalidParameter(f"parameters.response_format: no answer can be held to its schema: {quoted(why)}")
        self._compiled[structure.text] = grammar
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return grammar

    def tokenizer(self) -> llguidance.LLTokenizer:
        """The model's tokenizer as the grammars read it; made when the first message asks for it.

        Raises:
          InvalidParameter: it is one in Python, or the model says no end.
        """
        if self._tokenizer is None:
            backend = getattr(self._source, "backend_tokenizer", None)
            if backend is None or not self._ends:
                why = "tokenizer is one in Python" if backend is None else "answers have no token that ends them"
                raise InvalidParameter(f"parameters.response_format: this model cannot be held to a schema: its {why}")
            size = max(self._size, len(self._source))
            self._tokenizer = llguidance.LLTokenizer(backend.to_str(), n_vocab=size, eos_token=self._ends)
        return self._tokenizer

    def held(self, structure: Structure, prompt: int) -> Held:
        """What holds one generation to ``structure``, whose prompts have ``prompt`` tokens."""
        return Held(self.tokenizer(), self.compile(structure), prompt)


class Held(LogitsProcessor):
    """Holds each row of one generation to a grammar, without beams: a row goes on as it began."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, grammar: str, prompt: int) -> None:
        self.prompt = prompt
        self._start = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        self._rows: list[llguidance.LLMatcher] = []
        self._ends = set(tokenizer.eos_tokens)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new = input_ids[:, self.prompt :].tolist()
        if not self._rows:
            self._rows = [self._start.deep_copy() for _ in new]
        allowed = np.zeros(tuple(scores.shape), bool)
        for i, (row, tokens) in enumerate(zip(self._rows, new, strict=True)):
            if tokens and not row.is_stopped() and not row.is_error():
                row.consume_token(tokens[-1])
            if row.is_stopped() or row.is_error():
                # It has come to its end, or cannot go on: what is there is looked at afterwards.
                allowed[i, list(self._ends)] = True
                continue
            bits = np.unpackbits(np.frombuffer(row.compute_bitmask(), np.uint8), bitorder="little").astype(bool)
            width = min(len(bits), scores.shape[1])
            allowed[i, :width] = bits[:width]
            if not allowed[i].any():
                allowed[i, list(self._ends)] = True
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)
