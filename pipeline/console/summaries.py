"""Summaries: the newest windows of the summary table, each as its newest pane has it, oldest first."""

from __future__ import annotations

import json
from typing import Any

from pipeline.console import audit
from pipeline.matchers import TableName

_WINDOWS = 200

#: Panes accumulate: the newest holds what those before it held. A recount is exact, and counts before any.
_QUERY = """
SELECT * FROM `{table}`
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY job, variant, window_start, window_end ORDER BY IF(pane = 'recount', 1, 0) DESC, computed_time DESC) = 1
ORDER BY window_start DESC LIMIT {windows}
"""


def read(table: TableName) -> list[dict[str, Any]]:
    """One entry a window, its JSON columns decoded."""
    answer = audit.run(table, _QUERY.format(table=table, windows=_WINDOWS))
    names = [column["name"] for column in answer["columns"]]
    windows = [dict(zip(names, row, strict=True)) for row in reversed(answer["rows"])]
    for window in windows:
        for name, value in window.items():
            if isinstance(value, str) and value[:1] in "[{":
                window[name] = json.loads(value)
    return windows
