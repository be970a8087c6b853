"""The two kinds of error there are: what is one message's fault, and what cannot be.

A step's barrier (:mod:`transforms.barrier`) turns the first kind, and any exception that nobody foresaw, into that
message's ``Failure``. Only the second kind fails a bundle, so that its messages are delivered again.
"""

from __future__ import annotations

import re

#: Around what an error says in the words of somebody else: a message's value, a library's or a server's text. Two of
#: Unicode's noncharacters, which no text carries.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_QUOTED = re.compile(f"{_OPEN}[^{_OPEN}{_CLOSE}]*{_CLOSE}")


class MessageError(Exception):
    """One message is at fault: it becomes a dead letter, and all others go on.

    The class's name is the dead letter's ``error_type`` and the text its ``error``. What :func:`quoted` marks in the
    text is shown there, and left out of :meth:`redacted`.
    """

    def __str__(self) -> str:
        return _plain(super().__str__())

    def redacted(self) -> str:
        """The text without what came from a message, for those who must not see it."""
        return _plain(_QUOTED.sub("…", super().__str__()))


class BundleError(Exception):
    """No single message is at fault: a service is away, the device is lost. The bundle fails and is tried again."""

    def __str__(self) -> str:
        return _plain(super().__str__())


class SinkUnavailable(BundleError):
    """A topic or table cannot be written to, and waiting for it did not help."""


def quoted(text: str) -> str:
    """``text``, marked as somebody else's words."""
    return f"{_OPEN}{_plain(text)}{_CLOSE}"


def _plain(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")
