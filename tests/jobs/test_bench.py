"""bench: one's own messages through the real job with one's own model, measured, and what wrong usage of it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from streams import ROOT

from pipeline.emulators import bench


@pytest.mark.slow  # it measures
def test_own_messages_are_measured(minilm, tmp_path):
    """A rate, latencies, bytes, the dead letters, and the capacity command with the same figures."""
    file = tmp_path / "messages.jsonl"
    file.write_text('{"inputs": "Where is my parcel?"}\n{"inputs": 17}\n')
    flags = [f"--messages={file}", "--count=40", f"--model={minilm}", "--task=feature-extraction"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.emulators.bench", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (rate,) = re.findall(r"^messages a second +([\d.]+)$", done.stdout, re.M)
    assert float(rate) > 0 and f"--per_worker={rate} " in done.stdout
    assert "dead letters        20 of 40, such as: " in done.stdout


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("\n", "is empty")])
def test_messages_that_are_none_are_one_line(text, words, tmp_path, capsys):
    """A file that is not there, or has no line: exit code 2."""
    file = tmp_path / "messages"
    if text is not None:
        file.write_text(text)
    assert bench.main([f"--messages={file}", "--model=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and line.endswith("use a file with a message a line" if text is None else "a message a line")
