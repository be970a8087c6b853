"""The model alone, as fast as it gets: sorted by length, cut under a padded-token budget, the better number format, and
by OpenVINO on all cores together or on each alone.

``python -m benchmarks.raw MODEL WORKLOAD COUNT ENGINE`` prints what it found best as a JSON line, and then for every
line that it reads the rate of one run over all inputs. ``ENGINE`` is ``torch`` or ``openvino``. It shares no code with
the handler.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from benchmarks.workloads import texts

#: From a batch of features to logits.
Forward = Callable[[dict[str, torch.Tensor]], torch.Tensor]


class Texts:
    """Tokenised, with as many tokens as each has."""

    network = AutoModelForSequenceClassification

    def __init__(self, folder: str):
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def read(self, inputs: Sequence[str]) -> tuple[list[Any], list[int]]:
        encoded = self._tokenizer(list(inputs), truncation=True)["input_ids"]
        return encoded, [len(ids) for ids in encoded]

    def batch(self, encoded: list[Any]) -> dict[str, torch.Tensor]:
        return dict(self._tokenizer.pad({"input_ids": encoded}, return_tensors="pt"))


class Pictures:
    """Decoded, with as many tokens each as a ViT of patches of 16 has."""

    network = AutoModelForImageClassification

    def __init__(self, folder: str):
        self._processor = AutoImageProcessor.from_pretrained(folder)

    def read(self, inputs: Sequence[str]) -> tuple[list[Any], list[int]]:
        pictures = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in inputs]
        return pictures, [197] * len(pictures)

    def batch(self, encoded: list[Any]) -> dict[str, torch.Tensor]:
        return dict(self._processor(images=encoded, return_tensors="pt"))


def batches(lengths: Sequence[int], order: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cuts ``order`` (longest first) so that no batch has more than ``budget`` padded tokens."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def run(forward: Forward, streams: int, reader: Texts | Pictures, inputs: Sequence[str], budget: int) -> list[int]:
    """The best label's number for each input, by so many forwards at once."""
    encoded, lengths = reader.read(inputs)
    order = sorted(range(len(inputs)), key=lengths.__getitem__, reverse=True)
    labels = [-1] * len(inputs)

    def answer(batch: list[int]) -> None:
        logits = forward(reader.batch([encoded[index] for index in batch]))
        for index, label in zip(batch, logits.softmax(-1).argmax(-1).tolist(), strict=True):
            labels[index] = label

    if streams > 1:
        with ThreadPoolExecutor(streams) as threads:
            list(threads.map(answer, batches(lengths, order, budget)))
        return labels
    with torch.inference_mode():
        for batch in batches(lengths, order, budget):
            answer(batch)
    return labels


def by_torch(network: Any, dtype: torch.dtype) -> Forward:
    """The network as it is."""
    network = network.to(dtype)

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return network(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}).logits

    return forward


def by_openvino(converted: Any, dtype: torch.dtype, streams: int) -> Forward:
    """The network, converted, with OpenVINO's own settings but for the number format and the forwards at once."""
    import openvino

    hint = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    compiled = openvino.compile_model(
        converted, "CPU", {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
    )
    names = {name for port in converted.inputs for name in port.get_names()}
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        request = requests.get()
        try:
            found = request.infer({name: value.numpy() for name, value in batch.items() if name in names})
            return torch.from_numpy(found[0].copy())
        finally:
            requests.put(request)

    return forward


def main() -> None:
    folder, workload, count, engine = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    inputs = texts(workload, count)
    reader = Pictures(folder) if workload == "pictures" else Texts(folder)
    forwards: dict[tuple[torch.dtype, int], Forward] = {}
    dtypes = (torch.float32, torch.bfloat16)
    if engine == "torch":
        for dtype in dtypes:
            network = reader.network.from_pretrained(folder, dtype=torch.float32).eval()
            forwards[dtype, 1] = by_torch(network, dtype)
    else:
        import openvino

        network = reader.network.from_pretrained(folder, dtype=torch.float32).eval()
        converted = openvino.convert_model(network, example_input=reader.batch(reader.read(inputs[:2])[0]))
        for dtype, streams in itertools.product(dtypes, {1, torch.get_num_threads()}):
            forwards[dtype, streams] = by_openvino(converted, dtype, streams)

    def seconds(form: tuple[torch.dtype, int], budget: int) -> float:
        start = time.perf_counter()
        run(forwards[form], form[1], reader, inputs[: max(16, count // 8)], budget)
        return time.perf_counter() - start

    for (_, streams), forward in forwards.items():
        run(forward, streams, reader, inputs[:4], 1024)
    form = min(forwards, key=lambda each: seconds(each, 1024))
    budget = min((512, 1024, 2048, 4096), key=lambda each: seconds(form, each))
    (dtype, streams), forward, whole = form, forwards[form], forwards[form[0], 1]
    forwards.clear()
    singles = []
    for text in inputs[: max(8, min(40, count // 8))]:
        begin = time.perf_counter()
        run(whole, 1, reader, [text], budget)
        singles.append(time.perf_counter() - begin)
    about = {
        "system": "raw" if engine == "torch" else "raw, OpenVINO",
        "messages": count,
        "dtype": str(dtype).removeprefix("torch."),
        "budget": budget,
        "streams": streams,
        "model_loads": 1,
        "single_ms": 1000 * statistics.median(singles),
    }
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        assert len(run(forward, streams, reader, inputs, budget)) == count
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"rate": count / elapsed, "cpu_s_per_1000": 1000 * cpu / count, "peak_mib": peak}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
