"""An ordinary folder with a tiny model of any architecture: random weights of visible scale, and a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as t

from zoo import labels, media, sights
from zoo.shrink import shrink
from zoo.tokenizer import MOST_TOKENS, tokenizer_for

#: Ids at the end of a vocabulary that no text has.
SPARE = 40

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
    if task in labels.TASKS or task == sights.TASK:
        _build_with_texts(folder, task, architecture)
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
        raise _not_built(error) from error
    tokenizer.save_pretrained(folder)


def _not_built(error: Exception) -> NotBuilt:
    return NotBuilt(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _build_with_texts(folder: Path, task: str, architecture: str) -> None:
    """A model that reads texts beside something else, whose own sizes fit: in transformers it runs."""
    try:
        if task in labels.TASKS:
            labels.save(folder, task, getattr(t, architecture), _media_model)
            inputs, parameters = labels.INPUTS[task]
            found = labels.REFERENCES[task](folder, inputs[:1], parameters)
            if not isinstance(found[0], RuntimeError):
                return
        else:
            sights.save(folder, getattr(t, architecture), _media_model)
            found = sights.reference(folder, sights.inputs(folder), sights.INPUTS[1])
    except NotBuilt:
        raise
    except Exception as error:
        raise _not_built(error) from error
    if isinstance(found[0], Exception):
        raise _not_built(found[0])


def _build_media(folder: Path, task: str, architecture: str) -> None:
    """The smallest that transformers itself can run; where there is none, the smallest that can be made."""
    made, why = 0, ""
    try:
        configs = media.configs(getattr(t, architecture), task)
    except Exception as error:
        raise _not_built(error) from error
    for runs in (True, False):
        for config in configs:
            for file in folder.iterdir():
                file.unlink()
            try:
                model = _media_model(getattr(t, architecture), config())
                model.save_pretrained(folder)
                media.save_parts(folder, task, model)
                made += 1
                if runs:
                    media.run(folder, task, model)
                return
            except NotBuilt as error:
                why = why or str(error)
            except Exception as error:
                why = why or str(_not_built(error))
        if not made:
            break
    raise NotBuilt(why)


def _media_model(kind: Any, config: Any) -> Any:
    check_size(kind, config, media.MOST)
    model = kind(config)
    enliven(model)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.max_new_tokens = media.WRITTEN
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


def _names(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


_LABELS = {
    "text-classification": _names("negative", "neutral", "positive"),
    "zero-shot-classification": _names("contradiction", "neutral", "entailment"),
    "text-ranking": _names("relevance"),
    "token-classification": _names("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
