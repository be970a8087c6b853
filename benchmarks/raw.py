"""The model alone, as fast as it gets: texts sorted by length, cut under a padded-token budget, the better dtype.

``python -m benchmarks.raw MODEL WORKLOAD COUNT`` prints what it found best as a JSON line, and then for every line that
it reads the rate of one run over all texts. It shares no code with the handler.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.workloads import texts


def batches(lengths: Sequence[int], order: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cuts ``order`` (longest first) so that no batch has more than ``budget`` padded tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def run(network: Any, tokenizer: Any, inputs: Sequence[str], budget: int) -> list[str]:
    """One label for each input."""
    encoded = tokenizer(list(inputs), truncation=True)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    order = sorted(range(len(inputs)), key=lengths.__getitem__, reverse=True)
    labels = [""] * len(inputs)
    with torch.inference_mode():
        for batch in batches(lengths, order, budget):
            padded = tokenizer.pad({"input_ids": [encoded[index] for index in batch]}, return_tensors="pt")
            best = network(**padded).logits.softmax(-1).argmax(-1).tolist()
            for index, label in zip(batch, best, strict=True):
                labels[index] = network.config.id2label[label]
    return labels


def main() -> None:
    folder, workload, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    inputs = texts(workload, count)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    networks = {
        dtype: AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
        for dtype in (torch.float32, torch.bfloat16)
    }

    def seconds(dtype: torch.dtype, budget: int) -> float:
        start = time.perf_counter()
        run(networks[dtype], tokenizer, inputs[: max(50, count // 8)], budget)
        return time.perf_counter() - start

    for dtype in networks:
        run(networks[dtype], tokenizer, inputs[:20], 1024)
    dtype = min(networks, key=lambda each: seconds(each, 1024))
    budget = min((1024, 2048, 4096), key=lambda each: seconds(dtype, each))
    network = networks.pop(dtype)
    networks.clear()
    singles = []
    for text in inputs[:40]:
        begin = time.perf_counter()
        run(network, tokenizer, [text], budget)
        singles.append(time.perf_counter() - begin)
    about = {
        "system": "raw",
        "messages": count,
        "dtype": str(dtype).removeprefix("torch."),
        "budget": budget,
        "model_loads": 1,
        "single_ms": 1000 * statistics.median(singles),
    }
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        assert len(run(network, tokenizer, inputs, budget)) == count
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"rate": count / elapsed, "cpu_s_per_1000": 1000 * cpu / count, "peak_mib": peak}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
