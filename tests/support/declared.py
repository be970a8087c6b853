"""What pyproject.toml declares, read from the file: what is installed may be of another day."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from streams import ROOT

_TEXT = (ROOT / "pyproject.toml").read_text("utf-8")


def requirements(name: str = "dependencies") -> list[Requirement]:
    """The base's dependencies, or those of the extra ``name``."""
    (block,) = re.findall(rf"^{name} = \[(.*?)\]\n(?=\w|#|\n|\[)", _TEXT, re.S | re.M)
    lines = [line for line in block.splitlines() if not line.strip().startswith("#")]
    return [Requirement(text) for text in re.findall(r'"([^"]+)"', "\n".join(lines))]
