"""Messages whose answers are known: what a model must give before it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from transforms.models.errors import ModelLoadError, Unreachable
from transforms.models.fleet import source
from transforms.models.fleet.agreement import MEASURES, agree
from transforms.models.fleet.file import Check
from transforms.records import Failure, Message, Prediction, Request

_LOG = logging.getLogger(__name__)

#: Messages of one file.
_MOST = 100_000

Answer = Callable[[Sequence[Request]], Sequence[Prediction | Failure]]


class CheckFailed(ModelLoadError):
    """A model does not give the answers that it must."""


class Unusable(ModelLoadError):
    """The checks themselves are wrong, which says nothing of the model."""


#: Checks that are asked at once: what serves has its turns between them.
_AT_ONCE = 16


def read(check: Check, models_file: str) -> list[tuple[Request, Any]]:
    """The messages of ``check`` and the predictions that they must get.

    A line is ``{"inputs": …, "prediction": …}``, as results are that keep their inputs; ``parameters`` may be there.

    Raises:
      Unreachable: the file cannot be read now.
      Unusable: it cannot be used; the text has the line.
    """
    where = source.beside(models_file, check.file)
    found: list[tuple[Request, Any]] = []
    try:
        data = source.read(where)
    except Unreachable:
        raise
    except ModelLoadError as error:
        raise Unusable(f"checks: {error}") from None
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
            inputs, prediction = value["inputs"], value["prediction"]
            parameters = value.get("parameters") or {}
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise Unusable(
                f'{where}:{number}: not a check; use {{"inputs": …, "prediction": …}} and, if need be, "parameters"'
            ) from None
        found.append((Request(inputs, parameters, Message(message_id=f"check {number}")), prediction))
        if len(found) > _MOST:
            raise Unusable(f"{where}: over {_MOST:,} checks")
    if not found:
        raise Unusable(f"{where}: has no checks")
    return found


def run(name: str, check: Check, models_file: str, answer: Answer) -> float:
    """The share of ``check`` that ``answer`` gives as it must.

    Raises:
      CheckFailed: it is too small.
      Unusable: the checks cannot be used.
    """
    cases = read(check, models_file)
    requests = [request for request, _ in cases]
    parts = [requests[start : start + _AT_ONCE] for start in range(0, len(requests), _AT_ONCE)]
    outcomes = [outcome for part in parts for outcome in answer(part)]
    verdicts = [_right(outcome, expected) for outcome, (_, expected) in zip(outcomes, cases, strict=True)]
    tasks = {outcome.model.task for outcome in outcomes if isinstance(outcome, Prediction)}
    unmeasured = tasks - MEASURES.keys()
    if unmeasured:
        raise Unusable(f"checks of {name!r}: there is no measure for {', '.join(sorted(unmeasured))}; leave them out")
    share = sum(verdicts) / len(verdicts)
    if share < check.at_least:
        lines = [i for i, right in enumerate(verdicts) if not right][:3]
        shown = ", ".join(cases[i][0].message.message_id.removeprefix("check ") for i in lines)
        raise CheckFailed(
            f"model {name!r}: {sum(verdicts)} of {len(verdicts)} checks hold ({share:.3f}), and {check.at_least:g} is"
            f" asked; the first that do not: line {shown} of {check.file}"
        )
    _LOG.info("model %r: %d of %d checks hold", name, sum(verdicts), len(verdicts))
    return share


def _right(outcome: Prediction | Failure, expected: Any) -> bool:
    if isinstance(outcome, Failure):
        return False
    return bool(agree(outcome.model.task, outcome.prediction, expected))
