"""Messages and settings that once failed, from public reports and fuzzing: ``tests/cases/*.json``."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from transforms.records import Message

_FOLDER = Path(__file__).parents[1] / "cases"


def case(name: str) -> dict[str, Any]:
    """What the file says: its source, what was observed, and what is expected."""
    return json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))


def message(name: str) -> Message:
    """The message of a case."""
    read = case(name)
    return Message(base64.b64decode(read["data_base64"]), read["attributes"])
