"""Parts that are installed on request: what is missing is one line with the command that installs it."""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.flags import UsageError


def need(command: str, extra: str, *modules: str) -> None:
    """Checks, without importing them, that ``modules`` of the optional dependencies ``extra`` are installed.

    Raises:
        UsageError: one is not; its text says what ``command`` lacks and how to install it.
    """
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        raise UsageError(lacking(command, extra, missing))


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # hidden on purpose, or half removed
        return False


def lacking(command: str, extra: str, missing: list[str]) -> str:
    """What to tell who runs ``command`` without the modules ``missing``."""
    needs = f"{command} needs {' and '.join(missing)}"
    if any(module.startswith("pipeline.") for module in missing):
        # Scaffolding of development: no wheel carries it.
        return f"{needs}, which is in a checkout of the repository alone; there, run: pip install -e '.[{extra}]'"
    return f"{needs}; run: pip install 'beam-hf-inference[{extra}]'"
