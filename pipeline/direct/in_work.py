"""What was taken from a subscription and is not done with, and what is said of it if that lasts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from transforms.records import Message

_LOGGER = logging.getLogger(__name__)

#: A bundle in work for this long is said to be slow, again and again.
SLOW_S = 300.0


class InWork:
    """The bundle in work; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0
        self.oldest: float | None = None
        self._taken = time.monotonic()
        self._warned = 0.0

    def begin(self, bundle: Sequence[Message]) -> None:
        """``bundle`` is taken, and what was before it is done with."""
        with self._lock:
            self._taken, self.count = time.monotonic(), len(bundle)
            self.oldest = min((message.publish_time for message in bundle), default=None)

    def done(self, count: int) -> None:
        """``count`` messages are done with."""
        with self._lock:
            self.count = max(0, self.count - count)

    def warn_if_slow(self) -> None:
        """Says so, if it has been in work for long; to be called from time to time."""
        with self._lock:
            count, since = self.count, time.monotonic() - self._taken
        if count and since > self._warned + SLOW_S:
            self._warned = since
            _LOGGER.warning(
                "%d messages have been in work for %.0f s: a sink is down or the model hangs; nothing is lost if"
                " the job is ended (SIGTERM twice), they are then delivered again",
                count,
                since,
            )
        elif since < self._warned:
            self._warned = 0.0
