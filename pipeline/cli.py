"""``beam-hf-inference``: every command under one name; each is also ``python -m`` its module.

A command's module is imported only when it runs, so that help and a misspelt command cost no Beam and no Torch.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline import __version__, extras, flags
from pipeline.signals import leave


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module whose ``main(argv)`` returns its exit code, and the extra that carries what it needs."""

    name: str
    module: str
    about: str
    extra: str = ""


COMMANDS = (
    Command("run", "pipeline.main", "run the job, here or on Dataflow"),
    Command("doctor", "pipeline.doctor", "check everything that a launch would need"),
    Command("replay", "pipeline.replay", "send dead letters back to the input topic"),
    Command("summary recount", "pipeline.summary", "count windows anew from the audit table"),
    Command("audit find", "pipeline.find", "the audit rows of messages by an attribute or id"),
    Command("audit erase", "pipeline.erase", "delete a person's rows from the audit table"),
    Command("audit prove", "pipeline.prove", "what became of every message between two times"),
    Command("models check", "pipeline.models.check", "every fault of a models file, by its line"),
    Command("models status", "pipeline.models.status", "which models serve since when, and how they do"),
    Command("capacity", "pipeline.capacity", "how many workers, and the month's bill"),
    Command("bench", "pipeline.emulators.bench", "what a worker does with your model and messages", "local"),
    Command("console", "pipeline.console.__main__", "serve the page that shows a job at work", "console"),
    Command("emulators publish", "pipeline.emulators.publish", "publish messages to the embedded Pub/Sub", "local"),
    Command(
        "emulators pull", "pipeline.emulators.pull", "print and acknowledge what a subscription there has", "local"
    ),
    Command("emulators create", "pipeline.emulators.create", "make what a job's flags name, there", "local"),
    Command("emulators", "pipeline.emulators.__main__", "embedded Pub/Sub and BigQuery on this machine", "local"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that ``argv`` names and returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"beam-hf-inference {__version__}")
        return 0
    command = next((each for each in COMMANDS if each.name.split() == argv[: len(each.name.split())]), None)
    if command is None:
        near = difflib.get_close_matches(" ".join(argv[:2]), [each.name for each in COMMANDS], 1)
        near = near or difflib.get_close_matches(argv[0], [each.name for each in COMMANDS], 1)
        way_out = f"did you mean {near[0]}?" if near else f"use {', '.join(each.name for each in COMMANDS)}"
        # A flag's value may be a secret, and is not shown.
        word = argv[0].partition("=")[0] if argv[0].startswith("-") else argv[0]
        return flags.wrong_usage(flags.UsageError(f"{word!r}: no such command; {way_out}"))
    try:
        run: Callable[[Sequence[str]], int] = importlib.import_module(command.module).main
    except ModuleNotFoundError as error:
        if not command.extra or error.name is None:
            raise
        lacking = extras.lacking(command.name, command.extra, [error.name])
        return flags.wrong_usage(flags.UsageError(lacking))
    return run(argv[len(command.name.split()) :])


def _help() -> str:
    lines = ["usage: beam-hf-inference COMMAND [--FLAG=VALUE ...]", "", "Commands:"]
    lines += [f"  {command.name:<19}{command.about}" for command in COMMANDS]
    lines += ["", "beam-hf-inference COMMAND --help has a command's flags; beam-hf-inference --version the version."]
    lines += ["Exit codes: 0 done, 1 failed, 2 wrong usage."]
    return "\n".join(lines)


def script() -> None:
    """The console script: runs :func:`main` and ends the process with its exit code."""
    try:
        code = main()
    except KeyboardInterrupt:  # while a command's module was being imported
        print("interrupted", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        code = 1  # whoever read the output has read enough
    except OSError as error:
        flags.say_error(str(error))
        code = 1
    leave(code)


if __name__ == "__main__":
    script()
