"""The tokenizers of the zoo: words between marks, characters, or bytes, as the folders of a model have them."""

from __future__ import annotations

import inspect
from typing import Any

import tiny_models
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

#: The longest text, as the tokenizer says: under the positions, for some models count them from the padding id upwards.
MOST_TOKENS = 100


def tokenizer_for(task: str, architecture: str) -> Any:
    """The tokenizer of the zoo that suits a model: characters, bytes, or words between its own marks."""
    if architecture.startswith("Canine"):
        return t.CanineTokenizer(model_max_length=MOST_TOKENS)
    if task in ("text-generation", "text2text-generation"):
        return byte_tokenizer()
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


def byte_tokenizer() -> Any:
    """A byte-level tokenizer whose marks come first, as the models' do that count positions from the padding id."""
    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=128, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _reads(kind: Any) -> set[str]:
    return set(inspect.signature(kind.forward).parameters)
