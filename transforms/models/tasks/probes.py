"""Inputs of its own that a task's model is tried with when it is loaded: engines are compared by them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from transforms.models.backends import Probe
from transforms.models.errors import ElementError, NotYet
from transforms.models.inputs import Ask
from transforms.models.inside import changed, state
from transforms.models.sharing import sample
from transforms.models.tasks.audio import AudioTask
from transforms.models.tasks.base import Prepared, Task
from transforms.models.tasks.multimodal import ImageTextToText
from transforms.models.tasks.pictures import to_png
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.vision import ImageTask

#: Tokens of the longest text that is tried: a longer one is left to torch.
_TOKENS = 1024
#: Tokens of the forward that is timed: a quarter of a CPU's micro-batch, so that a load stays short.
_TIMED = 256
#: Recordings that are tried, in seconds, and pictures, in pixels.
_SECONDS = (0.5, 2.0, 12.0)
_PICTURES = ((320, 240), (48, 64))
#: What is asked of them, where a model is asked something.
_WORDS = ("What is it?", "Where is my order, which was to be here on Monday, and who is to be asked about it?")


def probe(task: Task) -> Probe | None:
    """The probe of ``task``; None for a task that there are no inputs for."""
    if isinstance(task, TextTask):
        return _of_texts(task)
    if isinstance(task, ImageTask | AudioTask):
        return _of_files(task)
    return None


def _of_texts(task: TextTask) -> Probe:
    rows = sample(task)
    # Outputs over a vocabulary take as much memory as many tokens.
    most = max(1, _TOKENS // getattr(task, "weight", 1))
    usual = rows[-1]
    longest = max(len(usual.ids), min(most, task.longest or most))
    alone = [*rows, _longer(usual, longest)] if longest > len(usual.ids) else rows

    def answers() -> list[torch.Tensor]:
        return [*(task.raw([row])[0] for row in alone), *task.raw(rows)]

    batch = [usual] * max(1, _TIMED // len(usual.ids))
    return Probe(answers, lambda: task.raw(batch), bool(task.sharing.state))


def _longer(row: Any, length: int) -> Any:
    """``row`` with its middle repeated, so that it has ``length`` tokens and its own ends."""
    middle = len(row.ids) // 2
    more = length - len(row.ids)

    def stretch(values: list[int] | None) -> list[int] | None:
        if values is None:
            return None
        repeated = (values[1:-1] or values) * (more // max(1, len(values) - 2) + 1)
        return [*values[:middle], *repeated[:more], *values[middle:]]

    return replace(row, ids=stretch(row.ids), type_ids=stretch(row.type_ids))


def _of_files(task: ImageTask | AudioTask) -> Probe | None:
    made = list(tries(task))
    if not made:
        return None
    share = task.sharing.which == "all"
    batches: dict[Any, list[Prepared]] = {}
    for each in made:
        batches.setdefault(task.planned(each).group, []).append(each)
    together = [own * 2 for own in batches.values()] if share else []

    def answers() -> list[torch.Tensor]:
        return [tensor for batch in [*([each] for each in made), *together] for tensor in _tensors(task.forward(batch))]

    usual = made[0]
    batch = [usual] * (max(1, _TIMED // usual.size.length) if share else 1)
    return Probe(answers, lambda: _tensors(task.forward(batch)), _changes(task, made))


def _changes(task: ImageTask | AudioTask, made: Sequence[Prepared]) -> bool:
    """Whether a forward of another size leaves something else in the model (Conformers keep the last one's angles)."""
    one, other = made[0], made[1 % len(made)]
    with contextlib.suppress(Exception):  # a model that cannot answer is told of once it is tried out
        task.forward([one])
        before = state(task.model.module)
        task.forward([other])
        task.forward([one])
        return changed(before, task.model.module)
    return False


def tries(task: ImageTask | AudioTask | ImageTextToText, seed: int = 0) -> Iterator[Prepared]:
    """Recordings or pictures of several sizes, of the noise of ``seed``, as ``task`` prepares them."""
    random, ask = np.random.default_rng(seed), Ask(b"", task.entry.tried_with({}))
    with contextlib.suppress(ElementError):  # a processor may refuse them for their shape
        if isinstance(task, ImageTextToText):
            for size, words in zip(_PICTURES, _WORDS, strict=True):
                picture = base64.b64encode(to_png(_noise(random, *size))).decode()
                example = next(task.examples(picture, words))
                yield _prepared(task.prepare([Ask(task.check(example), {})])[0])
            return
        if isinstance(task, AudioTask):
            for seconds in _SECONDS:
                length = int(seconds * task.extractor.sampling_rate)
                yield _prepared(task.one(ask, random.uniform(-0.5, 0.5, length).astype(np.float32)))
            return
        for width, height in _PICTURES:
            yield task.one(ask, _noise(random, width, height))


def _noise(random: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def _prepared(made: Prepared | ElementError | NotYet) -> Prepared:
    if isinstance(made, ElementError):
        raise made
    assert isinstance(made, Prepared)  # noqa: S101 (the first is never left for later)
    return made


def _tensors(outputs: Any) -> list[torch.Tensor]:
    """The arrays and tensors of a task's ``outputs``, one a row."""
    several: Sequence[Any] = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [torch.as_tensor(row) for each in several if each is not None for row in each]
