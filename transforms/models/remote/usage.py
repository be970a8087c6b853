"""Tokens that a server read and generated, in each of the forms in which servers say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: More tokens than any request has; a count above it would spoil every sum that it goes into.
_MOST_TOKENS = 1_000_000_000

#: Where an answer has its counts: OpenAI's and most others', Vertex AI's, SGLang's, llama.cpp's and TGI's own routes.
_PLACES = ("usage", "usageMetadata", "usage_metadata", "metadata", "meta_info", "timings", "details")

#: OpenAI; its newer API and Anthropic; Google; Ollama; llama.cpp.
_READ = (
    "prompt_tokens",
    "input_tokens",
    "promptTokenCount",
    "prompt_token_count",
    "prompt_eval_count",
    "tokens_evaluated",
    "prompt_n",
)
_GENERATED = (
    "completion_tokens",
    "output_tokens",
    "candidatesTokenCount",
    "candidates_token_count",
    "eval_count",
    "tokens_predicted",
    "predicted_n",
    "generated_tokens",
)
#: Of embeddings, where nothing is generated, some servers say the total alone.
_TOTAL = ("total_tokens", "totalTokenCount")


def tokens(headers: Mapping[str, str], answer: Any) -> tuple[int | None, int]:
    """Tokens read (None where the server does not say) and generated."""
    one = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    places = [one.get(place) for place in _PLACES] + [one] if isinstance(one, dict) else []
    found = [place for place in places if isinstance(place, dict)]
    read, generated = _first(found, _READ), _first(found, _GENERATED)
    if read is None and generated is None:
        read = _first(found, _TOTAL)
    if read is None:
        read = _count(headers.get("x-prompt-tokens") or headers.get("x-compute-tokens"))
    if generated is None:
        generated = _count(headers.get("x-generated-tokens"))
    return read, generated or 0


def _first(places: list[dict[str, Any]], names: tuple[str, ...]) -> int | None:
    counts = (_count(place.get(name)) for place in places for name in names)
    return next((count for count in counts if count is not None), None)


def _count(value: Any) -> int | None:
    """``value`` as a number of tokens, in figures or in a header's digits; None where it cannot be one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
