"""Samples: what passed a step of the drawing last, and what failed there."""

from __future__ import annotations

from typing import Any

from pipeline.console.book import Book
from pipeline.console.filters import matcher
from pipeline.console.show import letter, summary
from transforms.records import STAGES

#: Rows of each kind.
SHOWN = 6


def at(book: Book, step: str, words: str = "") -> dict[str, Any]:
    """Of ``step`` (input, a stage, output or dead): the newest messages that ``passed`` it, and that ``failed`` there.

    A message that failed later went through it too; one on its way is known to be no further than the input.
    """
    fits = matcher(words)
    cases, _ = book.cases(fits)
    if step == "input":
        return {"passed": [summary(story) for story in book.arrived(SHOWN, fits)], "failed": []}
    results = [summary(story) for story in book.newest("ok", SHOWN, 0, words)[0]] if step != "dead" else []
    place = STAGES.index(step) if step in STAGES else len(STAGES)
    later = [letter(case) for case in cases if case.letter.stage in STAGES[place + 1 :]][:SHOWN]
    failed = [letter(case) for case in cases if step == "dead" or case.letter.stage == step][:SHOWN]
    passed = sorted([*results, *later], key=lambda each: -(each["ended"] or 0.0))[:SHOWN]
    return {"passed": [] if step == "dead" else passed, "failed": failed}
