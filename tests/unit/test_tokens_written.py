"""Tokens that a model wrote: as many as its own ``generate`` adds, in prediction, row and the window's tally."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tiny
import tiny_writers as writers
import torch
import transformers as t

from transforms.audit_row import AuditContext, row
from transforms.encode import encode
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Limits, Message, Prediction, Request
from transforms.tally import Tally
from transforms.windowing import Windowing

TEXTS = ["hello", "a longer prompt than the others, so that they are padded", "x", "where is it?", "2 + 2 ="]
ASKED = {"max_new_tokens": 9, "do_sample": False, "num_beams": 2}


def added(folder: str, kind: Any, text: str, **words: Any) -> int:
    """Tokens that transformers' own ``generate`` writes, up to each sequence's end."""
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    model: Any = kind.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(text, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        found = model.generate(**inputs, **words).tolist()
    begins = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    total = 0
    for sequence in found:
        for token in sequence[begins:]:
            total += 1
            if token == tokenizer.eos_token_id:
                break
    return total


@pytest.mark.parametrize(
    ("task", "make", "kind"),
    [
        ("text-generation", tiny.causal, t.AutoModelForCausalLM),
        ("text2text-generation", writers.t5, t.AutoModelForSeq2SeqLM),
    ],
)
@pytest.mark.parametrize("sequences", [1, 2])
def test_as_many_as_generate_adds(task: str, make: Callable[[], str], kind: Any, sequences: int) -> None:
    """Answers that end early and late in one batch, of one sequence or two: each has its own count, padding aside."""
    handler = HuggingFaceModelHandler(make(), task, device="cpu", dtype="float32")
    asked = {**ASKED, "num_return_sequences": sequences}
    requests = [Request(text, asked, Message(text.encode(), {}, text, 1.0, 1.0)) for text in TEXTS]
    outcomes = handler.run_inference(requests, handler.load_model())
    expected = [added(make(), kind, text, **asked) for text in TEXTS]
    assert [one.tokens_generated for one in outcomes if isinstance(one, Prediction)] == expected
    results = [encode(one, Limits(10_000_000, 100, 1024)) for one in outcomes if isinstance(one, Prediction)]
    context = AuditContext(Windowing("global"), "job", "0")
    assert [row(each, context, 2.0).tokens_generated for each in results] == expected
    tally = Tally()
    tally.add(results, 2.0)
    assert tally.totals["tokens_generated"] == sum(expected)


def test_who_writes_none_has_none() -> None:
    """A classifier's count is null, not 0, and adds nothing to its window's."""
    handler = HuggingFaceModelHandler(tiny.sentiment(), "text-classification", device="cpu", dtype="float32")
    (outcome,) = handler.run_inference([Request("good", {}, Message(b"x"))], handler.load_model())
    assert isinstance(outcome, Prediction) and outcome.tokens_generated is None and outcome.tokens
