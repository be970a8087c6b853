"""One message answered when a model is loaded: what fails on every message is told before the first."""

from __future__ import annotations

import base64
import io
import logging
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from transforms.models.errors import ElementError, ModelLoadError, NonFinite, NotYet
from transforms.models.inputs import Ask
from transforms.models.tasks.base import Prepared, Task

_LOG = logging.getLogger(__name__)

_WORDS = "Where is my order?"


def try_out(task: Task, parameters: Mapping[str, Any]) -> None:
    """Asks ``task`` something small, with the ``parameters`` that every message has.

    An input that this very model does not take says nothing, nor one that lacks a parameter which messages may bring,
    nor one whose answer is not finite.

    Raises:
      ModelLoadError: it cannot answer, and could not answer any message.
    """
    entry = task.entry
    given = entry.tried_with(parameters)
    if task.model.generates and "max_new_tokens" in entry.parameters:
        given |= {"max_new_tokens": 1}
    try:
        entry.require(given)
        task.check_parameters(given)
        prepared = task.prepare([Ask(task.check(_example(task)), given)])[0]
        answer: Any = prepared
        if isinstance(prepared, Prepared):
            with task.model.running():
                outputs = task.forward([prepared])
            answer = task.finish(outputs, [prepared])[0]
    except ElementError as error:
        answer = error
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelLoadError(
            f"the model cannot answer an example of {entry.name}: {type(error).__name__}: {lines[0][:300]}"
        ) from error
    if isinstance(answer, NonFinite):
        _LOG.warning("an example of %s: %s", entry.name, answer)
    elif isinstance(answer, ElementError | NotYet):
        _LOG.info("an example of %s was not answered: %s", entry.name, answer)


def _example(task: Task) -> Any:
    """An input that models of this kind take."""
    entry = task.entry
    if entry.modality == "audio":
        return _tone()
    if entry.modality == "image":
        if entry.is_file:
            return _picture()
        picture = base64.b64encode(_picture()).decode()
        return {"image": picture, "text": _WORDS, "question": _WORDS}
    if entry.name == "fill-mask":
        return f"{_WORDS} {getattr(task, 'tokenizer').mask_token}"  # noqa: B009 (a text task's own)
    return _WORDS if entry.small is None or isinstance(entry.small, str) else entry.small


def _picture() -> bytes:
    """A picture with edges and shades, as PNG."""
    across, down = np.meshgrid(np.arange(256), np.arange(224))
    pixels = np.stack([across, down, (across * down) % 256], -1).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def _tone() -> bytes:
    """Two seconds that rise in pitch, as WAV."""
    times = np.arange(32_000) / 16_000
    samples = (np.sin(2 * np.pi * (200 + 300 * times) * times) * 12_000).astype("<i2")
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return written.getvalue()
