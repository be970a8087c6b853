"""What stands in a page's blocks: commands of a shell with their output below, and queries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command as it is pasted, where it stands, and what the page shows below its block."""

    section: str
    text: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.section}: {self.text.split(' --')[0][:60]}"


_BLOCK = re.compile(r"^#+ ([^\n]*)$|^```(?:sh|shell)\n(.*?)^```\n(?:\n?```text\n(.*?)^```\n)?", re.M | re.S)


def commands(page: Path) -> list[Command]:
    """The commands of ``page``, in order: one a line, where a backslash at its end goes on with the next."""
    found, section = [], page.stem
    for heading, block, output in _BLOCK.findall(page.read_text("utf-8")):
        if heading:
            section = heading
            continue
        lines = block.replace("\\\n", " ").splitlines()
        # A comment begins the line, or has two blanks before it.
        texts = [re.sub(r"\s+", " ", re.split(r"^#|\s{2,}#", line)[0]).strip() for line in lines]
        texts = [text for text in texts if text]
        found += [Command(section, text, output if text is texts[-1] else "") for text in texts]
    return found


def queries(page: Path) -> list[str]:
    """The queries of ``page``."""
    return re.findall(r"^```sql\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def shape(text: str) -> str:
    """``text`` without what differs from run to run: numbers, times and hashes."""
    return re.sub(r"\b[0-9a-f]{8,}\b|-?\d[\d.,:e-]*", "#", text)
