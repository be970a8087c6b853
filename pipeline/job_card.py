"""Job card: what a job on this machine says of itself: what serves, since when, its last log lines."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from typing import Any

from pipeline.options import Settings
from transforms.records import ModelInfo

#: Lines that are kept, and characters of one. No line holds what a message held.
LINES = 40
_CHARACTERS = 500
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JobCard(logging.Handler):
    """Hears the process's log lines from when it is made until ``close``."""

    def __init__(
        self, settings: Settings, info: ModelInfo | None, models: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(_FORMAT))
        self._models = models
        self._lines: collections.deque[str] = collections.deque(maxlen=LINES)
        self._job = {
            "name": settings.job,
            "subscription": settings.input_subscription,
            "id_attribute": settings.id_attribute,
            "window": str(settings.window),
            "endpoint": settings.endpoint,
            "models": settings.models,
            "model": info.model if info else settings.model,
            "revision": info.revision if info else settings.revision,
            "task": info.task if info else settings.task,
            "engine": info.engine if info else None,
            "device": f"{info.device}, {info.dtype}" if info else None,
            "summaries": bool(settings.summary_table or settings.summary_topic),
            "started": time.time(),
        }
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record)[:_CHARACTERS])
        except Exception:  # a line that cannot be written must not cost the job anything
            self.handleError(record)

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        super().close()

    def told(self) -> dict[str, Any]:
        """``{"job": …, "log": …}``, as the metrics file has them beside the metrics; what is not known is left out.

        A job with a models file has ``models`` too (:func:`transforms.models.fleet.status.told`).
        """
        job = {key: value for key, value in self._job.items() if value is not None}
        models = {"models": self._models()} if self._models else {}
        return {"job": job, "log": list(self._lines), **models}
