"""``python -m pipeline.console``: serves the page on 127.0.0.1 until interrupted."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence

from pipeline import extras, flags
from pipeline.command import command
from pipeline.console.settings import ABOUT, FLAGS, parse
from pipeline.flags import UsageError
from pipeline.signals import on_stop


@command
def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 stopped, 2 wrong usage."""
    if flags.wants_help(argv):
        return flags.print_help("console", "pipeline.console", ABOUT, FLAGS)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = parse(argv)
        extras.need("console", "console", "starlette", "uvicorn", "sqlglot")
        listener = _listen(settings.port)
    except UsageError as error:
        return flags.wrong_usage(error)
    # The web server is an extra: help and wrong usage must do without.
    import uvicorn

    from pipeline.console.app import Console
    from pipeline.console.observer import Observer

    observer = Observer(settings)
    console = Console(observer)
    server = uvicorn.Server(
        uvicorn.Config(console.application(), log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    )

    console.stopping = lambda: server.should_exit

    def stop() -> None:
        server.should_exit = True

    # Before the lines that say it is up: what ends it at once after them must find it listening.
    on_stop(stop, settings.exit_with_parent)
    observer.start()
    # The first line is for a parent process, the second for a person.
    print(f"CONSOLE=127.0.0.1:{listener.getsockname()[1]}")
    print(f"open http://127.0.0.1:{listener.getsockname()[1]}; Ctrl-C stops", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        observer.close()
    return 0


def _listen(port: int) -> socket.socket:
    """A socket on loopback, and nowhere else."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; use another, or 0 for any free one") from None
    return listener


if __name__ == "__main__":
    sys.exit(main())
