"""Page: the console's own files, read once and answered from memory."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_STATIC = Path(__file__).with_name("static")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
#: The first paint waits for all style sheets: they are one file to the browser, those that overrule others last.
_SHEETS = ("vendor/uPlot.min.css", "style.css", "views.css")


class Page:
    """The routes of the page, its scripts, style and icon."""

    def __init__(self) -> None:
        paths = [path for path in _STATIC.rglob("*") if path.suffix in _KINDS]
        self._files = {path.relative_to(_STATIC).as_posix(): (path.read_bytes(), _KINDS[path.suffix]) for path in paths}
        self._files["page.css"] = b"\n".join(self._files.pop(name)[0] for name in _SHEETS), _KINDS[".css"]

    def routes(self) -> list[Route]:
        return [Route("/", self._file), Route("/static/{name:path}", self._file)]

    async def _file(self, request: Request) -> Response:
        found = self._files.get(request.path_params.get("name", "index.html"))
        return Response(found[0], media_type=found[1]) if found else Response("Not Found", 404)
