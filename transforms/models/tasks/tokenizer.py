"""The tokenizer of a model's folder, and the longest input that it and the model take."""

from __future__ import annotations

import os
from typing import Any

import transformers
from tokenizers import normalizers

from transforms.models.backends import Model
from transforms.models.errors import ModelLoadError, foreign, reason


def load_tokenizer(folder: str | os.PathLike[str]) -> Any:
    """The tokenizer of a model folder; runs no code from it.

    Raises:
      ModelLoadError: its files cannot be read.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever the files make it raise
        raise ModelLoadError(
            f"its tokenizer cannot be read ({type(error).__name__}: {foreign(reason(error))}); save it beside the model"
            " again: tokenizer.save_pretrained"
        ) from error


def max_tokens(tokenizer: Any, model: Model, instead: int | None = None) -> int | None:
    """The longest input the model takes, in tokens with the special ones; None when nothing limits it.

    ``instead`` goes over what the tokenizer says.

    Raises:
      ModelLoadError: the tokenizer's limit leaves no room for a word: every text would be the same.
    """
    most, name = instead or tokenizer.model_max_length, "max_seq_length" if instead else "model_max_length"
    if not isinstance(most, int | float):
        raise ModelLoadError(f"{name} of its tokenizer is {most!r}, no number; mend it in the tokenizer's files")
    limits = [int(most)] if most < 1_000_000 else []
    marks = tokenizer.num_special_tokens_to_add()
    if limits and most <= marks:
        raise ModelLoadError(
            f"{name} of its tokenizer is {most}, and {marks} of these"
            " are marks: no word is left of any text; mend it in the tokenizer's files"
        )
    positions = model.positions()
    return min([*limits, positions] if positions else limits, default=None)


def read_small(tokenizer: Any) -> None:
    """Has ``tokenizer`` read every letter as a small one, as sentence-transformers does: marks stay marks."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.do_lower_case = True
        return
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
