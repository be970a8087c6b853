"""What every step that can fail returns: its results and its failures, side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import apache_beam as beam

from transforms.records import Failure

#: Tag of the side output that carries failures.
FAILURES = "failures"


class Outcome(NamedTuple):
    """The two ways out of a step.

    ``results`` holds what went well, ``failures`` the ``Failure`` records; every element is in exactly one.
    """

    results: beam.PCollection[Any]
    failures: beam.PCollection[Failure]

    @classmethod
    def of(cls, step: beam.ParDo, elements: beam.PCollection[Any]) -> Outcome:
        """Applies a ParDo that yields results plainly and failures through :func:`failed`."""
        outputs = elements | step.with_outputs(FAILURES, main="results")
        return cls(outputs["results"], outputs[FAILURES])


def split(outcome: Any) -> Any:
    """``outcome`` as a step yields it: a ``Failure`` goes to the side output."""
    return failed(outcome) if isinstance(outcome, Failure) else outcome


def failed(failure: Failure) -> beam.pvalue.TaggedOutput[str, Failure]:
    """Routes ``failure`` to the side output of :class:`Outcome`."""
    return beam.pvalue.TaggedOutput(FAILURES, failure)
