"""What holds of every answer of a server, whatever its task: who reads one believes nothing in it.

A number is a finite number (no text, no boolean), a text a text. A null where a number belongs is what servers write
for NaN, and so ``NonFinite``, as with local weights; all else is a ``Misfit``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from transforms.errors import MessageError
from transforms.models.errors import NonFinite, brief


class Misfit(MessageError):
    """An answer that is not the task's: the server runs something else, or is broken."""


#: Levels of lists and objects in a prediction, as in a message.
MAX_DEPTH = 100


def unwrap(answer: Any) -> Any:
    """``answer``, or its only element where a server answers one input with a batch of one."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list) else answer


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raises ``Misfit`` where a prediction is nested deeper than what reads results can be trusted to take."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        level = [
            one
            for each in level
            for one in (each.values() if isinstance(each, dict) else each)
            if isinstance(one, (dict, list))
        ]
        if not level:
            return
    raise Misfit(f"nested deeper than {most} levels")


def are_objects(found: Any, *keys: str) -> bool:
    """Whether ``found`` is a list of one object or more, each with all of ``keys``."""
    return isinstance(found, list) and bool(found) and all(isinstance(o, dict) and o.keys() >= set(keys) for o in found)


def are_texts(values: Iterable[Any]) -> bool:
    """Whether all of ``values`` are texts."""
    return all(isinstance(value, str) for value in values)


def check_numbers(values: Iterable[Any], answer: Any) -> None:
    """Raises ``NonFinite`` or ``Misfit`` where one of ``values`` is no finite number."""
    for value in values:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            raise non_finite()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Misfit(f"expected numbers, got {brief(answer)}")


def non_finite() -> NonFinite:
    """The failure of an element whose answer has no number where one belongs."""
    return NonFinite(
        "the answer has null, NaN or infinity in place of a number; look at this input and the server's dtype"
    )
