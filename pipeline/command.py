"""How every command ends: 0 done, 1 failed, 2 wrong usage; what lies outside of this code is one line, no traceback."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline import __version__, clients, flags


class Entry(Protocol):
    """A command's ``main``: with the process's own arguments, or with others."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class Failed(Exception):
    """The command cannot go on, and no flag is wrong: exit code 1."""


def print_version() -> int:
    """Prints the package's version; returns 0."""
    print(f"beam-hf-inference {__version__}")
    return 0


def _leave_output() -> None:
    """What is left of the output goes nowhere if nobody takes it: the end of the process would fail of it again."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(run: Callable[[Sequence[str]], int]) -> Entry:
    """Decorator of a command's ``main``, which is given its arguments and returns its exit code."""

    @functools.wraps(run)
    def main(argv: Sequence[str] | None = None) -> int:
        argv = list(sys.argv[1:] if argv is None else argv)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal of another alphabet gets ? for what it has not
        try:
            code = print_version() if argv == ["--version"] else run(argv)
            if sys.stdout:  # there is none where it was closed
                sys.stdout.flush()
            return code
        except flags.UsageError as error:
            return flags.wrong_usage(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        except BrokenPipeError:
            pass  # whoever read the output has read enough
        except (Failed, *clients.API_ERRORS, OSError) as error:
            flags.say_error(clients.words(error))
        _leave_output()
        return 1

    return main
