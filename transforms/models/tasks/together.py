"""Which pictures and recordings may share a forward of a model, found by measuring it when it is loaded.

What shares a forward is of one shape, and most models keep one apart from another; some join them (Pixtral puts the
pictures of a batch into one row), or read what pads a recording or the shorter of two prompts. Two are answered alone
and beside each other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from itertools import chain

import torch

from transforms.models.errors import ModelLoadError
from transforms.models.sharing import distance
from transforms.models.tasks.audio import AudioTask, SpeechRecognition
from transforms.models.tasks.base import Prepared
from transforms.models.tasks.multimodal import ImageTextToText
from transforms.models.tasks.probes import tries
from transforms.models.tasks.vision import ImageTask

_LOG = logging.getLogger(__name__)

#: How far answers may lie apart by rounding alone, in any number format: many times what convolutions in another order
#: of adding do in float32.
_LEAST = 2e-3


def measure_files(task: ImageTask | AudioTask | ImageTextToText) -> None:
    """Sets the sharing with which each picture or recording is answered as if it were alone.

    Raises:
      ModelLoadError: the model answers one of them in two ways.
    """
    batch = _alike(task)
    if not batch:
        return
    limit = max(_LEAST, math.sqrt(torch.finfo(task.dtype).eps))
    try:
        alone = [task.raw([each]) for each in batch]
    except Exception:  # noqa: BLE001 (a model that cannot answer is told of once it is tried out)
        task.sharing.which = "none"
        return
    again = distance(alone[0], task.raw(batch[:1]))
    if not again <= limit:
        raise ModelLoadError(
            f"the model gives two answers to one input (they differ by {again:.1%}), so none can be relied on;"
            " use a model whose answers do not depend on chance"
        )
    far = _beside(task, batch, [tensor for own in alone for tensor in own])
    if far > limit:
        moved = f"{far:.1%}" if math.isfinite(far) else "an error, or another number of answers"
        task.sharing.which = "none"
        _LOG.info("a batch changes its answers (%s): each input has a forward of its own", moved)


def _alike(task: ImageTask | AudioTask | ImageTextToText) -> Sequence[Prepared]:
    """The first two of ``tries`` that may share a forward; none where the task's own way compares only texts."""
    if isinstance(task, SpeechRecognition) and not task.pads:
        return []
    groups: dict[Hashable, list[Prepared]] = {}
    for each in chain(tries(task), tries(task, 1)):
        own = groups.setdefault(task.planned(each).group, [])
        own.append(each)
        if len(own) == 2:
            return own
    return []


def _beside(
    task: ImageTask | AudioTask | ImageTextToText, batch: Sequence[Prepared], alone: Sequence[torch.Tensor]
) -> float:
    """How far the answers of ``batch`` in one forward lie from those ``alone``."""
    try:
        return distance(alone, task.raw(batch))
    except Exception:  # noqa: BLE001 (what cannot run together runs alone)
        return math.inf
