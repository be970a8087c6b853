"""``python -m pipeline.doctor``: the flags of ``pipeline.main``, and everything that a launch with them would need.

Prints ✓, ✗, ! (worth a look) or – (not told from here) for each look, with the way out; exits with 0 if nothing is
wrong, 1 if something is, 2 if the flags themselves are (one line on standard error). ``--json`` prints the same for a
machine.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import clients, flags
from pipeline.checks import cloud, endpoint, identity, machine, model, permissions, resources, schemas
from pipeline.checks.finding import Finding
from pipeline.command import command
from pipeline.flags import Flag, UsageError
from pipeline.options import FLAGS, Settings, parse
from pipeline.signals import leave

_ABOUT = (
    "Checks everything that a launch with these flags would need, and says the way out of whatever is wrong: those of "
    "the job, and Beam's own (--runner, --project, ...). Exit code 1 says that something is to mend."
)
_JSON = Flag("json", "print the findings as JSON, for a machine", switch=True, group="Doctor")

#: What no look from here can tell.
_NOT_LOOKED_AT = {
    True: "the messages themselves: the first dead letters would say whether they are what the task takes",
    False: "the workers' network, disk and image, and the messages themselves: only a launch would tell",
}


def examine(settings: Settings, options: PipelineOptions) -> Iterator[Finding]:
    """Every look, from who asks to what is asked for."""
    yield from identity.check(options)
    yield from resources.check(settings)
    yield from schemas.check(settings)
    yield from permissions.check(settings, options)
    yield from endpoint.check(settings, options)
    yield from model.check(settings)
    yield from machine.check(settings)
    yield from cloud.check(settings, options)


def once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """``findings`` with each cause told once, by the first that names it, and what it kept from being looked at."""
    causes: dict[str, Finding] = {}
    spoilt: dict[str, dict[str, None]] = {}
    others = []
    for finding in findings:
        first = causes.get(finding.cause)
        if finding.cause and first is not None:
            if finding.subject != first.subject:
                spoilt[finding.cause][finding.subject] = None
            continue
        if finding.cause:
            causes[finding.cause], spoilt[finding.cause] = finding, {}
        others.append(finding)
    for finding in others:
        yield finding
        if subjects := spoilt.get(finding.cause):
            yield Finding(None, "not looked at, for the same cause", ", ".join(subjects))


@command
def main(argv: Sequence[str]) -> int:
    """Prints the findings and returns the exit code."""
    if flags.wants_help(argv):
        return flags.print_help("doctor", "pipeline.doctor", _ABOUT, [_JSON, *FLAGS])
    logging.basicConfig(level=logging.ERROR)
    as_json = False
    try:
        own, argv = flags.split([_JSON], argv)
        as_json = bool(own)
        settings, options = parse(argv)
        for name in clients.EMULATORS:
            clients.emulator(name)
    except UsageError as error:
        if as_json:
            _print([Finding(False, "flags", str(error))], as_json)
        return flags.wrong_usage(error)
    findings = list(once(examine(settings, options)))
    findings.append(Finding(None, "not looked at", _NOT_LOOKED_AT[settings.local]))
    _print(findings, as_json)
    return 1 if any(finding.ok is False for finding in findings) else 0


def _print(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
        return
    for finding in findings:
        print(f"{_sign(finding)} {finding.subject}: {finding.found}")
        if finding.way_out:
            print(f"    {finding.way_out}")
    wrong = sum(finding.ok is False for finding in findings)
    print(f"\n{wrong} of {len(findings)} to mend" if wrong else "\nready to launch")


def _sign(finding: Finding) -> str:
    return "✗" if finding.ok is False else "✓" if finding.ok else "!" if finding.way_out else "–"


if __name__ == "__main__":
    leave(main())
