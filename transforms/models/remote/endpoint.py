"""A remote model that answers batches: validate, cut into requests, ask them at once, restore the order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.api_core.retry import exponential_sleep_generator

from transforms.barrier import failure, tell
from transforms.errors import BundleError
from transforms.models.errors import ElementError, Unexpected
from transforms.models.inputs import Ask
from transforms.models.parameters import validate
from transforms.models.remote.caller import (
    FIRST_WAIT_S,
    LAST_WAIT_S,
    Caller,
    EndpointFailed,
    EndpointRefused,
    EndpointUnavailable,
    Question,
    RequestCounts,
)
from transforms.models.remote.discover import About, EndpointSpec, discover
from transforms.models.remote.probe import small_ask
from transforms.models.remote.protocol import Post
from transforms.models.remote.provider import NobodyServes, Provider
from transforms.models.remote.reading import Read
from transforms.models.remote.reply import Reply
from transforms.models.remote.rows import read_rows
from transforms.models.remote.wire import to_wire
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenKeeper
from transforms.records import Failure, ModelInfo, Prediction, Request

#: Seconds after which the endpoint is asked again which model it runs: a new revision may have been deployed.
LOOK_AGAIN_S = 300.0


@dataclass(slots=True)
class Answers:
    """One outcome for each request, in order, and what they cost."""

    outcomes: list[Prediction | Failure] = field(default_factory=list)
    counts: RequestCounts = field(default_factory=RequestCounts)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A row's prediction, and the request that it came with."""

    prediction: Any
    tokens: int | None
    rows: int
    ms: float
    generated: int | None


class Endpoint:
    """One endpoint. Its coroutines run on one event loop; ``answer`` may run several times at once."""

    def __init__(self, spec: EndpointSpec, task: TaskEntry, parameters: Mapping[str, Any], token: TokenKeeper) -> None:
        self.spec = spec
        self.task = task
        self.parameters = parameters
        self.caller = Caller(f"endpoint={spec.endpoint}", token, spec.concurrency, spec.timeout_s, spec.max_wait_s)
        self._slots = asyncio.Semaphore(spec.concurrency)
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
        found = await self._ask_all(about, [ask for _, ask in rows], counts)
        by_request: dict[int, list[_Answer | ElementError]] = {}
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
            fresh = await discover(self.caller, self.spec, self.task)
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
            return Question(await about.post([ask]), self._reader(about, [ask], RequestCounts()))
        except ElementError:
            return None  # parameters that this kind of server has not; every message is told

    def _reader(self, about: About, asks: Sequence[Ask], counts: RequestCounts) -> Read:
        """What makes an answer to ``asks`` one ``_Answer`` or ``NonFinite`` each."""

        def read(reply: Reply, answer: Any) -> list[_Answer | ElementError]:
            rows = read_rows(answer, about.protocol, self.task, asks)
            tokens, generated = reply.tokens(answer)
            counts.tokens_read += tokens or 0
            counts.tokens_generated += generated
            # A total says nothing of one row.
            own = (tokens, generated or None) if len(asks) == 1 else (None, None)
            count = len(asks)
            return [
                one if isinstance(one, ElementError) else _Answer(one, own[0], count, reply.ms, own[1]) for one in rows
            ]

        return read

    def _ask(self, request: Request) -> Ask | ElementError:
        try:
            given = validate(request.parameters, self.task.parameters, self.task.name) if request.parameters else {}
            parameters = {**self.parameters, **given}
            self.task.require(parameters)
            return Ask(to_wire(self.task, self.task.check(request.inputs)), parameters)
        except ElementError as error:
            return error
        except BundleError:
            raise
        except Exception as error:
            return Unexpected(tell(error, "predict", request.message.message_id))

    async def _ask_all(self, about: About, asks: Sequence[Ask], counts: RequestCounts) -> list[_Answer | ElementError]:
        """One answer for each of ``asks``; those of equal parameters share requests, where the server takes several."""
        groups: dict[str, list[int]] = {}
        for index, ask in enumerate(asks):
            key = "" if not ask.parameters else json.dumps(ask.parameters, sort_keys=True, default=repr)
            groups.setdefault(key, []).append(index)
        most = about.protocol.rows
        chunks = [own[start : start + most] for own in groups.values() for start in range(0, len(own), most)]
        answered = await _all([self._request(about, [asks[index] for index in chunk], counts) for chunk in chunks])
        found: list[Any] = [None] * len(asks)
        for chunk, answers in zip(chunks, answered, strict=True):
            for index, answer in zip(chunk, answers, strict=True):
                found[index] = answer
        return found

    async def _request(self, about: About, asks: list[Ask], counts: RequestCounts) -> list[_Answer | ElementError]:
        """Asks one request; one that is refused is halved until the culprit is alone."""
        try:
            async with self._slots:
                post = await self._post(about, asks)
                answers: list[_Answer | ElementError] = await self.caller.ask(
                    post, self._reader(about, asks, counts), counts, len(asks) == 1
                )
            if len(asks) > 1:
                # No number for one may be its neighbours' doing, who shared a forward with it.
                doubted = [place for place, one in enumerate(answers) if isinstance(one, ElementError)]
                again = await _all([self._request(about, [asks[place]], counts) for place in doubted])
                for place, (answer,) in zip(doubted, again, strict=True):
                    answers[place] = answer
            return answers
        except (EndpointRefused, EndpointFailed) as error:
            if len(asks) == 1:
                return [error]
        except ElementError as error:
            return [error for _ in asks]  # parameters, which all of them share
        except BundleError:
            raise
        except Exception as error:
            if len(asks) == 1:
                return [Unexpected(tell(error, "predict"))]
        counts.bisections += 1
        middle = len(asks) // 2
        halves = await _all([self._request(about, half, counts) for half in (asks[:middle], asks[middle:])])
        return [*halves[0], *halves[1]]

    async def _post(self, about: About, asks: list[Ask]) -> Post:
        """The request for ``asks``; waits for the hub, where that is asked who serves the model and does not say."""
        deadline = time.monotonic() + self.spec.max_wait_s
        for pause in exponential_sleep_generator(FIRST_WAIT_S, LAST_WAIT_S):
            try:
                return await about.post(asks)
            except NobodyServes as error:
                words = str(error)
            if time.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
        raise EndpointUnavailable(f"{self.caller.name}: {self.caller.token.scrub(words)}")

    def _outcome(
        self, request: Request, found: ElementError | list[_Answer | ElementError], info: ModelInfo, now: float
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
        written = answers[0].generated if len(answers) == 1 else None
        return Prediction(request, prediction, info, tokens, False, answers[0].rows, slowest, now, written)


async def _all(coroutines: Sequence[Awaitable[Any]]) -> list[Any]:
    """All their results; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
