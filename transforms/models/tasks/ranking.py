"""text-ranking: a cross-encoder reads the query beside each text, and says how well it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, ModelLoadError, foreign
from transforms.models.inputs import Ask
from transforms.models.pair_shapes import ranked
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, non_finite, sigmoid
from transforms.models.tasks.pooling import transformer_words
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizer import max_tokens, read_small
from transforms.models.tasks.tokenizing import Text

#: What a folder may say that becomes of a logit: sentence-transformers writes the name of torch's class.
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Sigmoid": sigmoid,
    "Identity": lambda logits: logits,
    "Tanh": np.tanh,
    "ReLU": lambda logits: np.maximum(logits, 0),
}


class TextRanking(TextTask):
    """``inputs``: ``{"query", "texts"}``. ``prediction``: ``[{"index", "score"}]``, best first.

    The score is what sentence-transformers' ``CrossEncoder.predict`` gives: the logistic function of the logit where
    the folder says nothing else.
    """

    entry = TASKS["text-ranking"]
    auto = (("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),)

    def __init__(self, loading: Loading) -> None:
        if loading.config.num_labels != 1:
            raise ModelLoadError(
                f"text-ranking needs a model with one score a pair; this one has {loading.config.num_labels} labels;"
                " use a cross-encoder that was trained for ranking, or text-classification"
            )
        self.activation = _activation(loading.folder, loading.config)
        self.words = transformer_words(loading.folder, "sequence-classification")
        super().__init__(loading)
        if self.words.get("do_lower_case"):
            read_small(self.tokenizer)

    def max_length(self) -> int | None:
        return max_tokens(self.tokenizer, self.model, self.words.get("max_seq_length"))

    def example(self, text: str) -> Text:
        return text, "This is an example."

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        pairs = [(ask.inputs["query"], text) for ask in asks for text in ask.inputs["texts"]]
        rows = iter(self.encoder.encode(pairs))
        prepared: list[Prepared | ElementError] = []
        for ask in asks:
            own = [next(rows) for _ in ask.inputs["texts"]]
            cut = any(row.truncated for row in own)
            wrong = self.unreadable(own, "a pair of inputs") or self.cut_unasked(ask, own, "inputs has a pair")
            if wrong:
                prepared.append(wrong)
            else:
                lengths = [len(row.ids) for row in own]
                prepared.append(Prepared(ask, own, Size(max(lengths), len(own)), sum(lengths), cut))
        return prepared

    def forward(self, batch: Sequence[Prepared]) -> torch.Tensor:
        return self.logits([row for prepared in batch for row in prepared.rows])

    def finish(self, outputs: torch.Tensor, batch: Sequence[Prepared]) -> list[Any]:
        answers: list[Any] = []
        ends = np.cumsum([len(prepared.rows) for prepared in batch])
        for prepared, logits in zip(batch, np.split(outputs.numpy()[:, 0], ends[:-1]), strict=True):
            if not np.isfinite(logits).all():
                answers.append(non_finite())
                continue
            raw = prepared.ask.parameters.get("raw_scores")
            scores = logits if raw else (self.activation if raw is None else sigmoid)(logits)
            answers.append(ranked([float(score) for score in scores], prepared.ask))
        return answers


def _activation(folder: Path, config: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What becomes of a logit, as the folder says it; there are three places, by the version that wrote it.

    Raises:
      ModelLoadError: it is none that is known here, or the folder wants a prompt.
    """
    path = folder / "config_sentence_transformers.json"
    said = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not isinstance(said, dict):
        raise ModelLoadError("config_sentence_transformers.json holds no settings; fetch the model again")
    if said.get("default_prompt_name"):
        raise ModelLoadError("config_sentence_transformers.json names a prompt; a cross-encoder's are not supported")
    newer = getattr(config, "sentence_transformers", None) or {}
    older = getattr(config, "sbert_ce_default_activation_function", None)
    name = said.get("activation_fn") or newer.get("activation_fn") or older or "torch.nn.modules.activation.Sigmoid"
    known = _ACTIVATIONS.get(str(name).rpartition(".")[2]) if str(name).startswith("torch.") else None
    if known is None:
        raise ModelLoadError(
            f"its scores go through {foreign(str(name))[:80]}, which is not known here; known are torch's"
            f" {', '.join(_ACTIVATIONS)}"
        )
    return known
