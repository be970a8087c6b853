"""Summaries: the newest windows of the summary table, each as its newest pane tells it, oldest window first."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.console import audit
from pipeline.matchers import TableName

_WINDOWS = 200
_DECODED = ("JSON", "FLOAT", "FLOAT64")
#: The newest pane of each run holds all that its earlier ones did. A recount is a run of its own.
_NEWEST = (
    "SELECT * FROM `{table}` QUALIFY ROW_NUMBER() OVER (PARTITION BY job, variant, run, window_start, window_end "
    "ORDER BY computed_time DESC, pane_index DESC) = 1 ORDER BY window_start DESC, computed_time DESC LIMIT {most}"
)


def read(table: TableName) -> list[dict[str, Any]]:
    """One entry a window, its JSON columns decoded; one for each run and variant, where a window has several.

    Where a window was counted again from the audit table, only that is shown: it is exact.
    """
    answer = audit.run(table, _NEWEST.format(table=table, most=_WINDOWS))
    names = [column["name"] for column in answer["columns"]]
    windows = [dict(zip(names, row, strict=True)) for row in reversed(answer["rows"])]
    recounted: dict[Any, dict[str, Any]] = {_key(w): w for w in windows if w["pane"] == "recount"}
    kinds = {column["name"]: column["type"] for column in answer["columns"]}
    for window in windows:
        for name, value in window.items():
            if isinstance(value, str) and kinds[name] in _DECODED:
                window[name] = _value(value)
    return [window for window in windows if recounted.get(_key(window), window) is window]


def _value(text: str) -> Any:
    """A JSON column's value; None for what is none, and for a number that JSON does not have."""
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _key(window: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(window[name] for name in ("job", "variant", "window_start", "window_end"))
