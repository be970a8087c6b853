"""Cases: the dead letters as a person works through them, a failure and its replays being one case."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.console.story import Story

WAITING, REPLAYED, MENDED, DISMISSED = "waiting", "replayed", "mended", "dismissed"


@dataclass(slots=True)
class Case:
    """One message that failed, under the id of its first failure; ``letter`` is its newest dead letter.

    ``number`` says when it came in, so that a list can stand still; a failure of its replay changes nothing about that.
    """

    root: str
    number: int
    letter: Story
    steps: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""

    @property
    def state(self) -> str:
        return self.letter.state or WAITING


class Cases:
    """All cases by root. The caller holds the lock."""

    def __init__(self) -> None:
        self._cases: collections.OrderedDict[str, Case] = collections.OrderedDict()
        self.number = 0

    def failed(self, story: Story) -> bool:
        """A dead letter came; whether it is a new case."""
        story.state = WAITING
        step = {"what": "failed", "time": story.ended, "message_id": story.message_id, "words": story.error}
        step |= {"stage": story.stage, "error_type": story.error_type}
        case = self._cases.get(story.root())
        if case is None:
            self.number += 1
            self._cases[story.root()] = Case(story.root(), self.number, story, [step])
            return True
        if case.letter.message_id != story.message_id:
            case.letter.state = REPLAYED
        elif case.steps[-1]["what"] == "failed":  # the same failure, published again after a crash
            case.steps.pop()
        case.letter = story
        case.steps.append(step)
        return False

    def replayed(self, story: Story, new_id: str, when: float, edited: bool) -> None:
        """``story`` was published again as ``new_id``, which may have ended before this is told."""
        case = self._cases.get(story.root())
        if case is None:
            return
        step = {"what": "edited and replayed" if edited else "replayed", "time": when, "message_id": new_id}
        after = next((i for i, each in enumerate(case.steps) if each.get("message_id") == new_id), None)
        if after is None:
            story.state = REPLAYED
        case.steps.insert(len(case.steps) if after is None else after, step)

    def ended_well(self, story: Story) -> None:
        """A result came: if it is that of a replay, its case is mended."""
        case = self._cases.get(story.root())
        if case is not None and case.letter.state != MENDED:
            case.letter.state = MENDED
            step = {"what": "became a result", "time": story.ended, "message_id": story.message_id}
            case.steps.append({**step, "label": story.label})

    def dismiss(self, roots: Iterable[str], why: str, when: float) -> int:
        """Takes waiting cases off the list, for a reason; without one, puts dismissed ones back. Says how many."""
        done = 0
        before, after = (WAITING, DISMISSED) if why else (DISMISSED, WAITING)
        for root in roots:
            case = self._cases.get(root)
            if case is not None and case.state == before:
                case.letter.state, case.why = after, why
                case.steps.append({"what": after if why else "put back", "time": when, "words": why})
                done += 1
        return done

    def forget(self, story: Story) -> None:
        case = self._cases.get(story.root())
        if case is not None and case.letter is story:
            del self._cases[case.root]

    def get(self, root: str) -> Case | None:
        return self._cases.get(root)

    def find(self, fits: Callable[[Story], bool], until: int | None = None) -> list[Case]:
        """Cases that fit, the newest first; none that came in after number ``until``."""
        return [
            case
            for case in reversed(self._cases.values())
            if (until is None or case.number <= until) and fits(case.letter)
        ]

    def counts(self) -> dict[str, int]:
        return dict(collections.Counter(case.state for case in self._cases.values()))

    def groups(self, cases: Iterable[Case]) -> list[dict[str, Any]]:
        """``cases`` by stage, kind of error and reason, the largest group first."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for case in cases:
            letter = case.letter
            key = (letter.stage or "", letter.error_type or "", letter.reason or "")
            group = found.setdefault(
                key, {"stage": key[0], "error_type": key[1], "reason": key[2], "count": 0, WAITING: 0, "last": 0.0}
            )
            group["count"] += 1
            group[WAITING] += case.state == WAITING
            group["last"] = max(group["last"], letter.ended or 0.0)
            group["first"] = min(group.get("first", letter.ended or 0.0), letter.ended or 0.0)
            group.setdefault("example", letter.error)
        return sorted(found.values(), key=lambda group: (-group["count"], group["reason"]))
