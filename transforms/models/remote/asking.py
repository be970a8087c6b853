"""From checked inputs to answers: cut into requests, asked at once, and halved where one of them is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.api_core.retry import exponential_sleep_generator

from transforms.barrier import tell
from transforms.errors import BundleError
from transforms.models.errors import ElementError, Unexpected
from transforms.models.inputs import Ask
from transforms.models.remote.cache import Cache, key_of
from transforms.models.remote.caller import (
    FIRST_WAIT_S,
    LAST_WAIT_S,
    Caller,
    EndpointFailed,
    EndpointRefused,
    EndpointUnavailable,
    RequestCounts,
)
from transforms.models.remote.chat_completions import WRITES
from transforms.models.remote.chunks import chunks
from transforms.models.remote.discover import About
from transforms.models.remote.protocol import Post
from transforms.models.remote.provider import NobodyServes
from transforms.models.remote.reading import Read
from transforms.models.remote.reply import Reply
from transforms.models.remote.rows import read_rows
from transforms.models.task_entry import TaskEntry
from transforms.records import ModelInfo

#: Seconds after which the endpoint is asked again which model it runs: a new revision may have been deployed.
LOOK_AGAIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's prediction, and the request that it came with.

    ``info`` is the model that gave it, where that is known better than for the endpoint as a whole; ``cached`` is None
    where there is no cache.
    """

    prediction: Any
    tokens: int | None
    rows: int
    ms: float
    info: ModelInfo | None = None
    generated: int | None = None
    cached: bool | None = None


class Asking:
    """Asks one endpoint about many inputs. Its coroutines run on one event loop."""

    def __init__(self, caller: Caller, task: TaskEntry, concurrency: int, cache_mib: int | None) -> None:
        self.caller = caller
        self.task = task
        self._slots = asyncio.Semaphore(concurrency)
        self._cache: Cache[Answer] | None = Cache(cache_mib) if cache_mib else None

    def reader(self, about: About, asks: Sequence[Ask], counts: RequestCounts) -> Read:
        """What makes an answer to ``asks`` one ``Answer`` or ``NonFinite`` each."""

        def read(reply: Reply, answer: Any) -> list[Answer | ElementError]:
            rows = read_rows(answer, about.protocol, self.task, asks)
            tokens, generated = reply.tokens(answer)
            counts.tokens_read += tokens or 0
            counts.tokens_generated += generated
            # A total says nothing of one row.
            own = tokens if len(asks) == 1 else None
            wrote = generated if len(asks) == 1 and self.task.name in WRITES else None
            who = about.who(reply, answer)
            info = None if who is about.info else who
            return [
                one if isinstance(one, ElementError) else Answer(one, own, len(asks), reply.ms, info, wrote)
                for one in rows
            ]

        return read

    async def ask_all(self, about: About, asks: Sequence[Ask], counts: RequestCounts) -> list[Answer | ElementError]:
        """One answer for each of ``asks``; those of equal parameters share requests, where the server takes several."""
        cache = self._cache
        if cache is None:
            return await self._ask_each(about, asks, counts)
        keys = [key_of(ask, about.info) or index for index, ask in enumerate(asks)]
        longest = float("inf") if about.info.revision else LOOK_AGAIN_S
        found: dict[bytes | int, Answer | ElementError | None] = {
            key: cache.get(key, longest) if isinstance(key, bytes) else None for key in keys
        }
        places = {key: index for index, key in reversed(list(enumerate(keys))) if found[key] is None}
        fresh = await self._ask_each(about, [asks[place] for place in places.values()], counts)
        for key, answer in zip(places, fresh, strict=True):
            found[key] = answer
            if isinstance(key, bytes) and isinstance(answer, Answer):
                again = replace(_unpaid(answer), info=answer.info or about.info)
                cache.put(key, again, answer.prediction)
        counts.cache_misses += len(places)
        counts.cache_hits += len(asks) - len(places)
        return [_as_told(found[key], places.get(key) == index) for index, key in enumerate(keys)]

    async def _ask_each(self, about: About, asks: Sequence[Ask], counts: RequestCounts) -> list[Answer | ElementError]:
        cut = chunks(asks, about.protocol)
        answered = await gather_all([self._request(about, [asks[index] for index in chunk], counts) for chunk in cut])
        found: list[Any] = [None] * len(asks)
        for chunk, answers in zip(cut, answered, strict=True):
            for index, answer in zip(chunk, answers, strict=True):
                found[index] = answer
        return found

    async def _request(self, about: About, asks: list[Ask], counts: RequestCounts) -> list[Answer | ElementError]:
        """Asks one request; one that is refused is halved until the culprit is alone."""
        try:
            async with self._slots:
                post = await self._post(about, asks)
                answers: list[Answer | ElementError] = await self.caller.ask(
                    post, self.reader(about, asks, counts), counts, len(asks) == 1
                )
            if len(asks) > 1:
                # No number for one may be its neighbours' doing, who shared a forward with it.
                doubted = [place for place, one in enumerate(answers) if isinstance(one, ElementError)]
                again = await gather_all([self._request(about, [asks[place]], counts) for place in doubted])
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
        halves = await gather_all([self._request(about, half, counts) for half in (asks[:middle], asks[middle:])])
        return [*halves[0], *halves[1]]

    async def _post(self, about: About, asks: list[Ask]) -> Post:
        """The request for ``asks``; waits for the hub, where that is asked who serves the model and does not say."""
        deadline = time.monotonic() + self.caller.max_wait_s
        for pause in exponential_sleep_generator(FIRST_WAIT_S, LAST_WAIT_S):
            try:
                return await about.post(asks)
            except NobodyServes as error:
                words = str(error)
            if time.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
        raise EndpointUnavailable(f"{self.caller.name}: {self.caller.token.scrub(words)}")


def _as_told(found: Answer | ElementError | None, asked: bool) -> Answer | ElementError:
    """The outcome of one of several equal questions, of which one was ``asked``."""
    assert found is not None
    if isinstance(found, ElementError) or found.cached:
        return found
    return replace(found, cached=False) if asked else _unpaid(found)


def _unpaid(answer: Answer) -> Answer:
    """``answer``, given once more: it took neither tokens nor time."""
    return replace(answer, tokens=0, rows=0, ms=0.0, generated=None if answer.generated is None else 0, cached=True)


async def gather_all(coroutines: Sequence[Awaitable[Any]]) -> list[Any]:
    """All their results; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
