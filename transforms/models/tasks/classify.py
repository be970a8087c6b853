"""text-classification and zero-shot-classification: one label set from the model, or one from the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidParameter, ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.parameters import fill
from transforms.models.task_parameters import candidate_labels
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import (
    Loading,
    Prepared,
    Scores,
    finite_rows,
    label_function,
    non_finite,
    softmax,
    top,
)
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizing import Text

_SEQUENCE = (("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),)


class TextClassification(TextTask):
    """``inputs``: a text, or ``{"text", "text_pair"}``. ``prediction``: ``[{"label", "score"}]``, best first."""

    entry = TASKS["text-classification"]
    auto = _SEQUENCE

    def check(self, inputs: Any) -> Text:
        checked = super().check(inputs)
        return checked if isinstance(checked, str) else (checked["text"], checked["text_pair"])

    def finish(self, outputs: torch.Tensor, batch: Sequence[Prepared]) -> list[Any]:
        scores = Scores(outputs.numpy())
        finite = finite_rows(scores.logits)
        usual, labels = label_function(self.config), self.config.id2label
        answers: list[Any] = []
        for i, prepared in enumerate(batch):
            if finite is not None and not finite[i]:
                answers.append(non_finite())
                continue
            given = prepared.ask.parameters
            answers.append(top(scores.by(given.get("function_to_apply", usual))[i], given.get("top_k", 1), labels))
        return answers


class ZeroShotClassification(TextTask):
    """``inputs``: a text. ``prediction``: ``{"sequence", "labels", "scores"}``, best first.

    Each label makes one row: the text beside ``hypothesis_template`` filled with it. The model must be one for natural
    language inference.
    """

    entry = TASKS["zero-shot-classification"]
    auto = _SEQUENCE
    strategy = "only_first"

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        ids = [i for label, i in self.config.label2id.items() if label.lower().startswith("entail")]
        if not ids:
            raise ModelLoadError(
                f"zero-shot-classification needs a model with a label 'entailment'; this one has"
                f" {', '.join(map(str, self.config.label2id))}. Use one trained for natural language inference"
            )
        self.entailment = ids[0]
        self.contradiction = -1 if self.entailment == 0 else 0

    def example(self, text: str) -> Text:
        return text, "This example is good."

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        if not candidate_labels(parameters):
            raise InvalidParameter(
                "parameters.candidate_labels: holds no label; give a list of the labels to choose from"
            )

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        pairs, counts = [], []
        for ask in asks:
            form = ask.parameters.get("hypothesis_template", "This example is {}.")
            labels = candidate_labels(ask.parameters)
            pairs += [(ask.inputs, fill(form, label)) for label in labels]
            counts.append(len(labels))
        rows = iter(self.encoder.encode(pairs))
        prepared: list[Prepared | ElementError] = []
        for ask, count in zip(asks, counts, strict=True):
            own = [next(rows) for _ in range(count)]
            cut = any(row.truncated for row in own)
            wrong = self.unreadable(own)
            if wrong:
                prepared.append(wrong)
                continue
            if cut and self.loading.refuse_too_long:
                prepared.append(self.too_long())
                continue
            size = Size(max(len(row.ids) for row in own), count)
            prepared.append(Prepared(ask, own, size, sum(len(row.ids) for row in own), cut))
        return prepared

    def forward(self, batch: Sequence[Prepared]) -> torch.Tensor:
        return self.logits([row for prepared in batch for row in prepared.rows])

    def finish(self, outputs: torch.Tensor, batch: Sequence[Prepared]) -> list[Any]:
        answers: list[Any] = []
        ends = np.cumsum([len(prepared.rows) for prepared in batch])
        for prepared, logits in zip(batch, np.split(outputs.numpy(), ends[:-1]), strict=True):
            if not np.isfinite(logits).all():
                answers.append(non_finite())
                continue
            labels = candidate_labels(prepared.ask.parameters)
            if prepared.ask.parameters.get("multi_label") or len(labels) == 1:
                scores = softmax(logits[:, [self.contradiction, self.entailment]])[:, 1]
            else:
                scores = softmax(logits[:, self.entailment])
            order = np.argsort(-scores, kind="stable")
            answers.append(
                {
                    "sequence": prepared.ask.inputs,
                    "labels": [labels[i] for i in order],
                    "scores": [float(scores[i]) for i in order],
                }
            )
        return answers
