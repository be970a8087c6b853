"""Parameters that several tasks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.models.errors import InvalidParameter
from transforms.models.parameters import Parameter, boolean, choice, integer, number, text, text_list

FUNCTION = choice("softmax", "sigmoid", "none")

LABELS: Mapping[str, Parameter] = {"top_k": integer(1), "function_to_apply": FUNCTION}

#: Those of every model that generates text.
GENERATION: Mapping[str, Parameter] = {
    "max_new_tokens": integer(1, 1_000_000),
    "do_sample": boolean(),
    "temperature": number(0, 100, open_start=True),
    "top_k": integer(1),
    "top_p": number(0, 1, open_start=True),
    "typical_p": number(0, 1, open_start=True),
    "repetition_penalty": number(0, 100, open_start=True),
    "num_beams": integer(1, 32),
    "num_return_sequences": integer(1, 32),
    "seed": integer(0, 2**63 - 1),
    "stop": text_list(most=16, longest=256),
}

#: Those of models that read one text and write another, beside ``GENERATION``.
REWRITING: Mapping[str, Parameter] = {
    **GENERATION,
    "max_length": integer(2, 1_000_000),
    "min_length": integer(0, 1_000_000),
    "length_penalty": number(-100, 100),
    "no_repeat_ngram_size": integer(0, 1000),
    "early_stopping": boolean(),
}

#: The languages of a translation, by the names that the model has for them.
LANGUAGES: Mapping[str, Parameter] = {"src_lang": text(), "tgt_lang": text()}

#: How many of an embedding's numbers are kept; ``dimensions`` and ``truncate_dim`` are two names for it.
DIMENSIONS: Mapping[str, Parameter] = {"dimensions": integer(1), "truncate_dim": integer(1)}


def chunk() -> Parameter:
    """``"tokens"``, ``"sentences"``, or an object that says of how many tokens a chunk is, and how many overlap."""
    most, least = integer(1, 1_000_000), integer(0, 1_000_000)

    def accepts(value: Any) -> bool:
        if not isinstance(value, dict):
            return value in ("tokens", "sentences") if isinstance(value, str) else False
        if not value.keys() <= {"by", "tokens", "overlap"} or value.get("by", "tokens") not in ("tokens", "sentences"):
            return False
        overlap = value.get("overlap", 0)
        return (
            ("tokens" not in value or most.accepts(value["tokens"]))
            and least.accepts(overlap)
            and (not overlap or value.get("by", "tokens") == "tokens")
        )

    words = '"tokens", "sentences", or {"by": …, "tokens": …, "overlap": …} (an overlap with "by": "tokens" only)'
    return Parameter(words, accepts)


def candidate_labels(parameters: Mapping[str, Any]) -> list[str]:
    """The labels that a message chooses among; a string holds them between commas."""
    labels = parameters.get("candidate_labels") or []
    return [part.strip() for part in labels.split(",") if part.strip()] if isinstance(labels, str) else labels


def dimensions(parameters: Mapping[str, Any]) -> int | None:
    """How many of an embedding's numbers are asked for; None for all of them.

    Raises:
      InvalidParameter: the two names for it say two things.
    """
    asked = {name: parameters[name] for name in DIMENSIONS if name in parameters}
    if len(set(asked.values())) > 1:
        raise InvalidParameter(
            f"parameters.truncate_dim={asked['truncate_dim']}: dimensions={asked['dimensions']} is given too,"
            " which is another name for it; give one"
        )
    return next(iter(asked.values()), None)
