"""Filters: the one language that every view of the console is narrowed by, and that stands in the page's address.

``label:refund score<0.6 stage:predict customer="Acme Ltd" since:15m -test`` are terms, all of which must hold:
``field:value`` of what the console knows, ``number<value``, ``attribute=value`` of the message's own attributes, a time
range, and words of the input, the label or the error. ``-`` before a term turns it round; quotes keep blanks.
"""

from __future__ import annotations

import datetime
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.console.actions import Refused
from pipeline.console.story import LABEL, Story

#: What ``field:value`` may name, and what it is compared with; the SQL of the audit table is beside it.
FIELDS: dict[str, Callable[[Story], str | None]] = {
    "label": lambda story: story.label,
    "stage": lambda story: story.stage,
    "error": lambda story: story.error_type,
    "reason": lambda story: story.reason,
    "status": lambda story: {"ok": "result", "dead_letter": "dead-letter"}.get(story.status or ""),
    "is": lambda story: story.state,
    "id": lambda story: story.message_id,
    "task": lambda story: story.note("task"),
    "model": lambda story: story.note("model"),
    "revision": lambda story: story.note("model_revision"),
    "variant": lambda story: story.note("variant"),
}
NUMBERS: dict[str, Callable[[Story], float | None]] = {
    "score": lambda story: story.score,
    "latency": lambda story: story.latency_ms,
    "age": lambda story: None if story.ended is None else time.time() - story.ended,
}
TIMES = ("since", "until")
#: Characters of a body that words are looked for in.
_LOOK = 65_536

_TERM = re.compile(
    r"""(?P<not>-)? (?: (?P<key>"(?:[^"\\]|\\.)*"|[^\s"=<>:]+) (?P<op><=|>=|<|>|=|:) )?
    (?P<value>"(?:[^"\\]|\\.)*"|[^\s]+)""",
    re.X,
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Term:
    """One term; ``op`` is empty for words, and ``number`` is there for numbers and times (seconds since the epoch)."""

    key: str
    op: str
    value: str
    negated: bool = False
    number: float | None = None

    def fits(self, story: Story) -> bool:
        return self._fits(story) != self.negated

    def _fits(self, story: Story) -> bool:
        if not self.op:
            return story.message_id == self.value or story.holds(self.value.lower(), _LOOK)
        if self.op == "=":
            return any(m.attributes.get(self.key) == self.value for m in (story.input, story.output) if m is not None)
        if self.op == ":" and self.key in FIELDS:
            known = FIELDS[self.key](story)
            return known is not None and known.lower() == self.value.lower()
        assert self.number is not None
        if self.op == ":":
            return (
                story.ended is not None
                and (story.ended >= self.number) == (self.key == "since")
                and (self.key == "since" or story.ended < self.number)
            )
        found = NUMBERS[self.key](story)
        return (
            found is not None
            and {
                "<": found < self.number,
                "<=": found <= self.number,
                ">": found > self.number,
                ">=": found >= self.number,
            }[self.op]
        )


def parse(text: str) -> list[Term]:
    """The terms of ``text``.

    Raises:
        Refused: a number or a time is none, quotes do not end, or times leave no room; the text says which.
    """
    terms = [_term(found) for found in _TERM.finditer(text)]
    first, last = (
        [term.number for term in terms if term.key == key and term.number is not None and not term.negated]
        for key in TIMES
    )
    if first and last and max(first) >= min(last):
        raise Refused("since: is not before until:, nothing can fit; since:15m until:5m is from 15 to 5 minutes ago")
    return terms


def matcher(text: str) -> Callable[[Story], bool]:
    """Whether a story fits all the terms of ``text``; see :func:`parse`."""
    terms = parse(text)
    return lambda story: all(term.fits(story) for term in terms)


def _term(found: re.Match[str]) -> Term:
    negated = bool(found["not"])
    if found["value"].startswith('"') and not _QUOTED.fullmatch(found["value"]):
        raise Refused(f'{found[0]}: its quotes do not end; a quote to look for is "\\""')
    key, op, value = _unquoted(found["key"] or ""), found["op"] or "", _unquoted(found["value"])
    if op in ("<", "<=", ">", ">=") and key in NUMBERS:
        return Term(key, op, value, negated, _number(key, value))
    if op == ":" and key in TIMES:
        return Term(key, op, value, negated, moment(f"{key}:{value}", value))
    if op == "=" or (op == ":" and key in FIELDS):
        return Term(key, op, value[:LABEL] if (key, op) == ("label", ":") else value, negated)
    # Anything else with a sign in it, such as an address, is words.
    return Term("", "", value if not op else found[0].removeprefix("-"), negated)


def _unquoted(text: str) -> str:
    """``"a \\"b\\" c"`` as ``a "b" c``, and ``\\n`` as a line's end; what is in no quotes as it is."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text[1:-1])


def _number(key: str, text: str) -> float:
    found = re.fullmatch(r"(-?\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d|%)?", text)
    if found is None or not math.isfinite(float(found[1])):
        raise Refused(f"{key}: {text[:40]!r} is no number; use {key}<0.6, or a time such as 500ms, 2s, 5m")
    number, unit = float(found[1]), found[2]
    if unit == "%":
        return number / 100
    if unit is None:
        return number
    return number * _UNITS[unit] * (1000 if key == "latency" else 1)


def moment(shown: str, text: str) -> float:
    """A time as seconds since the epoch: ``5m`` ago, or ISO 8601, in UTC where it has no zone of its own."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)(s|m|h|d)", text)
    if found is not None:
        return time.time() - float(found[1]) * _UNITS[found[2]]
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    iso = f"{today}T{text if found[1] else '0' + text}" if (found := re.match(r"\d(\d?):\d\d", text)) else text
    try:
        when = datetime.datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        raise Refused(f"{shown}: no time; use 15m (ago), 12:30 or 2026-01-31T12:30:00, in UTC") from None
    return (when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)).timestamp()
