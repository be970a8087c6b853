"""feature-extraction: sentence embeddings as the model's own files describe them, or token embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, InvalidParameter, TooLong, brief
from transforms.models.inputs import Ask
from transforms.models.task_parameters import dimensions
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, finite_rows, non_finite
from transforms.models.tasks.chunks import MAX_CHUNKS, Chunking, Chunks
from transforms.models.tasks.pooling import SentenceModel, read_sentence_model
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizer import max_tokens, read_small
from transforms.models.tasks.tokenizing import Row

#: Padded tokens of a document's pieces in one forward.
_MOST_TOKENS = 8192

#: Numbers in one prediction: each takes two characters at the least, and a message holds ten million.
MAX_NUMBERS = 5_000_000


class FeatureExtraction(TextTask):
    """``inputs``: a text, or a list of texts. ``prediction``: its embedding (float32), or a list of them.

    A folder that sentence-transformers wrote says how tokens are pooled and whether the result is normalised. Without
    it the embedding is the mean over the tokens, special ones included, not normalised. ``pooling="none"`` gives the
    token embeddings, ``[1, tokens, width]``, as ``transformers.pipeline`` does.
    """

    entry = TASKS["feature-extraction"]
    auto = (
        ("AutoModel", "MODEL_MAPPING_NAMES"),
        ("AutoModelForTextEncoding", "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES"),  # T5's encoder alone
    )
    outputs = ("last_hidden_state",)
    by_token = True

    def __init__(self, loading: Loading) -> None:
        self.sentences = read_sentence_model(loading.folder, loading.place.device)
        super().__init__(dataclasses.replace(loading, folder=self.sentences.transformer))
        if self.sentences.lowercase:
            read_small(self.tokenizer)
        self.chunks = Chunks(self.encoder)

    @classmethod
    def architectures(cls) -> set[str]:
        """Empty: any architecture has a body that embeds."""
        return set()

    def may_miss(self, key: str) -> bool:
        return "pooler" in key

    def max_length(self) -> int | None:
        return max_tokens(self.tokenizer, self.model, self.sentences.max_length)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        name = parameters.get("prompt_name")
        if name is not None and name not in self.sentences.prompts:
            known = ", ".join(self.sentences.prompts) or "none"
            raise InvalidParameter(f"parameters.prompt_name={brief(name)}: the model's prompts are: {known}")
        asked = dimensions(parameters)
        if asked is not None and "pooling" in parameters:
            raise InvalidParameter(f"parameters.dimensions={asked}: token embeddings are not cut short; leave it out")
        if "pooling" in parameters and "chunk" in parameters:
            raise InvalidParameter("parameters.chunk: the tokens of a text are one piece; leave it out, or pooling")

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        whole = iter(self._whole([ask for ask in asks if not self._chunking(ask)]))
        return [self._pieces(ask, chunking) if (chunking := self._chunking(ask)) else next(whole) for ask in asks]

    def _chunking(self, ask: Ask) -> Chunking | None:
        """How the texts of ``ask`` are cut into pieces, if they are."""
        if "pooling" in ask.parameters or "chunk" not in self.entry.parameters:
            return None
        usual = "tokens" if self.loading.spec.on_too_long == "chunk" else None
        asked = ask.parameters.get("chunk", usual)
        return None if asked is None else Chunking.of(asked)

    def _pieces(self, ask: Ask, chunking: Chunking) -> Prepared | ElementError:
        """An element of one row a piece."""
        name = ask.parameters.get("prompt_name", self.sentences.default_prompt)
        prompt = self.sentences.prompts.get(name, "") if name is not None else ""
        spans, rows = [], []
        try:
            for text in ask.inputs if isinstance(ask.inputs, list) else [ask.inputs]:
                own, pieces = self.chunks.cut(text, chunking, prompt)
                spans.append(own)
                rows += pieces
        except (InvalidParameter, TooLong) as error:
            return error
        if len(rows) > MAX_CHUNKS:
            return TooLong(f"inputs makes {len(rows)} chunks; at most {MAX_CHUNKS} are taken of a message")
        wrong = self.unreadable(rows, "a piece of inputs")
        if wrong:
            return wrong
        lengths = [len(row.ids) for row in rows]
        return Prepared(ask, rows, Size(max(lengths), len(lengths)), sum(lengths), spans=spans)

    def _whole(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        """Each element's texts, one row a text."""
        texts: list[str] = []
        for ask in asks:
            inputs = ask.inputs
            own = inputs if isinstance(inputs, list) else [inputs]
            name = ask.parameters.get("prompt_name", self.sentences.default_prompt)
            if name is not None:
                own = [self.sentences.prompts.get(name, "") + text for text in own]
            texts += own
        rows = iter(self.encoder.encode(texts))
        prepared: list[Prepared | ElementError] = []
        for ask in asks:
            own_rows = [next(rows) for _ in range(len(ask.inputs) if isinstance(ask.inputs, list) else 1)]
            cut = any(row.truncated for row in own_rows)
            what = "inputs" if len(own_rows) == 1 else "a text of inputs"
            wrong = self.unreadable(own_rows, what) or self.cut_unasked(ask, own_rows)
            if wrong:
                prepared.append(wrong)
                continue
            lengths = [len(row.ids) for row in own_rows]
            width = getattr(self.config.get_text_config(), "hidden_size", None) or 1
            if "pooling" in ask.parameters and sum(lengths) * width > MAX_NUMBERS:
                prepared.append(
                    InvalidInput(
                        f"inputs has {sum(lengths):,} tokens, and their embeddings {width} numbers each: over the"
                        f" {MAX_NUMBERS:,} that a message holds; send fewer texts, or leave out parameters.pooling"
                    )
                )
                continue
            prepared.append(Prepared(ask, own_rows, Size(max(lengths), len(lengths)), sum(lengths), cut))
        return prepared

    def forward(self, batch: Sequence[Prepared]) -> tuple[np.ndarray, torch.Tensor | None]:
        rows = [row for prepared in batch for row in prepared.rows]
        if len(batch) == 1 and batch[0].spans is not None:
            # A document's pieces are many rows, and one after the other as good.
            step = max(1, _MOST_TOKENS // batch[0].size.length)
            return np.concatenate([self._pooled(rows[i : i + step])[0] for i in range(0, len(rows), step)]), None
        pooled, tokens = self._pooled(rows)
        raw = tokens.float().cpu() if any("pooling" in prepared.ask.parameters for prepared in batch) else None
        return pooled, raw

    def _pooled(self, rows: Sequence[Row]) -> tuple[np.ndarray, torch.Tensor]:
        """The embeddings of ``rows``, and of their tokens."""
        tokens = self.run(rows)[0]
        lengths = torch.tensor([len(row.ids) for row in rows], device=self.device)
        mask = torch.arange(tokens.shape[1], device=self.device) < lengths.unsqueeze(1)
        return self.sentences.pool(tokens, mask).cpu().numpy(), tokens

    def finish(self, outputs: tuple[np.ndarray, torch.Tensor | None], batch: Sequence[Prepared]) -> list[Any]:
        pooled, raw = outputs
        finite = finite_rows(pooled)
        vectors = _Vectors(pooled, self.sentences)
        answers: list[Any] = []
        start = 0
        for prepared in batch:
            end = start + len(prepared.rows)
            given = prepared.ask.parameters
            if finite is not None and not finite[start:end].all():
                answers.append(non_finite())
            elif "pooling" in given and raw is not None:
                own = [raw[i, : len(row.ids)].numpy()[None] for i, row in enumerate(prepared.rows, start)]
                answers.append(own if isinstance(prepared.ask.inputs, list) else own[0])
            else:
                found = vectors.by(given)
                if isinstance(found, InvalidParameter):
                    answers.append(found)
                elif prepared.spans is not None:
                    answers.append(_in_pieces(found[start:end], prepared))
                else:
                    answers.append(found[start:end] if isinstance(prepared.ask.inputs, list) else found[start])
            start = end
        return answers


def _in_pieces(vectors: np.ndarray, prepared: Prepared) -> list[Any]:
    """The prediction of texts that were cut: for each ``[{"start", "end", "embedding"}]``."""
    own = iter(vectors)
    texts = [
        [{"start": start, "end": end, "embedding": next(own)} for start, end in spans] for spans in prepared.spans or ()
    ]
    return texts if isinstance(prepared.ask.inputs, list) else texts[0]


class _Vectors:
    """A micro-batch's embeddings, once for each way in which its messages ask for them."""

    def __init__(self, pooled: np.ndarray, model: SentenceModel) -> None:
        self.pooled = pooled
        self.model = model
        self.most = min(pooled.shape[1], model.truncate_dim or pooled.shape[1])
        self._done: dict[tuple[int | None, bool], np.ndarray] = {}

    def by(self, given: Mapping[str, Any]) -> np.ndarray | InvalidParameter:
        """Every row, cut short and normalised as ``given`` says; or that it has not so many numbers."""
        asked = dimensions(given)
        if asked is not None and asked > self.most:
            return InvalidParameter(f"parameters.dimensions={asked}: the model's embeddings have {self.most} numbers")
        key = asked, bool(given.get("normalize", self.model.normalize))
        if key not in self._done:
            self._done[key] = self._make(*key)
        return self._done[key]

    def _make(self, asked: int | None, normalize: bool) -> np.ndarray:
        if normalize and asked is None and self.model.normalize:
            # As sentence-transformers: its module normalises before an embedding is cut short, a caller after.
            return unit(self.pooled)[:, : self.most]
        short = self.pooled[:, : asked or self.most]
        return unit(short) if normalize else short


def unit(rows: np.ndarray) -> np.ndarray:
    """``rows`` of length one."""
    found: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
