"""Services that a job waits for: one line when one is away, and one when it is back, with what was held."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator

_LOGGER = logging.getLogger("pipeline")

#: A request that fails for less long than this is tried again, and nothing is said of it.
SAY_AFTER_S = 3.0
#: A request without any answer for so long is one to a service that is away.
SILENT_S = 15.0


class Service:
    """One table, topic or subscription, as its requests tell of it; safe to use from several threads.

    ``what`` are the things that a request writes or reads.
    """

    def __init__(self, name: str, what: str):
        self.name = name
        self._what = what
        self._lock = threading.Lock()
        self._under_way: dict[object, tuple[float, int]] = {}
        self._since: float | None = None
        self._held = 0
        self._said = False

    @contextlib.contextmanager
    def request(self, count: int) -> Iterator[Callable[[BaseException], None]]:
        """A request about ``count`` things, tries and all; yields what to call with the error of each try that failed.

        A block that raises has given up, and the service is still away.
        """
        key = object()
        with self._lock:
            self._under_way[key] = (time.monotonic(), count)
        try:
            yield functools.partial(self._failed, key)
        except BaseException:
            with self._lock:
                del self._under_way[key]
            raise
        self._worked(key)

    def failed(self, words: str) -> None:
        """Something else than a request says that the service is away: a stream, say."""
        self._away(time.monotonic(), words)

    def worked(self) -> None:
        """Something else than a request says that the service is there."""
        self._worked(None)

    def _failed(self, key: object, error: BaseException) -> None:
        with self._lock:
            began, _ = self._under_way[key]
        self._away(began, " ".join(str(getattr(error, "message", None) or error).split())[:300])

    def _away(self, began: float, words: str) -> None:
        with self._lock:
            self._since = began if self._since is None else self._since
            self._held = max(self._held, sum(count for _, count in self._under_way.values()))
            if self._said or time.monotonic() - self._since < SAY_AFTER_S:
                return
            self._said, held = True, self._holds()
        _LOGGER.warning("%s is away: %s; %stried again until it is back", self.name, words, held)

    def _worked(self, key: object) -> None:
        with self._lock:
            self._under_way.pop(key, None)
            since, said, held = self._since, self._said, self._holds()
            self._since, self._said, self._held = None, False, 0
        if since is not None and said:
            waited = time.monotonic() - since
            _LOGGER.warning("%s is back after %.0f s%s", self.name, waited, held and f"; {held.rstrip(', ')}")

    def _holds(self) -> str:
        return f"{self._held:,} {self._what} held, " if self._held else ""

    def away_s(self) -> float:
        """How long it has been away, 0 while it is there; a request without an answer counts as it ages."""
        now = time.monotonic()
        with self._lock:
            failing = now - self._since if self._since is not None else 0.0
            silent = now - min((began for began, _ in self._under_way.values()), default=now)
        return max(failing if failing >= SAY_AFTER_S else 0.0, silent if silent >= SILENT_S else 0.0)


_services: dict[str, Service] = {}


def service(name: str, what: str) -> Service:
    """The process's one :class:`Service` of ``name``."""
    return _services.setdefault(name, Service(name, what))


def away() -> dict[str, float]:
    """The services that are away, and for how many seconds."""
    return {name: seconds for name, each in list(_services.items()) if (seconds := each.away_s())}
