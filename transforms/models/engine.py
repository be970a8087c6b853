"""A loaded model that answers batches: validate, prepare, plan, run, restore the order."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from transforms.models.errors import ElementError, InvalidInput
from transforms.models.isolate import Budget, Tally, isolate, run_planned
from transforms.models.parameters import validate
from transforms.models.tasks.base import Ask, Prepared, Task
from transforms.records import Failure, ModelInfo, Prediction, Request


@dataclass(slots=True)
class Answers:
    """One outcome for each request, in order, and what they cost."""

    outcomes: list[Prediction | Failure] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    tokens: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """A prediction, and the micro-batch it came from."""

    prediction: Any
    batch_size: int
    inference_ms: float
    prepared: Prepared


class Engine:
    """One model in memory. Safe to call from several threads: forwards run one at a time, on all cores.

    They run on ``thread``, which should have loaded the model too. OpenMP keeps a team of threads for each thread that
    computes; with two teams, more threads than cores, all of them sleep between any two operations (a fifth slower).
    """

    def __init__(
        self,
        task: Task,
        info: ModelInfo,
        parameters: Mapping[str, Any],
        max_batch_size: int,
        budget: Budget,
        thread: ThreadPoolExecutor,
    ) -> None:
        self.task = task
        self.info = info
        self.parameters = parameters
        self.max_batch_size = max_batch_size
        self.budget = budget
        self._preparing = threading.Lock()
        self._thread = thread

    def answer(self, requests: Sequence[Request]) -> Answers:
        """One ``Prediction`` or ``Failure`` for each of ``requests``, in their order; raises for none of them.

        Raises:
          RuntimeError: the device is lost; no request is to blame.
        """
        answers = Answers()
        for start in range(0, len(requests), self.task.chunk):
            chunk = requests[start : start + self.task.chunk]
            prepared = self._prepare(chunk)
            results = self._run(prepared, answers.tally)
            now = time.time()
            for request, result in zip(chunk, results, strict=True):
                if isinstance(result, _Answer):
                    answers.tokens += result.prepared.tokens or 0
                    answers.truncated += result.prepared.truncated
                answers.outcomes.append(self._outcome(request, result, now))
        return answers

    def _prepare(self, requests: Sequence[Request]) -> list[Prepared | ElementError]:
        """Each of ``requests``, validated and pre-processed."""
        asks = [self._ask(request) for request in requests]
        valid = [ask for ask in asks if isinstance(ask, Ask)]
        with self._preparing:
            prepared = iter(isolate(self.task.prepare, valid, InvalidInput))
        return [next(prepared) if isinstance(ask, Ask) else ask for ask in asks]

    def _ask(self, request: Request) -> Ask | ElementError:
        given = request.parameters
        try:
            parameters = self.parameters
            if given or not isinstance(given, Mapping):
                parameters = {**parameters, **validate(given, self.task.parameters, self.task.name)}
            self.task.check_parameters(parameters)
            return Ask(self.task.check(request.inputs), parameters)
        except ElementError as error:
            return error

    def _run(self, prepared: Sequence[Prepared | ElementError], tally: Tally) -> list[_Answer | ElementError]:
        """Runs what could be prepared, in micro-batches."""
        ready = [one for one in prepared if isinstance(one, Prepared)]

        def forward(chosen: list[int]) -> list[_Answer | ElementError]:
            batch = [ready[i] for i in chosen]
            started = time.perf_counter()
            with torch.inference_mode():
                outputs = self.task.forward(batch)
            elapsed = (time.perf_counter() - started) * 1000
            answers = self.task.finish(outputs, batch)
            return [
                answer if isinstance(answer, ElementError) else _Answer(answer, len(batch), elapsed, one)
                for answer, one in zip(answers, batch, strict=True)
            ]

        sizes = [self.task.planned(one) for one in ready]
        run = self._thread.submit(run_planned, forward, sizes, self.budget, self.max_batch_size, tally)
        results = iter(run.result())
        return [next(results) if isinstance(one, Prepared) else one for one in prepared]

    def _outcome(self, request: Request, result: _Answer | ElementError, now: float) -> Prediction | Failure:
        if isinstance(result, ElementError):
            return Failure(request.message, "predict", type(result).__name__, str(result), now, self.info)
        prepared = result.prepared
        return Prediction(
            request,
            result.prediction,
            self.info,
            prepared.tokens,
            prepared.truncated,
            result.batch_size,
            result.inference_ms,
            now,
        )
