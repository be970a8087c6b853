"""Folders of tiny models that read one text and write another, or score one beside others; see ``tiny_models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import transformers as t
from tiny_models import WORDS, _bert, _folder, _save, word_tokenizer
from tokenizers import Tokenizer, decoders, models
from tokenizers.processors import TemplateProcessing

#: Languages of the models for several: names as the real ones have them.
MBART, NLLB, M2M100 = ("en_XX", "de_DE", "ro_RO"), ("eng_Latn", "deu_Latn", "fra_Latn"), ("en", "de", "ro")

_LETTERS = "abcdefghijklmnopqrstuvwxyz .,:;!?'<>0123456789"


def letters(first: str, **marks: Any) -> Any:
    """A tokenizer of letters, whose ``first`` says what stands around a text: ``$A </s>``."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate([*names, *_LETTERS])}, [], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    backend.post_processor = TemplateProcessing(single=first, special_tokens=[("<s>", 0), ("</s>", 2)])
    words = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return t.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **words, **marks)


def _bart(kind: Any, size: int, **words: Any) -> Any:
    """A configuration of BART's family."""
    sizes = {f"{part}_{n}": v for part in ("encoder", "decoder") for n, v in _PART.items()}
    return kind(
        vocab_size=size, d_model=32, max_position_embeddings=64, init_std=1.0, bos_token_id=0, pad_token_id=1,
        eos_token_id=2, **sizes, **words,
    )  # fmt: skip


_PART = {"layers": 2, "attention_heads": 2, "ffn_dim": 48}

#: As T5's own configuration has them.
SPECIAL = {
    "summarization": {
        "prefix": "summarize: ",
        "min_length": 5,
        "max_length": 12,
        "num_beams": 2,
        "length_penalty": 2.0,
    },
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 9},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": 9},
}


@_folder
def t5(folder: Path) -> None:
    """A T5 whose configuration has a prefix for each task."""
    tokenizer = letters("$A </s>")
    config = t.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=1,
        pad_token_id=1, eos_token_id=2, task_specific_params=SPECIAL, initializer_factor=8.0,
    )  # fmt: skip
    _save(folder, t.T5ForConditionalGeneration(config), tokenizer)


@_folder
def bart(folder: Path) -> None:
    """A BART that begins its answers as they end, and searches with two beams, as the real summarisers do."""
    tokenizer = letters("<s> $A </s>")
    model = t.BartForConditionalGeneration(
        _bart(t.BartConfig, len(tokenizer), decoder_start_token_id=2, forced_bos_token_id=0, forced_eos_token_id=2)
    )
    for name, value in {"num_beams": 2, "max_length": 20, "min_length": 3, "no_repeat_ngram_size": 3}.items():
        setattr(model.generation_config, name, value)
    _save(folder, model, tokenizer)


def _pieces(folder: Path, name: str) -> list[str]:
    """Trains a SentencePiece model into ``folder``; returns its pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS), *WORDS, *_LETTERS]), model_prefix=str(folder / "own"),
        vocab_size=90, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "own.vocab").unlink()
    (folder / "own.model").rename(folder / name)
    found: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    return [found.id_to_piece(i) for i in range(found.get_piece_size())]


def _marian(folder: Path, *codes: str) -> None:
    pieces = [one for one in _pieces(folder, "source.spm") if not one.startswith("<")]
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    names = ["</s>", "<unk>", *codes, *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    tokenizer = t.MarianTokenizer(
        *(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")), model_max_length=64
    )
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": len(names) - 1}
    config = t.MarianConfig(
        vocab_size=len(names), d_model=32, max_position_embeddings=64, init_std=1.0,
        decoder_start_token_id=ids["pad_token_id"], forced_eos_token_id=0, **ids,
        **{f"{part}_{n}": v for part in ("encoder", "decoder") for n, v in _PART.items()},
    )  # fmt: skip
    model = t.MarianMTModel(config)
    model.generation_config.bad_words_ids = [[ids["pad_token_id"]]]  # as the real ones have it
    _save(folder, model, tokenizer)


@_folder
def marian(folder: Path) -> None:
    """A Marian model of one pair of languages, with a tokenizer in Python."""
    _marian(folder)


@_folder
def marian_to_several(folder: Path) -> None:
    """A Marian model that is told the target by a mark before the text."""
    _marian(folder, ">>fra<<", ">>ron<<")


@_folder
def mbart(folder: Path) -> None:
    """An mBART, whose answers begin with the token of their language."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(piece, -3.0) for piece in (*_LETTERS[:26], *(f"▁{word}" for word in WORDS))]
    tokenizer = t.MBartTokenizer(vocab=[*pieces, *((code, 0.0) for code in MBART)], model_max_length=64)
    config = _bart(t.MBartConfig, len(tokenizer), decoder_start_token_id=2)
    _save(folder, t.MBartForConditionalGeneration(config), tokenizer)


@_folder
def nllb(folder: Path) -> None:
    """An NLLB: M2M100's model under a tokenizer of its own."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "▁", *_LETTERS[:26], *(f"▁{c}" for c in _LETTERS[:26])]
    tokenizer = t.NllbTokenizer(
        vocab={name: i for i, name in enumerate(names)}, merges=[], extra_special_tokens=list(NLLB), model_max_length=64
    )
    config = _bart(t.M2M100Config, len(tokenizer), decoder_start_token_id=2)
    _save(folder, t.M2M100ForConditionalGeneration(config), tokenizer)


@_folder
def m2m100(folder: Path) -> None:
    """An M2M100, with a tokenizer in Python."""
    pieces = _pieces(folder, "sentencepiece.bpe.model")
    names = ["<s>", "<pad>", "</s>", "<unk>", *(one for one in pieces if not one.startswith("<"))]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    tokenizer = t.M2M100Tokenizer(
        *(str(folder / name) for name in ("vocab.json", "sentencepiece.bpe.model")), model_max_length=64
    )
    size = max(tokenizer.lang_code_to_id.values()) + 1
    config = _bart(t.M2M100Config, size, decoder_start_token_id=2)
    _save(folder, t.M2M100ForConditionalGeneration(config), tokenizer)


@_folder
def ranker(folder: Path) -> None:
    """A cross-encoder: one score a pair."""
    tokenizer = word_tokenizer()
    _save(folder, t.BertForSequenceClassification(_bert(tokenizer, num_labels=1)), tokenizer)
