"""The HTTP in front of the API: routing, bodies, error envelopes, connections."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import zlib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from pipeline.emulators.bigquery.api import Api
from pipeline.emulators.bigquery.discovery import discovery_document
from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import METHODS, Request, check_body, check_parameters
from pipeline.emulators.bigquery.tabledata import MAX_REQUEST_BYTES
from pipeline.emulators.bigquery.uploads import Reply, Uploads
from pipeline.emulators.guard import refusal

_log = logging.getLogger(__name__)

#: Bodies larger than this are not even read to their end.
_MAX_BODY_BYTES = 8 * MAX_REQUEST_BYTES

_DISCOVERY_PATHS = ("/discovery/v1/apis/bigquery/v2/rest", "/$discovery/rest")
_PROJECTS = re.compile("(?:/upload)?(?:/bigquery/v2)?/projects/.")
_ROUTES = [
    (verb, re.compile("(?:/bigquery/v2)?/" + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), name)
    for name, (verb, path, _) in METHODS.items()
]


class BigQueryServer(ThreadingHTTPServer):
    """An HTTP server around one :class:`Api`; port 0 takes any free one."""

    daemon_threads = False  # so that closing waits for the requests under way
    request_queue_size = 128

    def __init__(self, api: Api, port: int = 0) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api
        self.uploads = Uploads(api)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Answers what has been asked, takes no more, and waits for the threads."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is no event."""
        _log.debug("connection from %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: BigQueryServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two small writes: Nagle would hold the second back for 40 ms
    timeout = 600  # seconds that an idle connection is kept

    def answer(self) -> None:
        """Reads one request, calls the API, writes its answer or its error."""
        headers: Mapping[str, str] = {}
        try:
            self._check_sender()
            status, headers, answer = self._call(self._read_body())
            payload = orjson.dumps(answer) if answer else b""
        except BigQueryError as error:
            status, payload = error.code, orjson.dumps(error.envelope())
        except Exception as error:
            _log.exception("%s %s failed", self.command, self.path)
            failure = BigQueryError("internalError", f"The embedded BigQuery failed: {type(error).__name__}: {error}")
            status, payload = failure.code, orjson.dumps(failure.envelope())
        self._send(204 if status == 200 and not payload and not headers else status, payload, headers)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the names http.server calls

    def _send(self, status: int, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(payload)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(payload)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What ``http.server`` itself refuses, in the API's shape too: bytes that are not HTTP, unknown verbs."""
        self.close_connection = True
        reason = "notImplemented" if code == 501 else "invalid"
        if getattr(self, "request_version", "HTTP/0.9") == "HTTP/0.9":
            self.request_version = "HTTP/1.0"  # or the answer would have no status line
        self._send(code, orjson.dumps(BigQueryError(reason, message or f"HTTP status {code}").envelope()))

    def _check_sender(self) -> None:
        reason = refusal(dict(self.headers.items()))
        if reason:
            self.close_connection = True  # its body is not read
            raise BigQueryError("accessDenied", f"Access Denied: {reason}")

    def _read_body(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if length < 0 or "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.close_connection = True
            raise BigQueryError("invalid", "a request needs a Content-Length, a number of bytes")
        if length > _MAX_BODY_BYTES:
            self.close_connection = True
            raise BigQueryError(
                "requestTooLarge", f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes."
            )
        body = self.rfile.read(length)
        if self.headers.get("Content-Encoding") == "gzip":
            unpacking = zlib.decompressobj(wbits=31)
            try:
                body = unpacking.decompress(body, _MAX_BODY_BYTES)
            except zlib.error as error:
                raise BigQueryError("invalid", f"the body is not gzip, as Content-Encoding says: {error}") from None
            if not unpacking.eof:
                raise BigQueryError("invalid", f"the gzip body is cut short, or over {_MAX_BODY_BYTES} bytes")
        return body

    def _call(self, body: bytes) -> Reply:
        url = urlsplit(self.path)
        query: dict[str, str] = {}
        for key, value in parse_qsl(url.query):  # what is repeated is a list
            query[key] = f"{query[key]},{value}" if key in query else value
        if url.path in _DISCOVERY_PATHS:
            return Reply(200, {}, discovery_document(self.server.url))
        upload = self.server.uploads.call(self.command, url.path, query, dict(self.headers.items()), body)
        if upload is not None:
            return upload
        for method, pattern, name in _ROUTES:
            match = pattern.fullmatch(url.path)
            if method == self.command and match:
                path = {key: unquote(value) for key, value in match.groupdict().items()}
                parsed = check_body(name, _parse(body))
                check_parameters(name, query)
                request = Request(path, query, parsed, len(body), self.headers.get("If-Match"))
                return Reply(200, {}, self.server.api.call(name, request))
        # A client may take a 404 for a resource that is not there, which it is glad of when it deletes.
        raise BigQueryError(
            "notImplemented" if _PROJECTS.match(url.path) else "notFound",
            f"{self.command} {url.path} is not a method of the embedded BigQuery; it has {', '.join(METHODS)}",
        )

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _parse(body: bytes) -> Any:
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BigQueryError("invalid", f"Parse Error: {error}") from None
