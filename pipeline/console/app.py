"""The web application: the page, its figures as server-sent events, and what the page may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline import __version__
from pipeline.clients import words
from pipeline.console import actions, audit, summaries
from pipeline.console.actions import Refused
from pipeline.console.guard import Guard, new_token
from pipeline.console.observer import Observer
from pipeline.console.show import readable, summary, whole

_STATIC = Path(__file__).with_name("static")
_EVERY_S = 1.0
#: Results that one event or one search carries: what a person can look at.
_NEWEST = 100


class Console:
    """The page's requests, answered from one ``observer``. Event streams end when ``stopping()``."""

    def __init__(self, observer: Observer):
        self.observer = observer
        self.token = new_token()
        self.stopping: Callable[[], bool] = lambda: False

    def application(self) -> Starlette:
        routes = [
            Route("/", lambda request: FileResponse(_STATIC / "index.html")),
            Route("/api/about", self.about),
            Route("/api/events", self.events),
            Route("/api/results", self.results),
            Route("/api/messages/{message_id}", self.message),
            Route("/api/dead-letters", self.dead_letters),
            Route("/api/queries", self.queries),
            Route("/api/summaries", self.summaries),
            Route("/api/publish", self.publish, methods=["POST"]),
            Route("/api/replay", self.replay, methods=["POST"]),
            Route("/api/query", self.query, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
        return Starlette(
            routes=routes, middleware=[Middleware(Guard, token=self.token)], exception_handlers={Refused: _refused}
        )

    async def about(self, request: Request) -> Response:
        s = self.observer.settings
        return JSONResponse(
            {
                "version": __version__,
                "token": self.token,
                "local": s.own_subscriptions,
                "may_publish": s.may_publish and s.input_topic is not None,
                "may_query": s.may_query and s.audit_table is not None,
                "names": {
                    "input topic": s.input_topic,
                    "output": s.output_subscription or s.output_topic,
                    "dead letters": s.dead_letter_subscription or s.dead_letter_topic,
                    "audit table": str(s.audit_table) if s.audit_table else None,
                    "summary table": str(s.summary_table) if s.summary_table else None,
                    "metrics file": str(s.metrics_file) if s.metrics_file else None,
                },
                "watching": list(self.observer.watches),
            }
        )

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[bytes]:
        """A first event with all there is, then one a second with what is new."""
        after, second = 0, 0
        while not self.stopping():
            points = self.observer.flow.points(second)
            second = int(points[-1][0] or 0) if points else second
            stories, count = self.observer.book.newest("ok", _NEWEST, after)
            after = self.observer.book.number
            event = {
                **self.observer.figures(),
                "points": points,
                "newest": [summary(story) for story in stories],
                "more": count - len(stories),
            }
            yield b"data: " + orjson.dumps(event) + b"\n\n"
            await asyncio.sleep(_EVERY_S)

    async def results(self, request: Request) -> Response:
        words = request.query_params.get("q", "")[:500]
        stories, count = await run_in_threadpool(self.observer.book.newest, "ok", _NEWEST, 0, words)
        return JSONResponse({"results": [summary(story) for story in stories], "count": count})

    async def message(self, request: Request) -> Response:
        """One message's whole story: what the topics told, and its audit rows."""
        message_id, s = request.path_params["message_id"], self.observer.settings
        story = self.observer.book.get(message_id)
        answer: dict[str, Any] = {"story": whole(story) if story else None, "audit": None, "audit_error": None}
        if s.audit_table:
            try:
                answer["audit"] = await run_in_threadpool(audit.message_rows, s.audit_table, message_id)
            except Refused as error:
                answer["audit_error"] = str(error)
        found = story is not None or bool(answer["audit"])
        return JSONResponse(answer, 200 if found or answer["audit_error"] else 404)

    async def dead_letters(self, request: Request) -> Response:
        group = request.query_params.get("stage", ""), request.query_params.get("error_type", "")
        stories = self.observer.book.in_group(*group)
        return JSONResponse({"letters": [self._letter(story) for story in stories[:_NEWEST]], "count": len(stories)})

    def _letter(self, story: Any) -> dict[str, Any]:
        """A dead letter, and what became of its replay."""
        new = self.observer.book.get(story.replayed_as) if story.replayed_as else None
        return {**summary(story), "outcome": summary(new) if new and new.status else None}

    async def publish(self, request: Request) -> Response:
        topic = self._publishing()
        message = actions.compose(await _body(request, 2 * actions.MOST_BYTES))
        message_id = await run_in_threadpool(_told, actions.publish, topic, message)
        return JSONResponse(
            {
                "message_id": message_id,
                "body": readable(message, 20_000),
                "attributes": dict(message.attributes),
            }
        )

    async def replay(self, request: Request) -> Response:
        """Replays ``message_ids``, or every waiting dead letter of ``stage`` and ``error_type``."""
        topic, body, book = self._publishing(), await _body(request), self.observer.book
        if isinstance(body.get("message_ids"), list):
            stories = [story for each in body["message_ids"] if (story := book.get(str(each))) is not None]
        else:
            stories = book.in_group(str(body.get("stage")), str(body.get("error_type")))
        return JSONResponse({"replayed": await run_in_threadpool(_told, actions.replay, book, topic, stories)})

    def _publishing(self) -> str:
        s = self.observer.settings
        if not s.may_publish:
            raise Refused("this console only reads: start it with --allow_publish to publish to a real project")
        if s.input_topic is None:
            raise Refused("no topic to publish to: start the console with --input_topic")
        return s.input_topic

    async def queries(self, request: Request) -> Response:
        table = self.observer.settings.audit_table
        found = audit.ready_queries(table) if table else []
        return JSONResponse(
            {"queries": [{"name": q.name, "about": q.about, "sql": q.sql, "parameters": q.parameters} for q in found]}
        )

    async def query(self, request: Request) -> Response:
        """Runs a ready query by ``name``, or one's own ``sql`` where that is allowed."""
        s, body = self.observer.settings, await _body(request)
        if s.audit_table is None:
            raise Refused("no audit table to ask: start the console with --audit_table")
        ready = {each.name: each.sql for each in audit.ready_queries(s.audit_table)}
        sql = ready.get(str(body.get("name")))
        if sql is None:
            if not s.may_query:
                raise Refused(
                    "one's own SQL is off on a real project: start the console with --allow_query; it is billed"
                )
            sql = str(body.get("sql") or "")
        parameters = {str(key): str(value) for key, value in (body.get("parameters") or {}).items()}
        return JSONResponse(await run_in_threadpool(audit.run, s.audit_table, sql, parameters))

    async def summaries(self, request: Request) -> Response:
        table = self.observer.settings.summary_table
        return JSONResponse({"windows": await run_in_threadpool(summaries.read, table) if table else None})


async def _body(request: Request, most: int = 1 << 20) -> dict[str, Any]:
    """The request's JSON object, of at most ``most`` bytes."""
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
    except Exception as error:
        raise Refused(words(error)) from error


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)
