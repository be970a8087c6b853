"""The local source is for one minor version of Beam: any other is refused, and never falls back to Beam's own."""

from __future__ import annotations

import re

import apache_beam
import pytest
from streams import ROOT

from pipeline import main
from pipeline.direct import beam

FLAGS = [
    "--input_subscription=projects/my-project/subscriptions/inbox",
    "--output_topic=projects/my-project/topics/results",
    "--dead_letter_topic=projects/my-project/topics/dead",
    "--endpoint=http://127.0.0.1:9",
    "--task=fill-mask",
]


@pytest.mark.parametrize("version", ["2.76.0", "2.78.0", "2.770.0", "2.7.7", "3.0.0"])
@pytest.mark.parametrize("runner", [[], ["--runner=DirectRunner"]])
def test_another_beam_is_refused_before_anything_is_asked(version, runner, monkeypatch, capsys):
    """One line with the version that is there and the command that installs the right one, exit code 2."""
    monkeypatch.setattr(apache_beam, "__version__", version)
    assert main.main([*FLAGS, *runner]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"apache-beam {version}" in line and "pip install 'apache-beam[gcp]~=2.77.0'" in line


@pytest.mark.parametrize("version", ["2.77.0", "2.77.1", "2.77.0rc1"])
def test_its_own_minor_version_is_let_through(version, monkeypatch):
    """A patch release keeps what the source leans on."""
    monkeypatch.setattr(apache_beam, "__version__", version)
    beam.require()


def test_the_installed_beam_is_the_one():
    """What pyproject.toml asks for is what the source was written for, and what these tests run with."""
    (asked,) = re.findall(r'"apache-beam\[gcp\]~=(.*)\.0"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert asked == beam.WRITTEN_FOR
    beam.require()
