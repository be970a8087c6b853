"""A loaded model that answers batches: validate, prepare, plan, run, restore the order."""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from transforms.barrier import failure, tell
from transforms.errors import BundleError
from transforms.models.ahead import Ahead, Upcoming
from transforms.models.answers import Answers
from transforms.models.backends import ENGINES
from transforms.models.bisect import Budget, ForwardCounts, isolate, run_planned
from transforms.models.errors import ElementError, NotYet, Unexpected, is_device_lost
from transforms.models.inputs import Ask
from transforms.models.journal import Entry
from transforms.models.parameters import validate
from transforms.models.supervise import Supervisor, end_process
from transforms.models.tasks.base import Prepared, Task
from transforms.records import Failure, ModelInfo, Prediction, Request

#: Bytes of messages that are pre-processed at once. Of texts, each character can be a token of 300 bytes.
CHUNK_BYTES = {"text": 4 * 1024 * 1024, "image": 32 * 1024 * 1024, "audio": 32 * 1024 * 1024}


def _fitting(requests: Sequence[Request], most: int) -> int:
    """How many of ``requests``, from the first on, have ``most`` bytes together; one at the least."""
    total = 0
    for count, request in enumerate(requests):
        total += len(request.message.data)
        if total > most and count:
            return count
    return len(requests)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A prediction, and the micro-batch it came from."""

    prediction: Any
    batch_size: int
    inference_ms: float
    prepared: Prepared
    engine: str
    tokens_written: int | None


class LoadedModel:
    """One model in memory. Safe to call from several threads: one batch is in the model at a time, on all cores.

    It is on ``thread``, which should have loaded the model too. OpenMP keeps a team of threads for each thread that
    computes; with two teams, more threads than cores, all of them sleep between any two operations (a fifth slower).
    The micro-batches of a large batch run side by side on the task's ``lanes``, where it has them.
    """

    def __init__(
        self,
        task: Task,
        info: ModelInfo,
        parameters: Mapping[str, Any],
        max_batch_size: int,
        budget: Budget,
        thread: ThreadPoolExecutor,
        supervisor: Supervisor,
    ) -> None:
        self.task = task
        self.info = info
        #: One for each engine: what was not checked on another one is answered by torch.
        self._infos = defaultdict(lambda: info, {name: replace(info, engine=name) for name in ENGINES})
        self.parameters = parameters
        self.max_batch_size = max_batch_size
        self.budget = budget
        self._preparing, self._finishing = threading.Lock(), threading.Lock()
        self._thread = thread
        self._supervisor = supervisor
        self._ahead: Ahead | None = None
        #: Told of each batch, and of the seconds that it took.
        self.timed: Callable[[Sequence[Request], float], None] = lambda requests, seconds: None
        weakref.finalize(self, supervisor.close)

    def __repr__(self) -> str:
        return f"{self.info.model} at {self.info.revision}"

    @property
    def bytes(self) -> int:
        """What its weights take in memory."""
        return self.task.model.bytes()

    def look_ahead(self, upcoming: Upcoming) -> Ahead | None:
        """Has what ``upcoming`` tells of answered while the sinks of the bundle before are waited for.

        Not where an answer is generated, which may take long after the job was told to stop, and not where a bundle is
        several batches, for the next bundle's would come between them.
        """
        if self.task.model.generates or self.task.entry.modality != "text":
            return None
        self._ahead = Ahead(self._answer_all, upcoming)
        return self._ahead

    def answer(self, requests: Sequence[Request]) -> Answers:
        """One ``Prediction`` or ``Failure`` for each of ``requests``, in their order; raises for none of them.

        Raises:
          StorageUnavailable: Cloud Storage is away; no request is to blame.
        """
        return self._ahead.answers(requests) if self._ahead else self._answer_all(requests)

    def _answer_all(self, requests: Sequence[Request]) -> Answers:
        started = time.perf_counter()
        answers = self._supervisor.answer(self._answer, requests, self.info)
        elapsed = time.perf_counter() - started
        answers.ms = elapsed * 1000
        self.timed(requests, elapsed)
        return answers

    def _answer(self, requests: Sequence[Request]) -> Answers:
        answers = Answers()
        outcomes: dict[int, Prediction | Failure] = {}
        waiting = list(range(len(requests)))
        while waiting:
            within = [requests[i] for i in waiting[: self.task.chunk]]
            chunk = waiting[: _fitting(within, CHUNK_BYTES[self.task.entry.modality])]
            own = [requests[i] for i in chunk]
            with self._supervisor.in_work(own) as entry:
                with self._supervisor.preparing(entry):
                    prepared = self._prepare(own)
                results = self._run(own, prepared, entry, answers.counts)
            now = time.time()
            for index, result in zip(chunk, results, strict=True):
                if isinstance(result, NotYet):
                    continue
                if isinstance(result, _Answer):
                    answers.tokens += result.prepared.tokens or 0
                    answers.truncated += result.prepared.truncated
                outcomes[index] = self._outcome(requests[index], result, now)
            waiting = [index for index in chunk if index not in outcomes] + waiting[len(chunk) :]
        answers.outcomes = [outcomes[index] for index in range(len(requests))]
        return answers

    def _prepare(self, requests: Sequence[Request]) -> list[Prepared | ElementError | NotYet]:
        """Each of ``requests``, validated and pre-processed."""
        asks = [self._ask(request) for request in requests]
        valid = [ask for ask in asks if isinstance(ask, Ask)]
        with self._preparing:
            prepared = iter(isolate(self.task.prepare, valid, Unexpected))
        return [next(prepared) if isinstance(ask, Ask) else ask for ask in asks]

    def _ask(self, request: Request) -> Ask | ElementError:
        given = request.parameters
        try:
            parameters = self.parameters
            if given or not isinstance(given, Mapping):
                parameters = {**parameters, **validate(given, self.task.entry.parameters, self.task.entry.name)}
            self.task.entry.require(parameters)
            self.task.check_parameters(parameters)
            return Ask(self.task.check(request.inputs), parameters)
        except ElementError as error:
            return error
        except Exception as error:
            return Unexpected(tell(error, "predict", request.message.message_id))

    def _run(
        self,
        requests: Sequence[Request],
        prepared: Sequence[Prepared | ElementError | NotYet],
        entry: Entry,
        counts: ForwardCounts,
    ) -> list[_Answer | ElementError | NotYet]:
        """Runs what could be prepared, in micro-batches."""
        places = [place for place, one in enumerate(prepared) if isinstance(one, Prepared)]
        ready = [one for one in prepared if isinstance(one, Prepared)]

        writes = type(self.task).tokens_written is not Task.tokens_written

        def forward(chosen: list[int]) -> list[_Answer | ElementError]:
            batch = [ready[i] for i in chosen]
            started = time.perf_counter()
            with self.task.model.running(), self._supervisor.forward(entry, [places[i] for i in chosen]):
                outputs = self.task.forward(batch)
            elapsed, engine = (time.perf_counter() - started) * 1000, self.task.model.engine

            def count(place: int) -> int | None:
                return self.task.tokens_written(outputs[place]) if writes else None

            try:
                with self._finishing:
                    answers = self.task.finish(outputs, batch)
            except Exception as error:
                # Of several it is found by halving; a forward's own errors are the model's, this one is not.
                if len(batch) > 1 or isinstance(error, ElementError | BundleError):
                    raise
                answers = [Unexpected(tell(error, "predict", requests[places[chosen[0]]].message.message_id))]
            return [
                answer
                if isinstance(answer, ElementError)
                else _Answer(answer, len(batch), elapsed, one, engine, count(place))
                for place, (answer, one) in enumerate(zip(answers, batch, strict=True))
            ]

        sizes = [self.task.planned(one) for one in ready]
        size, lanes = self.max_batch_size, self.task.lanes
        run = self._thread.submit(run_planned, forward, sizes, self.budget, size, counts, lanes)
        try:
            results = iter(run.result())
        except RuntimeError as error:
            if is_device_lost(error):
                end_process(f"the device is lost ({type(error).__name__})")
            raise
        return [next(results) if isinstance(one, Prepared) else one for one in prepared]

    def _outcome(self, request: Request, result: _Answer | ElementError, now: float) -> Prediction | Failure:
        if isinstance(result, ElementError):
            return failure(result, request.message, "predict", self.info)
        prepared = result.prepared
        return Prediction(
            request,
            result.prediction,
            self._infos[result.engine],
            prepared.tokens,
            prepared.truncated,
            result.batch_size,
            result.inference_ms,
            now,
            result.tokens_written,
        )
