"""Predict: requests become predictions, one outcome each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler

from transforms.models.gather import inference
from transforms.outcome import Outcome, split
from transforms.records import Failure, Prediction, Request

#: A handler that answers every element: with its prediction, or with why there is none.
Handler = ModelHandler[Request, Prediction | Failure, Any]


class Predict(beam.PTransform[beam.PCollection[Request], Outcome]):
    """``Request`` → ``Outcome`` of ``Prediction``, through RunInference and a handler that answers every element."""

    def __init__(self, handler: Handler):
        super().__init__()
        self._handler = handler

    def expand(self, requests: beam.PCollection[Request]) -> Outcome:
        answers = requests | "RunInference" >> inference(self._handler)
        return Outcome.of(beam.ParDo(_SplitFn()), answers)  # type: ignore[no-untyped-call] # a DoFn of Beam's


class _SplitFn(beam.DoFn):
    def process(self, answer: Prediction | Failure) -> Iterator[Any]:
        yield split(answer)
