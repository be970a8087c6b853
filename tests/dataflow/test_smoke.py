"""templates/smoke.sh, run against the embedded servers, with the real job in Dataflow's place."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from streams import ROOT

#: What docs/unproven.md says that a run proves: its steps, in order.
STEPS = [
    "tools",
    "services",
    "validate",
    "apply",
    "build",
    "provenance",
    "template",
    "doctor",
    "launch",
    "publish",
    "messages",
    "update",
    "drain",
    "waits",
    "destroy",
]


@dataclass
class Ran:
    """A run: its exit code, its table, and the commands that gcloud and terraform got."""

    code: int
    table: list[tuple[str, str, str]]
    commands: list[str]
    output: str

    def results(self) -> dict[str, str]:
        """Result by step."""
        return {step: result for step, result, _ in self.table if step}

    def failed(self) -> list[str]:
        """What the steps found to be otherwise."""
        return [words for step, result, words in self.table if not step and result == "FAILED"]


def smoke(folder: Path, minilm: str, *arguments: str, broken: str = "", shell: str = "bash", **more: str) -> Ran:
    """Runs the script in a copy of templates/, so that what it keeps does not end in the checkout."""
    programs = folder / "bin"
    programs.mkdir()
    for program in ("gcloud", "terraform"):
        path = programs / program
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/fake_programs.py {program} "$@"\n')
        path.chmod(0o755)
    # The doctor is about Google Cloud, and has its own tests.
    python = programs / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *pipeline.doctor*) exit 0;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("templates", "pipeline", "transforms"):
        (checkout / name).symlink_to(ROOT / name)
    name = f"smoke-{os.getpid()}-{folder.name[-4:].strip('-_')}".lower()[:21]
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "FAKE_STATE": str(folder), "POLL": "0.1"}
    environment |= {"PROJECT": "my-project", "REGION": "r", "NAME": name, "PYTHON": str(python), "MODEL": minilm}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "FAKE_BREAK": broken,
        "WAIT": "60",
        "SETTLE": "3",
        "OMP_NUM_THREADS": "2",
        **more,
    }
    # Through the symlink, whose folder the script takes for its own: cd -P would leave the copy.
    done = subprocess.run(
        [shell, checkout / "templates" / "smoke.sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    table = [(line[:11].strip(), line[12:20].strip(), line[29:].strip()) for line in done.stdout.splitlines()]
    begins = next((n for n, (step, result, _) in enumerate(table) if (step, result) == ("step", "result")), len(table))
    commands = folder / "commands"
    listed = commands.read_text().splitlines() if commands.exists() else []
    return Ran(done.returncode, table[begins + 1 :], listed, done.stdout + done.stderr)


def test_all_is_proved(servers, minilm, tmp_path):
    """Against a job that keeps its promise every step passes, in order, and all that was made is destroyed."""
    shell = os.environ.get("BASH_3_2", "bash")
    ran = smoke(tmp_path, minilm, "-var", "private_network=true", shell=shell)
    assert ran.code == 0, ran.output
    assert list(ran.results()) == STEPS and set(ran.results().values()) == {"ok"}
    words = "\n".join(words for step, result, words in ran.table if not step and result == "ok")
    for proved in (
        "7 results, one for each text",
        "bad: one dead letter of stage decode",
        "picture: one dead letter of stage predict",
        "came back untouched",
        "the repeat was dropped",
        "9 message ids, 0 of them empty",
        "9 audit rows for 9 messages, 0 missing",
        "one more message became 1 result",
        "after the drain a message stays in the subscription",
    ):
        assert proved in words, proved
    assert re.search(r"picture: its 8,0\d\d,\d{3} bytes", words)
    verbs = [shlex.split(command) for command in ran.commands]
    terraform = [
        next(a for a in command[1:] if not a.startswith("-")) for command in verbs if command[0] == "terraform"
    ]
    assert terraform == ["version", "init", "validate", "apply", "output", "output", "destroy"]
    for command in verbs:
        if "apply" in command or "destroy" in command:
            assert "-var=throwaway=true" in command and "private_network=true" in command
            assert any(argument.startswith("-state=") for argument in command)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "step", "words"),
    [
        ("build", "build", ""),
        ("launch", "launch", ""),
        ("repeats", "messages", "the repeat was dropped: text-1 ended 2 times"),
    ],
)
def test_a_fault_is_found_and_all_is_still_destroyed(servers, minilm, tmp_path, broken, step, words):
    """A step that fails is named, those after it are skipped, the job is cancelled, and Terraform still destroys."""
    ran = smoke(tmp_path, minilm, broken=broken)
    assert ran.code == 1, ran.output
    results = ran.results()
    assert results[step] == "FAILED" and results["destroy"] == "ok"
    after = STEPS[STEPS.index(step) + 1 : -1]
    assert {results[name] for name in after} == {"skipped"}
    assert words in ran.failed() if words else ran.failed() == []
    assert ("cancel" in results) is (broken != "build")


@pytest.mark.slow
def test_a_job_that_never_runs_is_given_up(servers, minilm, tmp_path):
    """A job that stays queued fails its step once WAIT is over."""
    ran = smoke(tmp_path, minilm, broken="stuck", WAIT="1")
    assert ran.code == 1 and ran.results()["launch"] == "FAILED" and "JOB_STATE_QUEUED after 1 s" in ran.output


@pytest.mark.slow
def test_what_could_not_be_destroyed_is_said(servers, minilm, tmp_path):
    """At least once a repeat may stay. Where destroying fails, the table has the command that does it by hand."""
    ran = smoke(tmp_path, minilm, broken="destroy", MODE="at_least_once")
    results = ran.results()
    assert ran.code == 1 and results.pop("destroy") == "FAILED" and ran.failed() == []
    assert set(results.values()) == {"ok"} and "repeats may stay: text-1 ended 2 times" in ran.output
    assert re.search(r"by hand: .*terraform .*destroy -state=\S+ .*-var=throwaway=true", ran.output)


def test_smoke_refuses_without_a_project(tmp_path, minilm):
    """Nothing is made where it is not said in which project."""
    ran = smoke(tmp_path, minilm, PROJECT="")
    assert ran.code == 2 and "set PROJECT and REGION" in ran.output and ran.commands == []


def test_what_is_unproven_names_its_step():
    """Each line of the documentation's list names a step of the script, and each step that proves has a line."""
    section = (ROOT / "docs" / "unproven.md").read_text("utf-8")
    named: set[str] = set()
    for line in re.findall(r"^\| (?!Unproven|-)(.*) \|$", section, re.M):
        steps = set(re.findall(r"\w+", line.rpartition(" | ")[2])) & set(STEPS)
        assert steps or "the same, with" in line, line
        named |= steps
    assert named == set(STEPS) - {"tools", "publish"}
    script = (ROOT / "templates" / "smoke.sh").read_text("utf-8")
    assert re.findall(r"^ +step (\w+) ", script, re.M) == STEPS
