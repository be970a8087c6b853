"""``python -m pipeline.doctor``: the flags of ``pipeline.main``, and everything that a launch with them would need.

Prints ✓, ✗ or – (could not be told from here) for each look, with the way out; exits with 0 if nothing is wrong, 1 if
something is, 2 if the flags themselves are (one line on standard error). ``--json`` prints the same for a machine.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import flags
from pipeline.checks import cloud, endpoint, identity, model, permissions, resources, schemas
from pipeline.checks.finding import Finding
from pipeline.flags import Flag, UsageError
from pipeline.options import FLAGS, Settings, parse

_ABOUT = (
    "Checks everything that a launch with these flags would need, and says the way out of whatever is wrong: those of "
    "the job, and Beam's own (--runner, --project, ...). Exit code 1 says that something is to mend."
)
_JSON = Flag("json", "print the findings as JSON, for a machine", switch=True, group="Doctor")
_SIGNS = {True: "✓", False: "✗", None: "–"}


def examine(settings: Settings, options: PipelineOptions) -> Iterator[Finding]:
    """Every look, from who asks to what is asked for."""
    yield from identity.check(options)
    yield from resources.check(settings)
    yield from schemas.check(settings)
    yield from permissions.check(settings, options)
    yield from endpoint.check(settings, options)
    yield from model.check(settings)
    yield from cloud.check(settings, options)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings and returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if flags.wants_help(argv):
        return flags.print_help("doctor", "pipeline.doctor", _ABOUT, [_JSON, *FLAGS])
    logging.basicConfig(level=logging.ERROR)
    as_json = False
    try:
        own, argv = flags.split([_JSON], argv)
        as_json = bool(own)
        settings, options = parse(argv)
    except UsageError as error:
        if as_json:
            _print([Finding(False, "flags", str(error))], as_json)
        return flags.wrong_usage(error)
    findings = list(examine(settings, options))
    _print(findings, as_json)
    return 1 if any(finding.ok is False for finding in findings) else 0


def _print(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
        return
    for finding in findings:
        print(f"{_SIGNS[finding.ok]} {finding.subject}: {finding.found}")
        if finding.way_out:
            print(f"    {finding.way_out}")
    wrong = sum(finding.ok is False for finding in findings)
    print(f"\n{wrong} of {len(findings)} to mend" if wrong else "\nready to launch")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Clients' idle threads have nothing left to do, and must not delay the end.
    os._exit(code)
