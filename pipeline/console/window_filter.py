"""The page's filter on window summaries: a time range, a label, and numbers of their own columns."""

from __future__ import annotations

import datetime
import re
from typing import Any

from pipeline.console.actions import Refused
from pipeline.console.filters import Term, parse

_NUMBER = re.compile(r"(?P<key>[a-z]\w*)(?P<op><=|>=|<|>)(?P<value>-?\d+(?:\.\d*)?)")


def narrow(windows: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The windows that fit ``text``; terms about single messages are left to the other views.

    Raises:
        Refused: a number or a time is none.
    """
    terms = parse(text)
    return [window for window in windows if all(_fits(window, term) for term in terms)]


def _fits(window: dict[str, Any], term: Term) -> bool:
    found = _holds(window, term)
    return found is None or found != term.negated


def _holds(window: dict[str, Any], term: Term) -> bool | None:
    """Whether ``window`` is as ``term`` says, turned round or not; None where the term is not about windows."""
    if term.op == ":" and term.key == "since":
        return _seconds(window["window_end"]) > (term.number or 0.0)
    if term.op == ":" and term.key == "until":
        return _seconds(window["window_start"]) < (term.number or 0.0)
    if term.op == ":" and term.key == "label":
        labels = window.get("labels")
        return isinstance(labels, dict) and term.value.lower() in {each.lower() for each in labels}
    found = _NUMBER.fullmatch(term.value) if not term.op else None
    if found is None or found["key"] not in window:
        return None
    value, limit = window[found["key"]], float(found["value"])
    if not isinstance(value, int | float):
        if value is not None:
            raise Refused(f"{found['key']}: no number")
        return False
    return {"<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit}[found["op"]]


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
