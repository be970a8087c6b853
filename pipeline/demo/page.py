"""The demo's page: the console, on the demo's own topics and tables."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console

from pipeline.emulators.process import Server, spawn
from pipeline.emulators.setup import Resources

#: How long the page stays when all is in: the demo ends by itself.
_OPEN_S = 180.0


class Page:
    """The console as a process of its own, while the ``with`` block lasts.

    ``address`` is None where it is not installed. ``flags`` are what the job needs to be seen whole: its metrics, and
    summaries of windows short enough for a demo.
    """

    def __init__(self, resources: Resources, folder: Path, job_flags: Sequence[str]):
        table = resources.audit_table
        metrics = f"--metrics_file={folder / 'metrics.json'}"
        summaries = f"--summary_table={table.project}:{table.dataset}.summary"
        windows = any(flag.startswith("--window") for flag in job_flags)
        self.flags = [metrics] if windows else [metrics, summaries, "--window=fixed:10"]
        self.address: str | None = None
        self._server: Server | None = None
        self._watched = [
            f"--input_topic={resources.input_topic}",
            f"--output_topic={resources.output_topic}",
            f"--dead_letter_topic={resources.dead_letter_topic}",
            f"--audit_table={table.project}:{table.dataset}.{table.table}",
            metrics,
            *([] if windows else [summaries]),
        ]

    def line(self) -> str:
        """What the demo says of it."""
        if self.address is None:
            return "[dim]no page to watch by: pip install -e '.\\[console]'[/]"
        return f"[green]✓[/] open [bold]http://{self.address}[/] to watch, and to type messages of your own"

    def __enter__(self) -> Page:
        if importlib.util.find_spec("uvicorn") and importlib.util.find_spec("starlette"):
            self._server = spawn("pipeline.console", "--port=0", *self._watched)
            self.address = self._server.address
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.stop()


def hold(console: Console, address: str) -> None:
    """Keeps the page open for messages of one's own, and says all the while for how long yet; Ctrl-C ends it."""
    until = time.monotonic() + _OPEN_S
    with contextlib.suppress(KeyboardInterrupt), console.status("") as line:
        while (left := until - time.monotonic()) > 0:
            line.update(
                f"try your own messages at [bold]http://{address}[/]: open for {left:.0f} s yet, or until Ctrl-C"
            )
            time.sleep(1)
