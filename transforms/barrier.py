"""The barrier around every element of every step: what nobody foresaw costs one message, loudly, and no other.

In a stream a bug that crashes is a message that wedges: it is delivered again, and crashes again. So any exception is
that element's ``Failure``, but for the ones that cannot be its fault: :class:`transforms.errors.BundleError`.
"""

from __future__ import annotations

import collections
import logging
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from transforms.errors import BundleError, MessageError
from transforms.records import Failure, Message, ModelInfo

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

#: ``error_type`` of what nobody foresaw.
UNEXPECTED = "Unexpected"

#: Unexpected errors that no metric has told of yet, by stage: they may happen on threads that have no bundle.
unexpected_errors: collections.Counter[str] = collections.Counter()


def guarded(
    work: Callable[[T], R], element: T, message: Message, stage: str, model: ModelInfo | None = None
) -> R | Failure:
    """``work(element)``, or the ``Failure`` of ``message`` at ``stage`` if it raises.

    Raises:
        BundleError: it is not this element's fault.
    """
    try:
        return work(element)
    except BundleError:
        raise
    except Exception as error:
        return failure(error, message, stage, model)


def failure(error: Exception, message: Message, stage: str, model: ModelInfo | None = None) -> Failure:
    """``message``'s failure by ``error``, which is told in the log if it is not a :class:`MessageError`."""
    if isinstance(error, MessageError):
        return Failure(message, stage, type(error).__name__, str(error), time.time(), model, error.redacted())
    words = tell(error, stage, message.message_id)
    return Failure(message, stage, UNEXPECTED, words, time.time(), model)


def tell(error: BaseException, stage: str, message_id: str = "") -> str:
    """Logs and counts an error that nobody foresaw; returns what its dead letter says.

    Neither holds the error's own text, which may quote the message: its type and where it was raised do.
    """
    unexpected_errors[stage] += 1
    name, frames = without_text(error)
    words = f"{name}: an error that the pipeline did not expect; its traceback is in the log"
    _LOGGER.error(
        "unexpected %s at stage %s; only message %r is dead-lettered\n%s",
        type(error).__name__,
        stage,
        message_id,
        frames,
        extra={"message_id": message_id, "stage": stage, "error_type": UNEXPECTED},
    )
    return words


def survived(error: BaseException, what: str) -> None:
    """Logs and counts an error beside the messages' way, such as of a summary: it costs no message anything."""
    unexpected_errors["summary"] += 1
    kind, trace = without_text(error)
    _LOGGER.error("unexpected %s while %s; no message is held up by it\n%s", kind, what, trace)


def without_text(error: BaseException) -> tuple[str, str]:
    """What ``error`` is and where it was raised, and its traceback: all but its own text, which may quote a message."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rpartition('site-packages/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}", "".join(traceback.format_list(frames)).rstrip()
