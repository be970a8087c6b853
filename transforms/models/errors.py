"""What can be wrong with one element, and what can be wrong with a model.

The name of an ``ElementError`` becomes ``error_type`` in the dead letter, its text becomes ``error``.
"""

from __future__ import annotations

import reprlib

from transforms.errors import BundleError, MessageError, quoted


class ModelLoadError(BundleError, ValueError):
    """The model cannot be used as asked; its message is one line that names the value, the cause and the way out.

    A field that it names stands in backquotes, alone or with its value, as in "`dtype=int8`: must be auto, float32".
    Who sets the fields by other names, as a program does by its flags, can so put these in their place.
    """


class Unreachable(ModelLoadError):
    """The model may be as it should: where it comes from cannot be asked now, and can be asked again."""


class Changed(ModelLoadError):
    """The files are no longer those that were asked for."""


class ElementError(MessageError):
    """One element cannot be answered; every other element of its batch still is."""


class InvalidInput(ElementError):
    """``inputs`` is not what the task takes."""


class InvalidParameter(ElementError):
    """``parameters`` has a name or a value that the task does not take."""


class TooLong(ElementError):
    """The input is over the model's maximum, and cutting it was not wanted."""


class NonFinite(ElementError):
    """The model's output holds NaN or infinity."""


class InvalidAnswer(ElementError):
    """The model's answer is not what ``parameters.response_format`` asks for."""


class OutOfMemory(ElementError):
    """The element alone does not fit into memory."""


class TimeLimit(ElementError):
    """The element was not finished within its time limit."""


class ModelError(ElementError):
    """The model raised on this element alone."""


class Unexpected(ElementError):
    """What nobody foresaw, on this element alone; :func:`transforms.barrier.tell` has logged it."""


class KilledWorker(ElementError):
    """The process died with this element in the model, and not only once."""


def foreign(words: str) -> str:
    """Another program's ``words`` for a ``ModelLoadError``, where only our own fields stand in backquotes."""
    return words.replace("`", "'")


def reason(error: BaseException) -> str:
    """What ``error`` says, in one line: its first, with the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((place for place, line in enumerate(lines) if not line.endswith(":")), 0)
    return cut(" ".join(lines[: said + 1]), 300)


class NotYet:
    """No error: what is in memory already is enough, and the element is to be prepared with the next ones."""


class StorageUnavailable(BundleError):
    """Cloud Storage did not answer for too long. No element is to blame: the bundle fails and is delivered again."""


def brief(value: object) -> str:
    """``value`` as an error message shows it, marked as the message's own: its repr, at most 200 characters."""
    return quoted(cut(_BRIEF.repr(value), 200))


def cut(text: str, most: int = 80) -> str:
    """``text``, at most ``most`` characters of it: what comes from a message or a library may be of any length."""
    return text if len(text) <= most else text[: most - 1] + "…"


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80
_BRIEF.maxlevel = 3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that host or device memory ran out, in any of the ways that Python and torch say it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def is_device_lost(error: BaseException) -> bool:
    """Whether the device is unusable from here on, so that no element can be blamed and the bundle must fail."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error) and not is_out_of_memory(error)
