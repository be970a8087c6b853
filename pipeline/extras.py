"""Parts that are installed on request: what is missing is one line with the command that installs it."""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.flags import UsageError


def need(command: str, extra: str, *modules: str) -> None:
    """Checks, without importing them, that ``modules`` of the optional dependencies ``extra`` are installed.

    Raises:
        UsageError: one is not; its text says what ``command`` lacks and how to install it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UsageError(lacking(command, extra, missing))


def lacking(command: str, extra: str, missing: list[str]) -> str:
    """What to tell who runs ``command`` without the modules ``missing``."""
    return f"{command} needs {' and '.join(missing)}; run: pip install 'beam-hf-inference[{extra}]'"
