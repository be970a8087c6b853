"""Work beside the messages' way: a thread of its own does it, and whoever hands it over never waits and never fails."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from transforms.barrier import survived
from transforms.errors import BundleError

_LOGGER = logging.getLogger(__name__)

#: What waits at the most; what comes on top is dropped, and said.
MOST_WAITING = 1_000
_PAUSE_S = 5.0


class Aside:
    """Does what it is given in order; a service that is away is waited for, and everything else survived."""

    def __init__(self, most_waiting: int = MOST_WAITING):
        self._waiting: queue.Queue[Callable[[], object]] = queue.Queue(most_waiting)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], object]) -> None:
        """Has ``work`` done some time; it raises a ``BundleError`` if a service is away."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            _LOGGER.error("a window summary is dropped: %d others wait to be written", self._waiting.qsize())

    def close(self, patience_s: float) -> None:
        """Gives what waits ``patience_s`` seconds more; the next :meth:`submit` begins anew."""
        ends = time.monotonic() + patience_s
        while self._waiting.unfinished_tasks and time.monotonic() < ends:
            time.sleep(0.02)
        left = self._waiting.unfinished_tasks
        if left:
            self._closing.set()
            _LOGGER.error("%d window summaries were not written: their table or topic is away", left)

    def _run(self) -> None:
        while True:
            work = self._waiting.get()
            while not self._closing.is_set():
                try:
                    work()
                    break
                except BundleError as error:
                    _LOGGER.warning("window summaries wait: %s", error)
                    self._closing.wait(_PAUSE_S)
                except Exception as error:
                    survived(error, "writing a summary")
                    break
            self._waiting.task_done()


#: The process's own.
ASIDE = Aside()
