"""``beam-hf-inference models check FILE``: every fault of a models file, each with its line.

Needs neither the models nor a network where the file and its checks are on this machine. Exit codes: 0 sound, 1 it
cannot be told now (a bucket does not answer), 2 not sound.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from pipeline import flags
from pipeline.command import command
from pipeline.flags import Flag, UsageError
from transforms.models.errors import ModelLoadError, Unreachable
from transforms.models.fleet import checks, source
from transforms.models.fleet.file import FileErrors, ModelsFile, parse

_ABOUT = (
    "Reads FILE, on this machine or in gs://, and the checks that it names, and prints every fault with its line."
    " Whether the models are there and load is the doctor's to say, with --models=FILE and the job's other flags."
)
#: Given without its name: ``models check FILE``.
_FILE = Flag("file", "the models file; its name alone does too: models check FILE", required=True, group="Models")


@command
def main(argv: Sequence[str]) -> int:
    """Prints what is wrong and returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("models check", "pipeline.models.check", _ABOUT, [_FILE])
    if len(argv) == 1 and not argv[0].startswith("-"):
        argv = [f"--file={argv[0]}"]
    try:
        where = flags.read([_FILE], argv)["file"]
        file = parse(source.read(where), where)
    except UsageError as error:
        return flags.wrong_usage(error)
    except FileErrors as errors:
        print("\n".join(errors.lines()), file=sys.stderr)
        return 2
    except ModelLoadError as error:
        flags.wrong_usage(error)
        return 1 if isinstance(error, Unreachable) else 2
    found = list(_checks(file, where))
    for each in found:
        print(each, file=sys.stderr)
    if found:
        return 1 if all(isinstance(each, Unreachable) for each in found) else 2
    print(f"{where} is sound: {_many(len(file.models), 'model')}, {_many(len(file.routes.rules), 'rule')}")
    return 0


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _checks(file: ModelsFile, where: str) -> Iterator[ModelLoadError]:
    for check in file.checks.values():
        try:
            checks.read(check, where)
        except ModelLoadError as error:
            yield error


if __name__ == "__main__":
    sys.exit(main())
