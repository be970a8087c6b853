"""``python -m benchmarks.generation``: tokens a second of a model of Qwen's shape, whose answers are of mixed length.

24 layers of 896 and a vocabulary of 151,936, as Qwen2.5-0.5B has, with random weights. An answer ends with one of
4,000 tokens of the vocabulary, so that its length is geometric, 38 tokens in the mean, and at most ``--longest``.
Compared, in turns, each on all of the prompts: ``transformers.pipeline`` in batches of eight (which run as long as
their longest answer), this project's handler, and transformers' continuous batching (``generate_batch``), on the plain
model and on the one that the handler packed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.workloads import CACHE, minilm, texts
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.tasks.generation import tokens_written
from transforms.records import Request

VOCABULARY, ENDS, BATCH = 151_936, 4_000, 8


def folder(longest: int) -> str:
    """The model's folder, made on first use: 2 GB."""
    place = CACHE / f"qwen-24x896-{longest}"
    if (place / "config.json").exists():
        return str(place)
    from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4_864,
        tie_word_embeddings=True,
    )
    ends = random.Random(1).sample(range(1_000, VOCABULARY), ENDS)
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=longest, eos_token_id=ends, pad_token_id=0
    )
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(place)
    return str(place)


class Counted:
    """Counts the tokens that a model writes, up to the end of each answer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.tokens = model, tokenizer, 0
        self._generate = model.generate
        model.generate = self

    def __call__(self, **given: Any) -> Any:
        made = self._generate(**given)
        self.tokens += tokens_written(self.model, self.tokenizer, made[:, given["input_ids"].shape[1] :])
        return made


def systems(path: str, prompts: Sequence[str]) -> dict[str, Callable[[], int]]:
    """What is compared: each answers all of the prompts, and returns how many tokens it wrote."""
    from transformers import ContinuousBatchingConfig, GenerationConfig, pipeline

    pipe: Any = pipeline("text-generation", model=path, device="cpu", dtype=torch.float32)
    handler = HuggingFaceModelHandler(path, "text-generation", device="cpu", dtype="float32")
    loaded = handler.load_model()
    packed = loaded.task.model.module  # type: ignore[attr-defined]
    plain, ours = Counted(pipe.model, pipe.tokenizer), Counted(packed, pipe.tokenizer)
    config = GenerationConfig.from_pretrained(path)
    ids = [pipe.tokenizer(prompt)["input_ids"] for prompt in prompts]

    def static() -> int:
        plain.tokens = 0
        pipe(list(prompts), batch_size=BATCH)
        return plain.tokens

    def handled() -> int:
        ours.tokens = 0
        handler.run_inference([Request(prompt) for prompt in prompts], loaded)
        return ours.tokens

    def continuous(model: Any) -> Callable[[], int]:
        def run() -> int:
            batching = ContinuousBatchingConfig(max_batch_tokens=256, num_blocks=4 * BATCH)
            made = model.generate_batch(ids, generation_config=config, continuous_batching_config=batching)
            return sum(len(each.generated_tokens) for each in made.values())

        return run

    return {
        "transformers.pipeline": static,
        "ours": handled,
        "continuous, plain": continuous(pipe.model),
        "continuous, packed": continuous(packed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    prompts = texts("mixed", args.prompts)
    rates: dict[str, list[float]] = {}
    compared = systems(folder(args.longest), prompts)
    for turn in range(args.turns):
        for name, run in compared.items():
            torch.manual_seed(turn)
            start = time.perf_counter()
            tokens = run()
            rates.setdefault(name, []).append(tokens / (time.perf_counter() - start))
            print(f"{name}: {tokens} tokens, {rates[name][-1]:.1f} a second", flush=True)
    print(json.dumps({name: round(statistics.median(each), 2) for name, each in rates.items()}))


if __name__ == "__main__":
    main()
