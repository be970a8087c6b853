"""Summaries: the newest rows of the summary table, oldest window first."""

from __future__ import annotations

import json
from typing import Any

from pipeline.console import audit
from pipeline.matchers import TableName

_WINDOWS = 200


def read(table: TableName) -> list[dict[str, Any]]:
    """One entry a window, its JSON columns decoded."""
    answer = audit.run(table, f"SELECT * FROM `{table}` ORDER BY window_start DESC LIMIT {_WINDOWS}")
    names = [column["name"] for column in answer["columns"]]
    windows = [dict(zip(names, row, strict=True)) for row in reversed(answer["rows"])]
    for window in windows:
        for name, value in window.items():
            if isinstance(value, str) and value[:1] in "[{":
                window[name] = json.loads(value)
    return windows
