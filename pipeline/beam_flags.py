"""Beam's own flags beside ours: unknown ones are refused, and the runner is one that this job runs on."""

from __future__ import annotations

import argparse
import difflib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from pipeline import flags
from pipeline.flags import UsageError

_LOGGER = logging.getLogger(__name__)

LOCAL_RUNNER, SERVICE_RUNNER = "DirectRunner", "DataflowRunner"
#: Beam's names, as it compares them, for the runners that the job's source and sinks are made for. On any other, Beam's
#: own source would read: it acknowledges messages that are lost then, or finds none and the job ends, exit code 0.
_RUNNERS = {
    "directrunner": LOCAL_RUNNER,
    "bundlebaseddirectrunner": LOCAL_RUNNER,
    "switchingdirectrunner": LOCAL_RUNNER,
    "dataflowrunner": SERVICE_RUNNER,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(_in_our_words(message))


def _in_our_words(message: str) -> str:
    """An error of argparse as ``--flag 'value': cause``."""
    found = re.fullmatch(r"argument (?:-\w, ?)?(--[\w-]+)(?:[/,].*?)?: (.*)", message, re.DOTALL)
    if not found:
        return message
    name, words = found.groups()
    if invalid := re.fullmatch(r"invalid (\w+) value: (.*)", words, re.DOTALL):
        return f"{name} {invalid[2]}: not a valid {invalid[1]}; see Beam's documentation of the flag"
    if choice := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", words, re.DOTALL):
        return f"{name} {choice[1]}: use one of {choice[2]}"
    if words.startswith("expected"):
        return f"{name}: its value is missing; use {name}=VALUE"
    return f"{name}: {words}"


def options(argv: Sequence[str], ours: Sequence[str], names: Iterable[str]) -> PipelineOptions:
    """Beam's options from ``argv``, with streaming on; ``ours`` are the job's flags, which travel along.

    Raises:
        UsageError: a flag is none of Beam's, nor of ``names``; a value is wrong; or the job does not run on the runner.
    """
    _refuse_unknown(argv, names)
    # Streaming must be set before the run, or Dataflow keeps the writes as plain steps. No main session: nothing in
    # the graph lives in __main__, and a pickled one would carry whatever the launcher had there.
    found = PipelineOptions([*argv, *ours], streaming=True, save_main_session=False)
    standard = found.view_as(StandardOptions)
    standard.runner = runner(standard.runner)
    return found


def runner(name: str | None) -> str:
    """Beam's exact name of the runner that ``name`` means, in any case, with or without its ending or its module.

    Raises:
        UsageError: this job does not run there.
    """
    if name is None:
        return LOCAL_RUNNER
    module, _, last = name.rpartition(".")
    if not module or re.match(r"apache_beam\.runners\b", module):
        found = _RUNNERS.get(last.lower()) or _RUNNERS.get(f"{last.lower()}runner")
        if found:
            return found
    near = difflib.get_close_matches(last.lower(), _RUNNERS, 1)
    raise UsageError(
        f"--runner {name!r}: this job's source and sinks are made for {LOCAL_RUNNER} (this machine) and "
        f"{SERVICE_RUNNER}; " + (f"did you mean {_RUNNERS[near[0]]}?" if near else "use one of these")
    )


def is_local(found: PipelineOptions) -> bool:
    """Whether this machine runs the job."""
    return bool(found.view_as(StandardOptions).runner == LOCAL_RUNNER)


def job_name(found: PipelineOptions) -> str | None:
    """``--job_name``, if it is given."""
    name: str | None = found.view_as(GoogleCloudOptions).job_name
    return name


def _refuse_unknown(argv: Sequence[str], ours: Iterable[str]) -> None:
    """Beam drops flags it does not know with a warning; a misspelt one must stop the launch."""
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for each in PipelineOptions.__subclasses__():
        each._add_argparse_args(parser)  # type: ignore[arg-type] # any parser will do
    known, unknown = parser.parse_known_args(list(argv))
    from_template = getattr(known, "template_location", None)
    for word in argv:
        if word.startswith("--") and word.endswith("=") and word.count("=") == 1 and not from_template:
            raise UsageError(f"{word[:-1]} '': is empty; give a value, or leave the flag out")
    if not unknown:
        return
    if from_template:
        # The template service has checked the user's flags against the metadata, and its launcher may add its own.
        names = " ".join(word.partition("=")[0] for word in unknown)
        _LOGGER.warning("left out, as Beam does not know them: %s", names)
        return
    theirs = [option for action in parser._actions for option in action.option_strings]
    raise flags.unknown(unknown[0], [*ours, *theirs])
