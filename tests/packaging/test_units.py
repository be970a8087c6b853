"""The unit for systemd and the compose file: what they start is the job, and how it ends decides what follows."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess

import pytest
import yaml
from streams import ROOT

from pipeline.options import parse

UNIT = ROOT / "templates" / "systemd" / "beam-hf-inference@.service"


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(UNIT.read_text("utf-8"))
    return found


def test_the_unit_starts_again_after_all_but_a_wrong_flag():
    """Exit code 2 would be the same at each start; a stop is a drain, which has time."""
    service = unit()["Service"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert int(service["RestartSec"]) > 60  # leases of what a dead process held
    assert service["TimeoutStopSec"] == "15min" and service["KillMode"] == "mixed"
    assert service["ExecStart"].endswith("beam-hf-inference run --runner=DirectRunner $FLAGS")


def test_what_must_outlive_the_process_is_in_the_units_state():
    """The journal: a service's own /tmp goes with it."""
    assert "Environment=BEAM_HF_JOURNAL=/var/lib/beam-hf-inference/%i/journal\n" in UNIT.read_text("utf-8")
    assert unit()["Service"]["StateDirectory"] == "beam-hf-inference/%i"


def test_the_example_of_flags_is_a_job():
    """As systemd reads it: one value over several lines, split at blanks."""
    text = (UNIT.parent / "tickets.env").read_text("utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line and not line.startswith("#")]
    name, _, value = line.partition("=")
    settings, _ = parse(["--runner=DirectRunner", *value.split()])
    assert name == "FLAGS" and settings.audit_table is not None


def test_systemd_takes_the_unit(tmp_path):
    """By systemd's own checker, with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    program = shutil.which("true")
    text = UNIT.read_text("utf-8").replace("/opt/beam-hf-inference/bin/beam-hf-inference", str(program))
    copy = tmp_path / "beam-hf-inference@.service"
    copy.write_text(text.replace("/etc/beam-hf-inference/%i.env", str(UNIT.parent / "tickets.env")), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "beam-hf-inference@tickets.service")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not [line for line in done.stderr.splitlines() if "beam-hf-inference@" in line], done.stderr


def test_the_compose_file_starts_a_job_and_gives_up_on_it():
    """Its flags are a job's; Docker cannot tell exit code 2 from 1, so it tries a few times and no more."""
    service = yaml.safe_load((ROOT / "templates" / "compose" / "compose.yaml").read_text("utf-8"))["services"][
        "inference"
    ]
    program, verb, *flags = service["entrypoint"]
    assert (program, verb) == ("beam-hf-inference", "run")
    settings, _ = parse([*flags, *service["command"]])
    assert settings.model and service["restart"] == "on-failure:3" and service["stop_grace_period"] == "15m"
    build = service["build"]
    folder = (ROOT / "templates" / "compose" / build["context"]).resolve()
    assert folder == ROOT and (folder / build["dockerfile"]).exists()
    where = service["environment"]["BEAM_HF_JOURNAL"]
    assert any(where.startswith(volume.partition(":")[2] + "/") for volume in service["volumes"])
    assert shlex.join(flags) == "--runner=DirectRunner"
