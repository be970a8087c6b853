"""A remote model that answers batches: validate, cut into requests, ask them at once, restore the order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.barrier import failure, tell
from transforms.errors import BundleError
from transforms.models.errors import ElementError, InvalidParameter, Unexpected
from transforms.models.inputs import Ask
from transforms.models.parameters import validate
from transforms.models.remote.asking import LOOK_AGAIN_S, Answer, Asking
from transforms.models.remote.caller import Caller, Question, RequestCounts
from transforms.models.remote.discover import About, EndpointSpec, discover
from transforms.models.remote.pace import Limits
from transforms.models.remote.provider import Provider
from transforms.models.remote.small import small_ask
from transforms.models.remote.wire import to_wire
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenKeeper
from transforms.records import Failure, ModelInfo, Prediction, Request


class Endpoint:
    """One endpoint. Its coroutines run on one event loop; ``answer`` may run several times at once."""

    def __init__(self, spec: EndpointSpec, task: TaskEntry, parameters: Mapping[str, Any], token: TokenKeeper) -> None:
        self.spec = spec
        self.task = task
        self.parameters = parameters
        limits = Limits(spec.requests_per_s, spec.tokens_per_min)
        name = f"endpoint={spec.endpoint}"
        self.caller = Caller(name, token, spec.concurrency, spec.timeout_s, spec.max_wait_s, limits, spec.hedge_s)
        self._asking = Asking(self.caller, task, spec.concurrency, spec.cache_mib)
        self._about: About | None = None
        self._looked_at = float("-inf")

    async def answer(self, requests: Sequence[Request], counts: RequestCounts) -> list[Prediction | Failure]:
        """One ``Prediction`` or ``Failure`` for each of ``requests``, in their order.

        Raises:
          EndpointUnavailable: there was no answer for too long.
        """
        try:
            return await self._answer(requests, counts)
        except BundleError:
            raise
        except Exception as error:
            # Our own fault, and nobody foresaw it: it is found by halving, as one that the model raises is.
            if len(requests) == 1:
                info = self._about.info if self._about else None
                return [failure(error, requests[0].message, "predict", info)]
        middle = len(requests) // 2
        return [*await self.answer(requests[:middle], counts), *await self.answer(requests[middle:], counts)]

    async def _answer(self, requests: Sequence[Request], counts: RequestCounts) -> list[Prediction | Failure]:
        about = await self._look()
        asks = await asyncio.to_thread(lambda: [self._ask(request) for request in requests])
        rows: list[tuple[int, Ask]] = []
        for index, ask in enumerate(asks):
            if isinstance(ask, Ask):
                several = isinstance(ask.inputs, list) and self.task.name == "feature-extraction"
                rows += [(index, Ask(one, ask.parameters)) for one in (ask.inputs if several else [ask.inputs])]
        found = await self._asking.ask_all(about, [ask for _, ask in rows], counts)
        by_request: dict[int, list[Answer | ElementError]] = {}
        for (index, _), answer in zip(rows, found, strict=True):
            by_request.setdefault(index, []).append(answer)
        about = await self._look() if not about.known else about
        now = time.time()
        return [
            self._outcome(request, ask if isinstance(ask, ElementError) else by_request[index], about.info, now)
            for index, (request, ask) in enumerate(zip(requests, asks, strict=True))
        ]

    async def _look(self) -> About:
        """What the endpoint says of itself, from memory if it was asked lately."""
        about = self._about
        if about is None or not about.known or time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            fresh = await discover(self.caller, self.spec, self.task, self.parameters)
            if about is None or fresh.known:
                about = self._about = fresh
                self.caller.small = await self._small(fresh)
            self._looked_at = time.monotonic()
        return about

    async def _small(self, about: About) -> Question | None:
        """What tells an endpoint that never fits from an input that does not, before anything else was answered."""
        ask = small_ask(self.task, self.parameters)
        if ask is None or isinstance(about.protocol, Provider):
            return None
        try:
            return Question(await about.post([ask]), self._asking.reader(about, [ask], RequestCounts()))
        except ElementError:
            return None  # parameters that this kind of server has not; every message is told

    def _ask(self, request: Request) -> Ask | ElementError:
        try:
            given = validate(request.parameters, self.task.parameters, self.task.name) if request.parameters else {}
            parameters = {**self.parameters, **given}
            self.task.require(parameters)
            if "chunk" in parameters:
                raise InvalidParameter("parameters.chunk: an endpoint cuts no text into chunks; leave it out")
            return Ask(to_wire(self.task, self.task.check(request.inputs)), parameters)
        except ElementError as error:
            return error
        except BundleError:
            raise
        except Exception as error:
            return Unexpected(tell(error, "predict", request.message.message_id))

    def _outcome(
        self, request: Request, found: ElementError | list[Answer | ElementError], info: ModelInfo, now: float
    ) -> Prediction | Failure:
        every = [found] if isinstance(found, ElementError) else found
        error = next((one for one in every if isinstance(one, ElementError)), None)
        if error is not None:
            return failure(error, request.message, "predict", info)
        answers: list[Any] = list(every)
        several = isinstance(request.inputs, list) and self.task.name == "feature-extraction"
        prediction = [one.prediction for one in answers] if several else answers[0].prediction
        counted = [one.tokens for one in answers]
        tokens = None if None in counted else sum(counted)
        slowest = max(one.ms for one in answers)
        known = [one.cached for one in answers]
        cached = None if None in known else all(known)
        return Prediction(
            request,
            prediction,
            answers[0].info or info,
            tokens,
            False,
            answers[0].rows,
            slowest,
            now,
            answers[0].generated,
            cached,
        )
