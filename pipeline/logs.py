"""Log lines: for a person, or as the JSON objects that Cloud Logging reads."""

from __future__ import annotations

import json
import logging
import os

from transforms.encode import rfc3339

#: What a record may carry beside its message, by ``extra=``; never what a message held.
FIELDS = ("message_id", "trace_id", "stage", "error_type", "status")

# Beam says something of every batch and of every type hint it does not need.
_CHATTY = ("apache_beam.transforms.util", "apache_beam.typehints", "apache_beam.ml.inference", "httpx", "httpx2")


class JsonFormatter(logging.Formatter):
    """One object a line (https://cloud.google.com/logging/docs/structured-logging), with message id and trace."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "severity": record.levelname,
            "time": rfc3339(record.created),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name in FIELDS if (value := getattr(record, name, None)) is not None},
        }
        project = os.environ.get("GOOGLE_CLOUD_PROJECT")
        if "trace_id" in line:
            line["logging.googleapis.com/trace"] = (
                f"projects/{project}/traces/{line['trace_id']}" if project else line["trace_id"]
            )
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(log_format: str = "text") -> None:
    """Sets the process's log lines up as ``text`` or ``json``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It shows the text of whatever a step raises, which may quote a message; halving.py says the same without.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    # It shows a traceback for each try of a bundle. halving.py says what matters of one, the last line why a job ends.
    logging.getLogger("apache_beam.runners.direct.executor").setLevel(logging.CRITICAL)
