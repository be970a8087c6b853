"""What only a job on this machine needs of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pipeline.checks.finding import Finding, flag
from pipeline.options import Settings


def check(settings: Settings) -> Iterator[Finding]:
    """Nothing for a job elsewhere. A port that is taken is a warning: a running job of the same flags may have it."""
    if not settings.local or settings.health_port is None:
        return
    host, port = settings.health_port
    subject = flag("health_port", f"{host}:{port}")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        yield Finding(None, subject, f"is taken: {error.strerror}", "use another, or stop what has it")
    else:
        yield Finding(True, subject, "is free")
