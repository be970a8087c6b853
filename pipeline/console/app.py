"""The web application: the page, its figures as server-sent events, and what the page may look at."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline import __version__
from pipeline.console import actions, audit, filter_sql, samples, summaries, window_filter
from pipeline.console.actions import Refused
from pipeline.console.changes import Changes, body_of
from pipeline.console.filters import matcher, parse
from pipeline.console.guard import Guard, new_token
from pipeline.console.observer import Observer
from pipeline.console.page import Page
from pipeline.console.pictures import picture
from pipeline.console.show import letter, summary, whole
from pipeline.console.spread import Spread

_EVERY_S = 1.0
#: Rows that one event or one search carries: what a person can look at.
_NEWEST = 100
#: Characters of a filter: more than a cause or an attribute of some thousand bytes, quoted, which a click puts there.
_FILTER = 8_000


class Console:
    """The page's requests, answered from one ``observer``. Event streams end when ``stopping()``."""

    def __init__(self, observer: Observer):
        self.observer = observer
        self.token = new_token()
        self.stopping: Callable[[], bool] = lambda: False

    def application(self) -> Starlette:
        routes = [
            *Page().routes(),
            Route("/api/about", self.about),
            Route("/api/events", self.events),
            Route("/api/results", self.results),
            Route("/api/samples", self.samples),
            Route("/api/message", self.message),
            Route("/api/picture", self.picture),
            Route("/api/draft", self.draft),
            Route("/api/dead-letters", self.dead_letters),
            Route("/api/queries", self.queries),
            Route("/api/summaries", self.summaries),
            Route("/api/sql", self.sql),
            Route("/api/query", self.query, methods=["POST"]),
            *Changes(self.observer).routes(),
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
        words, spread = _filter(request), Spread()
        stories, count = await run_in_threadpool(self.observer.book.newest, "ok", _NEWEST, 0, words, spread)
        return JSONResponse({"results": [summary(story) for story in stories], "count": count, **spread.told()})

    async def samples(self, request: Request) -> Response:
        """What passed a step of the drawing last, and what failed there."""
        step = request.query_params.get("step", "")
        return JSONResponse(await run_in_threadpool(samples.at, self.observer.book, step, _filter(request)))

    async def message(self, request: Request) -> Response:
        """One message's whole story: what the topics told, and its audit rows."""
        message_id, s = _id(request), self.observer.settings
        story = self.observer.book.get(message_id)
        answer: dict[str, Any] = {"story": None, "audit": None, "audit_error": None}
        if story is not None:
            answer["story"] = whole(story, self.observer.book.case(story))
        if s.audit_table:
            try:
                answer["audit"] = await run_in_threadpool(audit.message_rows, s.audit_table, message_id)
            except Refused as error:
                answer["audit_error"] = str(error)
        found = story is not None or bool(answer["audit"])
        return JSONResponse(answer, 200 if found or answer["audit_error"] else 404)

    async def picture(self, request: Request) -> Response:
        """The picture that came in with a message, as pixels and nothing else."""
        story = self.observer.book.get(_id(request))
        found = picture(story.source()) if story else None
        return Response(found[1], media_type=found[0]) if found else JSONResponse({"error": "no picture"}, 404)

    async def draft(self, request: Request) -> Response:
        """What of a dead letter can be edited."""
        story = self.observer.book.get(_id(request))
        if story is None or story.status != "dead_letter" or story.output is None:
            return JSONResponse({"error": "no dead letter that this console keeps"}, 404)
        return JSONResponse(actions.draft(story.output))

    async def dead_letters(self, request: Request) -> Response:
        """The cases that fit, as of number ``until``, by reason and one by one; and how many came in since."""
        book, text = self.observer.book, _filter(request)
        fits = matcher(text)
        counts = book.case_counts()
        until = min([counts["number"], *_numbers(request, "until")])
        found, groups = await run_in_threadpool(book.cases, fits, until)
        later, _ = book.cases(fits) if until < counts["number"] else (found, None)
        # A list that is on the page asks for its own rows, whatever became of them.
        shown = set(_numbers(request, "cases"))
        rows = [case for case in book.cases(lambda _: True)[0] if case.number in shown] if shown else found
        return JSONResponse(
            {
                "letters": [letter(case) for case in rows[:_NEWEST]],
                "count": len(found),
                "groups": groups,
                "until": until,
                "new": len(later) - len(found),
                "counts": counts,
            }
        )

    async def queries(self, request: Request) -> Response:
        table = self.observer.settings.audit_table
        found = audit.ready_queries(table) if table else []
        return JSONResponse(
            {"queries": [{"name": q.name, "about": q.about, "sql": q.sql, "parameters": q.parameters} for q in found]}
        )

    async def query(self, request: Request) -> Response:
        """Runs a ready query by ``name``, or one's own ``sql`` where that is allowed."""
        s, body = self.observer.settings, await body_of(request)
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
        parameters = body.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise Refused("parameters: use an object")
        parameters = {str(key): str(value) for key, value in parameters.items()}
        return JSONResponse(await run_in_threadpool(audit.run, s.audit_table, sql, parameters))

    async def summaries(self, request: Request) -> Response:
        table = self.observer.settings.summary_table
        windows = await run_in_threadpool(summaries.read, table) if table else None
        return JSONResponse({"windows": windows and window_filter.narrow(windows, _filter(request))})

    async def sql(self, request: Request) -> Response:
        """The filter as a query of the audit table."""
        table = self.observer.settings.audit_table
        if table is None:
            raise Refused("no audit table to ask: start the console with --audit_table")
        return JSONResponse({"sql": filter_sql.select(table, parse(_filter(request)))})


def _filter(request: Request) -> str:
    """The page's filter; one that was cut would find what nobody asked for."""
    text = request.query_params.get("q", "")
    if len(text) > _FILTER:
        raise Refused(f"the filter has {len(text):,} characters, over {_FILTER:,}")
    return text


def _id(request: Request) -> str:
    """The message that is asked for; in the query, for an id such as ``..`` would be another path."""
    return request.query_params.get("id", "")


def _numbers(request: Request, name: str) -> list[int]:
    """What a parameter lists, by commas; what is no number in it is left out."""
    return [int(each) for each in request.query_params.get(name, "").split(",") if re.fullmatch("[0-9]{1,18}", each)]


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)
