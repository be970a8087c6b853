"""Summaries, translations and other texts for texts, against the model's own ``generate``; in any order and batch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny_models as tiny
import tiny_writers as writers
import torch
import transformers as t
from handler_answers import answers

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Failure, Prediction, Request

TEXTS = ["the order was late", "my invoice is wrong, please help", "paris", "where is john? " * 3, "thank you 😀"]
SHORT = {"max_new_tokens": 7}
ROMANIAN = {"src_lang": "en_XX", "tgt_lang": "ro_RO", **SHORT}


def generated(folder: str, text: str, key: str, source: str | None = None, **words: Any) -> list[dict[str, str]]:
    """What transformers' own tokenizer and ``generate`` make of a text."""
    tokenizer: Any = t.AutoTokenizer.from_pretrained(folder)
    if source:
        tokenizer.src_lang = source
    model: Any = t.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        rows = model.generate(**tokenizer(text, return_tensors="pt"), **words)
    # Not the token that every answer starts with, nor that of its language.
    begins = 2 if "forced_bos_token_id" in words else 1
    return [{key: tokenizer.decode(row[begins:], skip_special_tokens=True)} for row in rows]


def _ids(make: Callable[[], str], code: str) -> int:
    tokenizer: Any = t.AutoTokenizer.from_pretrained(make())
    return int(tokenizer.get_lang_id(code) if make is writers.m2m100 else tokenizer.convert_tokens_to_ids(code))


def _plain(make: Callable[[], str], task: str, key: str) -> list[tuple[Request, list[Any]]]:
    given = [{}, SHORT, {**SHORT, "num_beams": 3, "num_return_sequences": 2}, {"max_length": 6, "min_length": 4}]
    given += [{**SHORT, "num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2}]
    pairs = []
    for i, text in enumerate(TEXTS * 2):
        asked: dict[str, Any] = given[i % len(given)] if make is not writers.t5 else given[1 + i % 4]
        words = dict(asked)
        if not words and make is not writers.bart:
            words = {"max_new_tokens": 63}  # as many as there are positions for
        pairs.append((Request(text, asked), generated(make(), text, key, **words)))
    return pairs


def _t5_summaries() -> list[tuple[Request, list[Any]]]:
    words = {name: value for name, value in writers.SPECIAL["summarization"].items() if name != "prefix"}
    pairs = []
    for text in TEXTS:
        expected = generated(writers.t5(), f"summarize: {text}", "summary_text", **words)
        pairs += [(Request(text), expected), (Request(f"summarize: {text}"), expected)]
        own = generated(writers.t5(), f"summarize: {text}", "summary_text", **{**words, "num_beams": 1})
        pairs.append((Request(text, {"num_beams": 1}), own))
    return pairs


def _t5_translations() -> list[tuple[Request, list[Any]]]:
    pairs = []
    for text, (code, name) in zip(TEXTS, [("de", "German"), ("fr", "French")] * 3, strict=False):
        prompt = f"translate English to {name}: {text}"
        expected = generated(writers.t5(), prompt, "translation_text", max_length=9)
        pairs.append((Request(text, {"src_lang": "en", "tgt_lang": code}), expected))
    return pairs


def _between(make: Callable[[], str], codes: Sequence[str]) -> list[tuple[Request, list[Any]]]:
    """Every text from each language to the next."""
    pairs = []
    for text in TEXTS:
        for source, target in zip(codes, [*codes[1:], codes[0]], strict=True):
            words = {**SHORT, "forced_bos_token_id": _ids(make, target)}
            expected = generated(make(), text, "translation_text", source, **words)
            pairs.append((Request(text, {**SHORT, "src_lang": source, "tgt_lang": target}), expected))
    return pairs


def _marked() -> list[tuple[Request, list[Any]]]:
    folder, pairs = writers.marian_to_several(), []
    for text, code in zip(TEXTS, ["fra", "ron"] * 3, strict=False):
        expected = generated(folder, f">>{code}<< {text}", "translation_text", **SHORT)
        pairs += [(Request(text, {**SHORT, "tgt_lang": code}), expected)]
        pairs += [(Request(f">>{code}<< {text}", SHORT), expected)]
    return pairs


CASES: dict[str, tuple[Callable[[], str], str, Callable[[], list[tuple[Request, list[Any]]]]]] = {
    "T5": (writers.t5, "text2text-generation", lambda: _plain(writers.t5, "text2text-generation", "generated_text")),
    "T5 summaries": (writers.t5, "summarization", _t5_summaries),
    "T5 translations": (writers.t5, "translation", _t5_translations),
    "BART": (writers.bart, "summarization", lambda: _plain(writers.bart, "summarization", "summary_text")),
    "Marian": (writers.marian, "translation", lambda: _plain(writers.marian, "translation", "translation_text")),
    "Marian to several": (writers.marian_to_several, "translation", _marked),
    "mBART": (writers.mbart, "translation", lambda: _between(writers.mbart, writers.MBART)),
    "NLLB": (writers.nllb, "translation", lambda: _between(writers.nllb, writers.NLLB)),
    "M2M100": (writers.m2m100, "translation", lambda: _between(writers.m2m100, writers.M2M100)),
}


@pytest.mark.parametrize("name", CASES)
def test_texts_are_those_of_generate_in_any_order_and_batch(name: str) -> None:
    """Every family writes what transformers' generate does, whatever stands beside a message, languages included."""
    make, task, pair = CASES[name]
    pairs = pair()
    assert len({str(expected) for _, expected in pairs}) > 2, "a mix-up of rows must show"
    # A fresh one, whose budget may be changed.
    model = HuggingFaceModelHandler(make(), task, dtype="float32", device="cpu")._load()
    for seed, budget in ((0, 4096), (1, 100), (2, 1)):
        order = list(range(len(pairs)))
        random.Random(seed).shuffle(order)
        model.budget.tokens = budget
        for i, mine in zip(order, model.answer([pairs[i][0] for i in order]).outcomes, strict=True):
            assert isinstance(mine, Prediction), mine
            assert mine.prediction == pairs[i][1], pairs[i][0]


@pytest.mark.parametrize(
    "make", [writers.t5, writers.bart, writers.marian, writers.mbart, writers.nllb, writers.m2m100]
)
def test_an_architecture_that_rewrites_is_known_for_it(make: Callable[[], str]) -> None:
    """Without a task such a model writes text for text; BART and mBART, listed for fill-mask too, are no exception."""
    assert HuggingFaceModelHandler(make()).check() == "text2text-generation"


@pytest.mark.parametrize(
    ("make", "parameters", "what"),
    [
        (writers.mbart, {}, r"parameters\.src_lang: needed by this model; .*ar_AR"),
        (writers.mbart, {"src_lang": "en_XX"}, r"parameters\.tgt_lang: needed"),
        (writers.mbart, {**ROMANIAN, "tgt_lang": "ro"}, r"parameters\.tgt_lang='ro'.*25 in all"),
        (writers.nllb, {"src_lang": "<unk>", "tgt_lang": "fra_Latn"}, r"parameters\.src_lang='<unk>'.*eng_Latn"),
        (writers.m2m100, {"src_lang": "en", "tgt_lang": "__de__"}, r"parameters\.tgt_lang='__de__'"),
        (writers.t5, {}, r"pairs that this model has: en to de, en to fr"),
        (writers.t5, {"tgt_lang": "ro"}, r"any to 'ro'"),
        (writers.marian, {"tgt_lang": "de"}, r"takes no languages"),
        (writers.marian_to_several, {}, r"parameters\.tgt_lang: needed by this model; .* fra, ron"),
        (writers.marian_to_several, {"tgt_lang": "de"}, r"parameters\.tgt_lang='de'"),
        (writers.marian_to_several, {"src_lang": "en", "tgt_lang": "fra"}, r"takes tgt_lang only"),
        (writers.marian, {"max_new_tokens": 64}, r"writes 63 tokens"),
        (writers.marian, {"min_length": 9, "max_length": 8}, r"is over max_length=8"),
        (writers.marian, {"num_return_sequences": 2}, r"needs do_sample=true, or num_beams"),
    ],
)
def test_what_a_model_cannot_be_asked(make: Callable[[], str], parameters: dict[str, Any], what: str) -> None:
    """A language that is missing or unknown, and a wish that cannot be met, are that message's failure alone."""
    good = {writers.mbart: ROMANIAN, writers.marian_to_several: {"tgt_lang": "fra"}, writers.marian: {}}.get(make)
    requests = [Request("my order", parameters)] + (
        [Request("my order", {**good, **SHORT})] if good is not None else []
    )
    wrong, *right = answers(make(), "translation", requests)
    assert isinstance(wrong, Failure) and wrong.error_type == "InvalidParameter", wrong
    assert re.search(what, wrong.error), wrong.error
    assert all(isinstance(one, list) for one in right)


def test_a_model_of_one_pair_needs_no_languages(tmp_path: Any) -> None:
    """An mBART whose decoder starts with a language was trained for it, and needs no word on it."""
    code = _ids(writers.mbart, "ro_RO")
    model: Any = t.MBartForConditionalGeneration.from_pretrained(writers.mbart())
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = code
    model.save_pretrained(tmp_path)
    tokenizer: Any = t.AutoTokenizer.from_pretrained(writers.mbart())
    tokenizer.save_pretrained(tmp_path)
    for parameters in (SHORT, ROMANIAN):
        expected = generated(str(tmp_path), "my order", "translation_text", "en_XX", **SHORT)
        assert answers(str(tmp_path), "translation", [Request("my order", parameters)]) == [expected]
    other = generated(
        str(tmp_path), "my order", "translation_text", decoder_start_token_id=_ids(writers.mbart, "de_DE"), **SHORT
    )
    assert answers(str(tmp_path), "translation", [Request("my order", {**ROMANIAN, "tgt_lang": "de_DE"})]) == [other]


@pytest.mark.parametrize(
    ("make", "task", "more"),
    [
        (writers.bart, "summarization", {}),
        (writers.bart, "summarization", {"num_beams": 1}),
        (writers.nllb, "translation", {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}),
        (writers.mbart, "translation", {"src_lang": "en_XX", "tgt_lang": "de_DE"}),
        (writers.t5, "text2text-generation", {}),
        (writers.marian, "translation", {}),
    ],
)
def test_what_the_time_limit_stops_is_no_answer(make: Callable[[], str], task: str, more: dict[str, Any]) -> None:
    """The token that starts an answer, often the one that ends it, and forced ones, do not say that it was finished."""
    slow, quick = answers(
        make(),
        task,
        [
            Request("the order was late", {"max_new_tokens": 40, "min_length": 30, **more}),
            Request("the order was late", {"max_new_tokens": 1, "min_length": 0, **more}),
        ],
        time_limit_s=1e-9,
    )
    assert isinstance(slow, Failure) and slow.error_type == "TimeLimit" and "1 of 40 tokens" in slow.error, slow
    assert isinstance(quick, list), quick


def test_a_long_text_is_cut_and_marked_or_refused() -> None:
    """Over the encoder's 64 tokens a text is cut, marked, and with dead_letter refused."""
    handler = HuggingFaceModelHandler(writers.marian(), "translation", dtype="float32")
    long = Request("the order was late " * 40, SHORT)
    kept = handler.run_inference([long], handler.load_model())[0]
    assert isinstance(kept, Prediction) and kept.truncated and kept.tokens == 64
    refused = answers(writers.marian(), "translation", [long], on_too_long="dead_letter")[0]
    assert isinstance(refused, Failure) and refused.error_type == "TooLong"


def test_a_model_without_an_encoder_is_refused() -> None:
    """A model that goes on with a text is for text-generation, and told so in one line."""
    with pytest.raises(ModelLoadError, match="was not made for that; it can do: text-generation"):
        HuggingFaceModelHandler(tiny.causal(), "summarization").check()


def test_a_seeded_sample_repeats_in_any_company() -> None:
    """The same seed gives the same text, whatever else is in the batch."""
    given = {**SHORT, "do_sample": True, "num_beams": 1, "seed": 3}
    alone = answers(writers.bart(), "summarization", [Request("my order", given)])
    crowd = answers(
        writers.bart(), "summarization", [*(Request(text, SHORT) for text in TEXTS), Request("my order", given)]
    )
    assert crowd[-1:] == alone
    assert answers(writers.bart(), "summarization", [Request("my order", {**given, "seed": 4})]) != alone
