"""One message answered when a model is loaded: what fails on every message is told before the first."""

from __future__ import annotations

import base64
import io
import logging
import wave
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from transforms.models.errors import ElementError, InvalidInput, ModelLoadError, NonFinite, NotYet, reason
from transforms.models.inputs import Ask
from transforms.models.tasks.base import Prepared, Task
from transforms.models.tasks.multimodal import ImageTextToText
from transforms.models.tasks.pictures import to_png

_LOG = logging.getLogger(__name__)

_WORDS = "Where is my order?"


def try_out(task: Task, parameters: Mapping[str, Any]) -> None:
    """Asks ``task`` something small, with the ``parameters`` that every message has.

    A text that this very model does not take says nothing, nor an input that lacks a parameter which messages may
    bring, nor one whose answer is not finite.

    Raises:
      ModelLoadError: it cannot answer, and could not answer any message.
    """
    entry = task.entry
    answer, refused = None, None
    for example in _examples(task):
        try:
            answer = _answer(task, example, parameters)
        except ModelLoadError as error:
            refused = refused or error
            continue
        if not isinstance(answer, InvalidInput):
            refused = None
            break
    if refused is not None:
        raise refused
    if isinstance(answer, InvalidInput) and entry.is_file:
        raise ModelLoadError(f"the model takes no example of {entry.name}: {answer}")
    if isinstance(answer, NonFinite):
        _LOG.warning("an example of %s: %s", entry.name, answer)
    elif isinstance(answer, ElementError | NotYet):
        _LOG.info("an example of %s was not answered: %s", entry.name, answer)


def _answer(task: Task, example: Any, parameters: Mapping[str, Any]) -> Any:
    """What ``task`` answers to ``example``, or why it does not."""
    entry = task.entry
    given = entry.tried_with(parameters)
    if task.model.generates and "max_new_tokens" in entry.parameters:
        given |= {"max_new_tokens": 1}
    try:
        entry.require(given)
        task.check_parameters(given)
        prepared = task.prepare([Ask(task.check(example), given)])[0]
        if not isinstance(prepared, Prepared):
            return prepared
        with task.model.running():
            outputs = task.forward([prepared])
        return task.finish(outputs, [prepared])[0]
    except ElementError as error:
        return error
    except Exception as error:
        raise ModelLoadError(
            f"the model cannot answer an example of {entry.name}: {type(error).__name__}: {reason(error)}"
        ) from error


def _examples(task: Task) -> Iterator[Any]:
    """Inputs that models of this kind take; of files several, for a model may refuse one for its shape or length."""
    entry = task.entry
    if entry.modality == "audio":
        yield from map(_tone, (2, 12))
    elif entry.modality == "image" and entry.is_file:
        yield from (_picture(*size) for size in ((256, 224), (512, 512), (640, 480)))
    elif entry.modality == "image":
        picture = base64.b64encode(_picture(256, 224)).decode()
        yield from (
            task.examples(picture, _WORDS)
            if isinstance(task, ImageTextToText)
            else [{"image": picture, "question": _WORDS}]
        )
    elif entry.name == "fill-mask":
        yield f"{_WORDS} {getattr(task, 'tokenizer').mask_token}"  # noqa: B009 (a text task's own)
    else:
        yield _WORDS if entry.small is None or isinstance(entry.small, str) else entry.small


def _picture(width: int, height: int) -> bytes:
    """A picture with edges and shades, as PNG."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([across % 256, down % 256, (across * down) % 256], -1).astype(np.uint8)
    return to_png(Image.fromarray(pixels))


def _tone(seconds: int) -> bytes:
    """A tone that rises in pitch, as WAV."""
    times = np.arange(seconds * 16_000) / 16_000
    samples = (np.sin(2 * np.pi * (200 + 300 * times) * times) * 12_000).astype("<i2")
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return written.getvalue()
