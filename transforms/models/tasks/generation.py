"""What the tasks that generate text share: seeds, the time limit, and the call of ``generate``."""

from __future__ import annotations

import bisect
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from transforms.models.errors import InvalidParameter, NonFinite, TimeLimit
from transforms.models.tasks.base import non_finite

#: New tokens when neither the message, the job nor the model says.
MAX_NEW_TOKENS = 256

#: Parameters that only mean something when sampling; giving one asks for sampling, as on a text-generation endpoint.
_SAMPLING = frozenset({"temperature", "top_k", "top_p", "typical_p"})

#: Parameters that ``generate`` does not take.
_OURS = frozenset({"seed", "stop", "return_full_text", "truncate", "response_format", "grammar"})

#: What counts the tokens that stand before a new one, padding too, and the value at which it does not. With an encoder
#: only what that reads is padded, and a token that no text has may well be made less likely.
_READ: dict[str, float] = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
_LESS_LIKELY: dict[str, float] = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
_COUNTS = {"min_length": 0, **_LESS_LIKELY, **_READ}


class Decoding:
    """How one micro-batch generates; every element in it asked for the same.

    ``usual`` is how many new tokens there are where neither the message, the job nor ``defaults`` says.
    """

    def __init__(self, parameters: Mapping[str, Any], defaults: Any, usual: int = MAX_NEW_TOKENS) -> None:
        self.new_tokens = parameters.get("max_new_tokens") or defaults.max_new_tokens or usual
        asked = parameters.get("do_sample")
        self.samples = bool(defaults.do_sample if asked is None else asked) or (
            asked is None and bool(_SAMPLING & parameters.keys())
        )
        self.seed = parameters.get("seed")
        self.stop = parameters.get("stop")
        self.beams = parameters.get("num_beams", defaults.num_beams or 1)
        # The model's own number holds where there are as many to return.
        own = defaults.num_return_sequences or 1
        self.sequences = parameters.get("num_return_sequences", own if self.samples or own <= self.beams else 1)
        self.rows = max(self.sequences, self.beams)
        given = {name: value for name, value in parameters.items() if name not in _OURS}
        self.asked, self.defaults = parameters, defaults
        self.kwargs = {
            **given,
            "max_new_tokens": self.new_tokens,
            "do_sample": self.samples,
            "num_return_sequences": self.sequences,
        }
        self.full_text = parameters.get("return_full_text", True)

    def group(self, length: Hashable, encodes: bool, spare: bool = False) -> Hashable:
        """What must be equal for two messages to generate together; a seeded sample runs alone, to be repeatable.

        ``length`` says how many tokens are read, ``encodes`` whether an encoder does, ``spare`` whether they are padded
        with a token that no text has.
        """
        if self.samples and self.seed is not None:
            return object()
        same = tuple(sorted((n, str(v)) for n, v in self.asked.items() if n not in ("return_full_text", "seed")))
        for name, idle in (_READ if encodes else _COUNTS).items():
            value = self._said(name)
            if value not in (None, idle) and not (spare and name in _LESS_LIKELY and value > idle):
                return same, length
        return same

    def _said(self, name: str) -> Any:
        return self.asked.get(name, getattr(self.defaults, name, None))


def check_generation(parameters: Mapping[str, Any]) -> None:
    """Raises ``InvalidParameter`` for parameters that contradict each other."""
    several, beams = parameters.get("num_return_sequences", 1), parameters.get("num_beams", 1)
    samples = parameters.get("do_sample", bool(_SAMPLING & parameters.keys()))
    if several > 1 and not samples and several > beams:
        raise InvalidParameter(
            f"parameters.num_return_sequences={several}: needs do_sample=true, or num_beams of at least as many"
        )


def generate(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, torch.Tensor],
    decoding: Decoding,
    limit_s: float | None,
    held: LogitsProcessor | None = None,
) -> list[list[torch.Tensor | TimeLimit | NonFinite]]:
    """New tokens for each row of ``inputs``: ``num_return_sequences`` tensors each, or what went wrong with it.

    ``held`` lets only some tokens follow.
    """
    count = len(next(iter(inputs.values())))
    clock, watch = _Clock(limit_s), _Watch(_prompt(model, inputs))
    watches = [watch, held] if held is not None else [watch]
    # The model's own files may ask for a tuple, or name stop strings, which want a tokenizer.
    kwargs = {**decoding.kwargs, "return_dict_in_generate": False, "tokenizer": tokenizer}
    if decoding.stop:
        kwargs["stop_strings"] = decoding.stop
    if tokenizer.pad_token_id is None:
        kwargs["pad_token_id"] = model.generation_config.pad_token_id or tokenizer.eos_token_id
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=decoding.seed is not None):
        if decoding.seed is not None:
            torch.manual_seed(decoding.seed)
        sequences = model.generate(**inputs, **kwargs, stopping_criteria=[clock], logits_processor=watches).cpu()
    bad = watch.rows(count)
    answers: list[list[Any]] = []
    trim = _Trim(model, tokenizer, kwargs)
    for i in range(count):
        own = [trim(row[watch.prompt :]) for row in sequences[i * decoding.sequences : (i + 1) * decoding.sequences]]
        late = clock.stopped and not all(_ended(row, tokenizer, model, decoding) for row in own)
        if bad[i]:
            answers.append([non_finite()])
        elif late:
            answers.append(
                [
                    TimeLimit(
                        f"generation was stopped after {limit_s:g} s, at {len(own[0])} of {decoding.new_tokens} tokens;"
                        " lower max_new_tokens, or raise the time limit"
                    )
                ]
            )
        else:
            answers.append(own)
    return answers


def _prompt(model: Any, inputs: Mapping[str, torch.Tensor]) -> int:
    """How many tokens are expected before the first new one."""
    if model.config.is_encoder_decoder:
        # What the decoder starts with is no answer; with BART and NLLB it is the same token as the end of one.
        return inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 1
    return inputs["input_ids"].shape[1] if "input_ids" in inputs else 0


def _ends(model: Any) -> set[int]:
    """The tokens at which ``generate`` ends a row: those of the model's own files, not of its tokenizer."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])


def tokens_written(rows: Sequence[Any]) -> int:
    """Tokens in what :func:`generate` gave for one element."""
    return sum(len(row) for row in rows if isinstance(row, torch.Tensor))


class _Trim:
    """Takes from a row what stands after its end, up to the longest of its batch; that may be a token as any other."""

    def __init__(self, model: Any, tokenizer: Any, asked: Mapping[str, Any]) -> None:
        self.ends, self.tokenizer = _ends(model), tokenizer
        stops = asked.get("stop_strings", model.generation_config.stop_strings) or []
        self.stops = [stops] if isinstance(stops, str) else stops

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        ids = row.tolist()
        most = next((place + 1 for place, token in enumerate(ids) if token in self.ends), len(ids))
        if self.stops and self._stopped(ids[:most]):
            most = bisect.bisect_left(range(most), True, key=lambda count: self._stopped(ids[:count]))
        return row[:most]

    def _stopped(self, ids: list[int]) -> bool:
        words = self.tokenizer.decode(ids)
        return any(stop in words for stop in self.stops)


def _ended(row: torch.Tensor, tokenizer: Any, model: Any, decoding: Decoding) -> bool:
    """Whether a generated row came to its own end before the clock stopped it."""
    if set(row.tolist()) & _ends(model):
        return True
    words = tokenizer.decode(row) if decoding.stop else ""
    return len(row) >= decoding.new_tokens or any(stop in words for stop in decoding.stop or ())


class _Clock(StoppingCriteria):
    """Stops a generation when its time is over, and remembers that it did."""

    def __init__(self, limit_s: float | None) -> None:
        self.deadline = None if limit_s is None else time.monotonic() + limit_s
        self.stopped = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.stopped = self.stopped or (self.deadline is not None and time.monotonic() > self.deadline)
        return torch.full((len(input_ids),), self.stopped, device=input_ids.device, dtype=torch.bool)


class _Watch(LogitsProcessor):
    """Remembers which rows ever had NaN or plus infinity among their logits (minus infinity is a masked token).

    ``prompt`` is how many tokens stood before the first new one: what a decoder starts with, or the prompt as the model
    itself took it (BLIP leaves its last token out); as expected where a model asks no processor (Janus drops it).
    """

    def __init__(self, prompt: int) -> None:
        self.bad: torch.Tensor | None = None
        self.prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bad = (scores.isnan() | scores.isposinf()).any(dim=-1)
        if self.bad is None:
            self.prompt = input_ids.shape[1]
        self.bad = bad if self.bad is None else self.bad | bad
        # A NaN makes sampling raise for the whole batch; these rows are failed afterwards.
        return torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=-torch.inf)

    def rows(self, count: int) -> Sequence[bool]:
        """For each of ``count`` elements, whether any of its rows was bad."""
        if self.bad is None:
            return [False] * count
        return self.bad.view(count, -1).any(dim=1).tolist()
