"""token-classification and fill-mask: predictions for single tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, InvalidParameter, ModelLoadError, brief
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, non_finite, softmax, to_numpy
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizing import Row

#: Logits over a vocabulary that cost as much as one token: fill-mask needs a whole vocabulary of them a token.
LOGITS_A_TOKEN = 8192

#: Filled texts in one prediction: mask tokens times ``top_k``.
MAX_FILLS = 10_000


class TokenClassification(TextTask):
    """``inputs``: a text. ``prediction``: ``[{"entity", "score", "index", "word", "start", "end"}]``, in text order.

    With an ``aggregation_strategy``, tokens become ``entity_group`` spans; with ``stride`` a long text is read in
    overlapping windows instead of cut. The grouping itself is transformers' own.
    """

    entry = TASKS["token-classification"]
    auto = (("AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"),)
    by_token = True

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.encoder.keeps = True
        if self.encoder.backend is None:
            raise ModelLoadError("token-classification needs a fast tokenizer (tokenizer.json); this model has none")
        # Only its grouping is used, which reads the model's labels.
        self.grouping = transformers.TokenClassificationPipeline(model=self.model.module, tokenizer=self.tokenizer)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        stride = parameters.get("stride")
        if stride is None:
            return
        if parameters.get("aggregation_strategy", "none") == "none":
            raise InvalidParameter("parameters.stride: needs an aggregation_strategy other than none")
        longest = self.encoder.max_length
        if longest is None or stride >= longest - 2:
            raise InvalidParameter(f"parameters.stride={stride}: must be under the model's {longest} tokens")

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        plain = iter(self.encoder.encode([ask.inputs for ask in asks if "stride" not in ask.parameters]))
        return [self.windowed(ask) if "stride" in ask.parameters else self.one(ask, next(plain)) for ask in asks]

    def windowed(self, ask: Ask) -> Prepared | ElementError:
        """An element of one row for each window of its text."""
        longest, stride = self.encoder.max_length, ask.parameters["stride"]
        room = (longest or 0) - self.tokenizer.num_special_tokens_to_add(pair=False)
        rows = self.encoder.windows(ask.inputs, longest, stride, max(1, room - stride))
        wrong = self.unreadable(rows)
        if wrong:
            return wrong
        lengths = [len(row.ids) for row in rows]
        return Prepared(ask, rows, Size(max(lengths), len(rows)), sum(lengths))

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        prepared = super().one(ask, row)
        return replace(prepared, rows=[row]) if isinstance(prepared, Prepared) else prepared

    def forward(self, batch: Sequence[Prepared]) -> torch.Tensor:
        return self.logits([row for prepared in batch for row in prepared.rows])

    def finish(self, outputs: torch.Tensor, batch: Sequence[Prepared]) -> list[Any]:
        logits = iter(outputs)
        return [self._entities(prepared, [next(logits) for _ in prepared.rows]) for prepared in batch]

    def _entities(self, prepared: Prepared, logits: Sequence[torch.Tensor]) -> Any:
        windows = []
        for row, scores in zip(prepared.rows, logits, strict=True):
            encoding, own = row.encoding, scores[: len(row.ids)]
            if not own.isfinite().all():
                return non_finite()
            windows.append(
                {
                    "logits": own[None],
                    "input_ids": torch.tensor([row.ids]),
                    "offset_mapping": torch.tensor([encoding.offsets]),
                    "special_tokens_mask": torch.tensor([encoding.special_tokens_mask]),
                    "sentence": prepared.ask.inputs,
                }
            )
        given = {name: v for name, v in prepared.ask.parameters.items() if name != "stride"}
        entities = self.grouping.postprocess(windows, **self.grouping._sanitize_parameters(**given)[2])
        return [{**entity, "score": float(entity["score"])} for entity in entities]


class FillMask(TextTask):
    """``inputs``: a text with a mask token. ``prediction``: ``[{"score", "token", "token_str", "sequence"}]``.

    Best first, five unless ``top_k`` says otherwise; a list of such lists for several mask tokens.
    """

    entry = TASKS["fill-mask"]
    auto = (("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),)
    by_token = True

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        if self.tokenizer.mask_token_id is None:
            raise ModelLoadError("fill-mask needs a tokenizer with a mask token; this one has none")
        self.vocabulary = self.tokenizer.get_vocab()
        self.weight = max(1, self.config.get_text_config().vocab_size // LOGITS_A_TOKEN)

    def one(self, ask: Ask, row: Row) -> Prepared | ElementError:
        wrong = self.unreadable([row])
        if wrong:
            return wrong
        if self.tokenizer.mask_token_id not in row.ids:
            where = "in what is left of it after cutting" if row.truncated else "in it"
            return InvalidInput(f"inputs has no mask token {where}; write {self.tokenizer.mask_token} where to fill")
        if row.truncated and self.loading.refuse_too_long:
            return self.too_long()
        masks, most = row.ids.count(self.tokenizer.mask_token_id), ask.parameters.get("top_k", 5)
        if masks * most > MAX_FILLS:
            return InvalidParameter(
                f"parameters.top_k={most}: with {masks} mask tokens that is over {MAX_FILLS:,} texts; ask for fewer"
            )
        targets = ask.parameters.get("targets")
        candidates = None if targets is None else self._target_ids(targets)
        length = len(row.ids)
        return Prepared(ask, (row, candidates), Size(length * self.weight), length, row.truncated)

    def forward(self, batch: Sequence[Prepared]) -> list[np.ndarray]:
        rows = [prepared.rows[0] for prepared in batch]
        logits = self.run(rows)[0]
        places = [[i for i, token in enumerate(row.ids) if token == self.tokenizer.mask_token_id] for row in rows]
        counts = [len(own) for own in places]
        where = np.repeat(np.arange(len(rows)), counts), np.concatenate(places)
        return np.split(to_numpy(logits[where]), np.cumsum(counts)[:-1])

    def finish(self, outputs: list[np.ndarray], batch: Sequence[Prepared]) -> list[Any]:
        return [
            self._fill(prepared, softmax(logits)) if np.isfinite(logits).all() else non_finite()
            for prepared, logits in zip(batch, outputs, strict=True)
        ]

    def _fill(self, prepared: Prepared, scores: np.ndarray) -> Any:
        """``scores``: ``[masks, vocabulary]``."""
        row, candidates = prepared.rows
        if candidates is None:
            candidates = np.arange(scores.shape[1])
        ids = np.array(row.ids)
        places = np.flatnonzero(ids == self.tokenizer.mask_token_id)
        answers = []
        for place, chances in zip(places, scores[:, candidates], strict=True):
            fills = []
            for i in np.argsort(-chances, kind="stable")[: prepared.ask.parameters.get("top_k", 5)]:
                token = int(candidates[i])
                filled = ids.copy()
                filled[place] = token
                # With several masks the others must stay to be seen, and they are special tokens.
                sequence = self.tokenizer.decode(filled, skip_special_tokens=len(places) == 1)
                word = self.tokenizer.decode([token])
                fills.append({"score": float(chances[i]), "token": token, "token_str": word, "sequence": sequence})
            answers.append(fills)
        return answers[0] if len(answers) == 1 else answers

    def _target_ids(self, targets: str | list[str]) -> np.ndarray:
        """Vocabulary ids of ``targets``; a word that is not one token stands for its first.

        Raises:
          InvalidParameter: none of them has one.
        """
        words = [targets] if isinstance(targets, str) else targets
        pieces = self.encoder.encode(words, special=False)
        ids = [self.vocabulary.get(word, next(iter(row.ids), None)) for word, row in zip(words, pieces, strict=True)]
        found = list(dict.fromkeys(i for i in ids if i is not None))
        if not found:
            raise InvalidParameter(f"parameters.targets={brief(targets)}: none is in the model's vocabulary")
        return np.array(found)
