"""A worker's SDK processes share one set of models: it is loaded once a machine, and swaps for all of them together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
from models_desk import file
from streams import ROOT, waited


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_two_processes_swap_together(tmp_path: Path) -> None:
    """Both answer under the first version, then both under the second; two loads in all."""
    models = tmp_path / "models.yaml"
    models.write_text(file({"a": tiny.sentiment()}, last="a"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CONTROL_API_SERVICE_DESCRIPTOR": "here",
        "OMP_NUM_THREADS": "1",
    }
    script = str(ROOT / "tests" / "support" / "shared_models.py")
    outs = [tmp_path / "one", tmp_path / "two"]
    processes = [subprocess.Popen([sys.executable, script, str(models), str(out)], env=environment) for out in outs]
    try:
        assert waited(lambda: all(len(lines(out)) > 3 for out in outs))
        models.write_text(file({"b": tiny.topics()}, last="b"))
        assert waited(lambda: all(lines(out)[-1]["variants"] == ["b"] for out in outs))
    finally:
        for out in outs:
            Path(f"{out}.stop").touch()
        codes = [process.wait(120) for process in processes]
    assert codes == [0, 0]
    told = [lines(out) for out in outs]
    assert all(len(line["versions"]) == 1 for each in told for line in each)
    order = [list(dict.fromkeys(line["versions"][0] for line in each)) for each in told]
    assert order[0] == order[1] and len(order[0]) == 2
    loads = sum(line["told"].get("model_loads", 0) for each in told for line in each)
    assert loads <= 2
