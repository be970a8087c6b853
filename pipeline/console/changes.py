"""Changes: what the page may ask to be done: publish, replay, edit, dismiss."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.clients import words
from pipeline.console import actions
from pipeline.console.actions import Letter, Refused
from pipeline.console.cases import WAITING, Case
from pipeline.console.filters import matcher
from pipeline.console.observer import Observer
from pipeline.console.show import readable

#: Characters of a reason for dismissing.
_WHY = 500


class Changes:
    """The requests that change something, for one ``observer``'s topics and cases."""

    def __init__(self, observer: Observer):
        self._observer = observer
        # One replay at a time: no dead letter may be sent twice by two clicks.
        self._replaying = threading.Lock()

    def routes(self) -> list[Route]:
        return [
            Route("/api/publish", self.publish, methods=["POST"]),
            Route("/api/replay", self.replay, methods=["POST"]),
            Route("/api/dismiss", self.dismiss, methods=["POST"]),
        ]

    async def publish(self, request: Request) -> Response:
        topic = self._topic()
        message = actions.compose(await body_of(request, 2 * actions.MOST_BYTES))
        message_id = await run_in_threadpool(_told, actions.publish, topic, message)
        return JSONResponse(
            {
                "message_id": message_id,
                "body": readable(message, 20_000),
                "attributes": dict(message.attributes),
            }
        )

    async def replay(self, request: Request) -> Response:
        """Replays the waiting ones of ``message_ids``, or of what fits ``q`` and came in by number ``until``.

        With ``edit`` (``text``, ``attributes``), one is published as that says, and names the one that failed.
        """
        topic, body = self._topic(), await body_of(request)
        return JSONResponse({"replayed": await run_in_threadpool(_told, self._replay, topic, body)})

    def _replay(self, topic: str, body: dict[str, Any]) -> list[dict[str, str]]:
        book, edit = self._observer.book, body.get("edit")
        with self._replaying:
            cases = [case for case in self._chosen(body) if case.state == WAITING]
            letters = [Letter(case.letter.message_id, case.letter.output) for case in cases if case.letter.output]
            if edit is not None:
                if len(letters) != 1 or not isinstance(edit, dict):
                    raise Refused("edit one waiting dead letter at a time")
                letters = [
                    Letter(each.message_id, each.message, actions.edited(each.message, edit)) for each in letters
                ]
            sent = actions.replay(topic, letters)
            for letter, new_id in sent:
                book.replayed(letter.message_id, new_id, letter.edited is not None)
        return [{"message_id": letter.message_id, "replayed_as": new_id} for letter, new_id in sent]

    async def dismiss(self, request: Request) -> Response:
        """Takes the chosen ones off the list, for a reason ``why``; with an empty one, puts them back."""
        body = await body_of(request)
        why = " ".join(str(body.get("why") or "").split())[:_WHY]
        if not why and not body.get("undo"):
            raise Refused("say why: the reason stays with the dead letter")
        roots = [case.root for case in self._chosen(body)]
        done = self._observer.book.dismiss(roots, "" if body.get("undo") else why)
        return JSONResponse({"done": done})

    def _chosen(self, body: dict[str, Any]) -> list[Case]:
        book = self._observer.book
        if isinstance(body.get("message_ids"), list):
            stories = [story for each in body["message_ids"] if (story := book.get(str(each))) is not None]
            found = {case.root: case for story in stories if (case := book.case(story)) is not None}
            return list(found.values())
        if not isinstance(body.get("q"), str):
            raise Refused("which ones: give message_ids, or a filter as q")
        until = body.get("until")
        if until is not None and not isinstance(until, int):
            raise Refused("until: use the number of a case")
        return book.cases(matcher(body["q"]), until)[0]

    def _topic(self) -> str:
        s = self._observer.settings
        if not s.may_publish:
            raise Refused("this console only reads: start it with --allow_publish to publish to a real project")
        if s.input_topic is None:
            raise Refused("no topic to publish to: start the console with --input_topic")
        return s.input_topic


async def body_of(request: Request, most: int = 1 << 20) -> dict[str, Any]:
    """The request's JSON object, of at most ``most`` bytes.

    Raises:
        Refused: it is larger, or no JSON object.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise Refused(f"the request is over {most:,} bytes")
    try:
        body = orjson.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused("the body is not a JSON object")
    return body


def _told(action: Callable[..., Any], *args: Any) -> Any:
    """Runs ``action``; what the service answers is told to the person who asked."""
    try:
        return action(*args)
    except Refused:
        raise
    except Exception as error:
        raise Refused(words(error)) from error
