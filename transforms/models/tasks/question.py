"""question-answering: the span of a context that answers a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from transforms.models.batching import Size
from transforms.models.errors import ElementError, InvalidInput, InvalidParameter, ModelLoadError, brief
from transforms.models.inputs import Ask
from transforms.models.task_table import TASKS
from transforms.models.tasks.base import Loading, Prepared, non_finite, softmax, to_numpy
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokenizing import Row

#: Defaults of the task on the hub: tokens of a window (question and context), and how much two windows share.
MAX_WINDOW, STRIDE = 384, 128

_CONTEXT = 1  # the sequence id of the second text of a pair


class QuestionAnswering(TextTask):
    """``inputs``: ``{"question", "context"}``. ``prediction``: ``{"score", "start", "end", "answer"}``.

    With ``top_k`` over 1, a list of them, best first. A long context is read in overlapping windows, never cut.
    ``start`` and ``end`` count characters of the context.
    """

    entry = TASKS["question-answering"]
    auto = (("AutoModelForQuestionAnswering", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"),)
    strategy = "only_second"
    outputs = ("start_logits", "end_logits")
    by_token = True

    def __init__(self, loading: Loading) -> None:
        super().__init__(loading)
        self.encoder.keeps = True
        if self.encoder.backend is None:
            raise ModelLoadError("question-answering needs a fast tokenizer (tokenizer.json); this model has none")

    def check(self, inputs: Any) -> tuple[str, str]:
        checked = super().check(inputs)
        return checked["question"], checked["context"]

    def window(self, parameters: Mapping[str, Any]) -> int:
        """Tokens of one window."""
        asked: int = parameters.get("max_seq_len", MAX_WINDOW)
        return min(asked, self.encoder.max_length) if self.encoder.max_length else asked

    def example(self, text: str) -> tuple[str, str]:
        return "what", text

    def prepare(self, asks: Sequence[Ask]) -> list[Prepared | ElementError]:
        questions = self.encoder.encode([ask.inputs[0] for ask in asks], special=False)
        return [self._one(ask, question) for ask, question in zip(asks, questions, strict=True)]

    def _one(self, ask: Ask, question: Row) -> Prepared | ElementError:
        words, context = ask.inputs
        most = ask.parameters.get("max_question_len", 64)
        cut = len(question.ids) > most
        if cut:
            if self.loading.refuse_too_long:
                return self.too_long()
            words = words[: question.encoding.offsets[most - 1][1]]
        window = self.window(ask.parameters)
        room = window - min(len(question.ids), most) - self.tokenizer.num_special_tokens_to_add(pair=True)
        stride = ask.parameters.get("doc_stride", min(STRIDE, max(0, room // 2)))
        if room <= stride:
            return InvalidParameter(
                f"parameters: a window of {window} tokens leaves {room} for the context, which must be more than"
                f" doc_stride={stride}; raise max_seq_len or lower doc_stride"
            )
        rows = self.encoder.windows((words, context), window, stride, room - stride)
        if _CONTEXT not in rows[0].encoding.sequence_ids:
            return InvalidInput(f"inputs.context={brief(context)}: has no token for this model")
        wrong = self.unreadable(rows)
        if wrong:
            return wrong
        lengths = [len(row.ids) for row in rows]
        return Prepared(ask, rows, Size(max(lengths), len(rows)), sum(lengths), cut)

    def forward(self, batch: Sequence[Prepared]) -> np.ndarray:
        rows = [row for prepared in batch for row in prepared.rows]
        return to_numpy(torch.stack(self.run(rows), dim=1))

    def finish(self, outputs: np.ndarray, batch: Sequence[Prepared]) -> list[Any]:
        logits = iter(outputs)
        return [self._answer(prepared, [next(logits) for _ in prepared.rows]) for prepared in batch]

    def _answer(self, prepared: Prepared, windows: Sequence[np.ndarray]) -> Any:
        given, context = prepared.ask.parameters, prepared.ask.inputs[1]
        count = given.get("top_k", 1)
        found: dict[tuple[int, int], float] = {}
        nothing = 1.0  # the least probability, over the windows, that the context holds no answer
        for row, (start, end) in zip(prepared.rows, windows, strict=True):
            size = len(row.ids)
            if not (np.isfinite(start[:size]).all() and np.isfinite(end[:size]).all()):
                return non_finite()
            spans, empty = _spans(start[:size], end[:size], row, count, given.get("max_answer_len", 15))
            nothing = min(nothing, empty)
            for first, last, score in spans:
                where = _characters(row.encoding, first, last, context, given.get("align_to_words", True))
                found[where] = max(score, found.get(where, 0.0))
        answers = [{"score": s, "start": a, "end": b, "answer": context[a:b]} for (a, b), s in found.items()]
        if given.get("handle_impossible_answer"):
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        answers.sort(key=lambda answer: -answer["score"])
        return answers[0] if count == 1 else answers[:count]


def _spans(
    start: np.ndarray, end: np.ndarray, row: Row, count: int, longest: int
) -> tuple[list[tuple[int, int, float]], float]:
    """The ``count`` likeliest token spans inside the context, and the probability that there is none.

    A span's score is the product of its start's and its end's probability (Devlin et al. 2018, section 4.2).
    """
    inside = np.array([sequence == _CONTEXT for sequence in row.encoding.sequence_ids])
    allowed = inside.copy()
    allowed[0] = True  # the first token stands for "no answer"
    starts, ends = (softmax(np.where(allowed, logits, -10_000.0)) for logits in (start, end))
    empty = float(starts[0] * ends[0])
    possible = np.tril(np.triu(np.outer(inside, inside)), longest - 1)
    # A span outside is worse than any inside, also where all of those round to nothing beside "no answer".
    scores = np.where(possible, np.outer(starts, ends), -1.0)
    best = np.argsort(-scores, axis=None, kind="stable")[:count]
    pairs = [(*divmod(int(i), len(start)), float(scores.flat[i])) for i in best]
    return [(first, last, score) for first, last, score in pairs if score >= 0], empty


def _characters(encoding: Any, first: int, last: int, context: str, align: bool) -> tuple[int, int]:
    """Where in the context the tokens ``first`` to ``last`` lie, widened to whole words with ``align``."""
    if align:
        words = encoding.token_to_word(first), encoding.token_to_word(last)
        if None not in words:
            start = encoding.word_to_chars(words[0], _CONTEXT)[0]
            return start, encoding.word_to_chars(words[1], _CONTEXT)[1]
    return encoding.offsets[first][0], encoding.offsets[last][1]
