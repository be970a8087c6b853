"""An ordinary folder with a tiny model of any architecture: random weights of visible scale, and a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from zoo import media
from zoo.shrink import shrink

#: Ids at the end of a vocabulary that no text has.
SPARE = 40

#: The longest text, as the tokenizer says: under the positions, for some models count them from the padding id upwards.
MOST_TOKENS = 100

#: Parameters that a model may still have; more is no tiny configuration.
MOST = 4_000_000


class NotBuilt(Exception):
    """There is no tiny folder for this architecture; says why."""


def build(folder: Path, task: str, architecture: str) -> None:
    """Writes a tiny ``architecture``, ready for ``task``, into ``folder``.

    Raises:
      NotBuilt: its configuration cannot be made small, or it needs a package that is not here.
    """
    torch.manual_seed(11)
    if task in media.TASKS:
        _build_media(folder, task, architecture)
        return
    try:
        kind = getattr(t, architecture)
        tokenizer = tokenizer_for(task, architecture)
        ids = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("pad", "bos", "eos")}
        ids |= {
            f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id")
            for mark in ("sep", "cls", "mask")
            if hasattr(kind.config_class(), f"{mark}_token_id") and getattr(tokenizer, f"{mark}_token_id") is not None
        }
        words: dict[str, Any] = {**ids, **_LABELS.get(task, {})}
        if task == "text-generation" and hasattr(kind.config_class(), "is_decoder"):
            words["is_decoder"] = True
        config = shrink(kind.config_class, len(tokenizer) + SPARE, **words)
        check_size(kind, config, MOST)
        positions = getattr(config, "max_position_embeddings", None) or -1
        if 0 < positions < MOST_TOKENS:
            tokenizer.model_max_length = positions
        model = kind(config)
        enliven(model)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.eos_token_id = None  # so that every text becomes as long as asked
        model.eval().save_pretrained(folder)
    except NotBuilt:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [""]
        raise NotBuilt(f"{type(error).__name__}: {' '.join(lines)[:200]}") from error
    tokenizer.save_pretrained(folder)


def _build_media(folder: Path, task: str, architecture: str) -> None:
    """The smallest that transformers itself can run; where there is none, the smallest that can be made."""
    made, why = 0, ""
    for runs in (True, False):
        for config in media.configs(getattr(t, architecture)):
            for file in folder.iterdir():
                file.unlink()
            try:
                model = _media_model(getattr(t, architecture), config())
                model.save_pretrained(folder)
                media.save_parts(folder, task, model.config)
                made += 1
                if runs:
                    media.run(folder, task, model)
                return
            except NotBuilt as error:
                why = why or str(error)
            except Exception as error:
                why = why or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not made:
            break
    raise NotBuilt(why)


def _media_model(kind: Any, config: Any) -> Any:
    check_size(kind, config, media.MOST)
    model = kind(config)
    enliven(model)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.max_length = 20  # within the positions that are left
    return model.eval()


def check_size(kind: Any, config: Any, most: int) -> None:
    """Raises ``NotBuilt`` for more than ``most`` parameters, which it counts without making them."""
    with torch.device("meta"):
        size = sum(each.numel() for each in kind(config).parameters())
    if size > most:
        raise NotBuilt(f"still has {size / 1e6:.0f} million parameters")


def enliven(model: Any) -> None:
    """Weights so large that another input gives a visibly other answer."""
    for name, each in model.named_parameters():
        if not each.is_floating_point():
            continue
        with torch.no_grad():
            if each.ndim > 2:  # of a convolution: as large as keeps what comes out as large as what goes in
                each.normal_(std=min(0.3, 1.5 / each[0].numel() ** 0.5))
            elif each.ndim == 2 and float(each.std()) < 0.1:
                each.normal_(std=0.3)
            elif each.ndim == 1 and name.endswith("bias") and float(each.abs().max()) == 0:
                each.normal_(std=0.1)


def tokenizer_for(task: str, architecture: str) -> Any:
    """The tokenizer of the zoo that suits a model: characters, bytes, or words between its own marks."""
    if architecture.startswith("Canine"):
        return t.CanineTokenizer(model_max_length=MOST_TOKENS)
    if task in ("text-generation", "text2text-generation"):
        return _bytes()
    tokenizer = tiny_models.word_tokenizer(max_length=MOST_TOKENS)
    if architecture.startswith("XLNet"):
        marks = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("[SEP]", "[CLS]")]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A:0 [SEP]:0 [CLS]:2", pair="$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2", special_tokens=marks
        )
        tokenizer.padding_side = "left"
    if architecture == "LongformerForQuestionAnswering":  # finds the question by its third [SEP]
        marks = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("[SEP]", "[CLS]")]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=marks
        )
    # What a real folder's tokenizer says of its model: which inputs it reads.
    kind = getattr(t, architecture)
    tokenizer.model_input_names = [
        name for name in tokenizer.model_input_names if name == "input_ids" or name in _reads(kind)
    ]
    if getattr(kind.config_class(), "type_vocab_size", 2) < 2 and "token_type_ids" in tokenizer.model_input_names:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.eos_token, tokenizer.bos_token = "[SEP]", "[CLS]"
    return tokenizer


def _bytes() -> Any:
    """A byte-level tokenizer whose marks come first, as the models' do that count positions from the padding id."""
    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=128, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _reads(kind: Any) -> set[str]:
    import inspect

    return set(inspect.signature(kind.forward).parameters)


def _names(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


_LABELS = {
    "text-classification": _names("negative", "neutral", "positive"),
    "zero-shot-classification": _names("contradiction", "neutral", "entailment"),
    "text-ranking": _names("relevance"),
    "token-classification": _names("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
