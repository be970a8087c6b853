"""Programs that tests need and not everybody has."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def found(program: str) -> str:
    """Path of ``program``, beside this Python or on the path; the test is skipped where it is not installed."""
    path = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path
