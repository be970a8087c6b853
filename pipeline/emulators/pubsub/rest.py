"""REST around the methods: HTTP/1.1 in threads of their own, the methods themselves on the server's one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import select
import socket
import threading
import zlib
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipeline.emulators.guard import refusal
from pipeline.emulators.pubsub.errors import InvalidArgument, PermissionDenied, Refused, Unimplemented
from pipeline.emulators.pubsub.methods import Method
from pipeline.emulators.pubsub.routes import read_request, route, write_answer

_log = logging.getLogger(__name__)

#: A publish of 10 MB in base64, with room: the broker refuses what is too large in the service's words.
_MAX_BODY_BYTES = 64 * 1024 * 1024
#: How long a pull waits for messages; the service answers an empty pull sooner than a client gives up.
_PULL_SECONDS = 10.0


class RestServer(ThreadingHTTPServer):
    """Listens on a port of its own on loopback. ``commit`` makes what a method did outlive the process."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, methods: dict[str, Method], commit: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._methods = methods
        self._commit = commit
        self._loop = loop

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serves in a thread."""
        self._serving = threading.Thread(target=self.serve_forever, daemon=True)
        self._serving.start()

    def stop(self) -> None:
        """Takes no more connections."""
        self.shutdown()
        self._serving.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is no event."""
        _log.debug("connection from %s ended", client_address, exc_info=True)

    def call(self, verb: str, target: str, body: bytes, gone: Callable[[], bool]) -> bytes:
        """Answers one request in JSON; raises ``Refused``. ``gone`` says, while it waits, whether the client left."""
        url = urlsplit(target)
        query = parse_qsl(url.query, keep_blank_values=True)
        found = route(verb, url.path)
        if found.method not in self._methods:
            raise Unimplemented(f"The embedded Pub/Sub has no {found.method}.")
        method = self._methods[found.method]
        answer = method.handle(read_request(method.request, found, query, body), _Deadline())
        running = asyncio.run_coroutine_threadsafe(self._committed(answer), self._loop)
        while True:
            try:
                return write_answer(running.result(0.2), query)
            except concurrent.futures.TimeoutError:
                if gone():
                    running.cancel()  # so that it takes no messages with it
                    raise ConnectionError("the client has left") from None

    async def _committed(self, answer: Awaitable[Any]) -> Any:
        result = await answer
        self._commit()
        return result


class _Deadline:
    """The one thing that methods ask of gRPC's context."""

    def time_remaining(self) -> float:
        return _PULL_SECONDS


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600  # seconds that an idle connection is kept

    def answer(self) -> None:
        """Reads one request, calls the method, writes its answer or its error."""
        try:
            reason = refusal(dict(self.headers.items()))
            if reason:
                self.close_connection = True  # its body is not read
                raise PermissionDenied(reason)
            status, payload = 200, self.server.call(self.command, self.path, self._read_body(), self._gone)
        except Refused as error:
            status, payload = error.http, _envelope(error.http, error.code.name, str(error))
        except ConnectionError:
            raise
        except Exception as error:
            _log.exception("%s %s failed", self.command, self.path)
            status, payload = 500, _envelope(500, "INTERNAL", f"{type(error).__name__}: {error}")
        self._send(status, payload)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the names http.server calls

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._read_chunks()
        else:
            length = self.headers.get("Content-Length") or "0"
            body = self.rfile.read(self._checked(int(length) if length.isdecimal() else -1))
        if self.headers.get("Content-Encoding", "").lower() == "gzip":
            unpacking = zlib.decompressobj(wbits=31)
            try:
                body = unpacking.decompress(body, _MAX_BODY_BYTES)
            except zlib.error as error:
                raise InvalidArgument(f"The body is not gzip, as Content-Encoding says: {error}") from None
            if not unpacking.eof:
                raise InvalidArgument(f"The gzip body is cut short, or over {_MAX_BODY_BYTES} bytes.")
        return body

    def _read_chunks(self) -> bytes:
        body = b""
        while True:
            line = self.rfile.readline(100).partition(b";")[0].strip()
            try:
                size = self._checked(int(line, 16), len(body))
            except ValueError:
                size = self._checked(-1)
            body += self.rfile.read(size)
            if not size:
                while self.rfile.readline(65536).strip():
                    pass  # trailers
                return body
            self.rfile.readline(10)

    def _checked(self, length: int, before: int = 0) -> int:
        if not 0 <= length <= _MAX_BODY_BYTES - before:
            self.close_connection = True
            raise InvalidArgument(f"Request payload size exceeds the limit: {_MAX_BODY_BYTES} bytes, or is no number.")
        return length

    def _gone(self) -> bool:
        """Whether the client has closed the connection while it waited."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send(self, status: int, payload: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(payload)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(payload)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What ``http.server`` itself refuses, in the API's shape too: bytes that are not HTTP, unknown verbs."""
        self.close_connection = True
        if getattr(self, "request_version", "HTTP/0.9") == "HTTP/0.9":
            self.request_version = "HTTP/1.0"  # or the answer would have no status line
        self._send(code, _envelope(code, "UNIMPLEMENTED" if code == 501 else "INVALID_ARGUMENT", message or ""))

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _envelope(code: int, status: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": status}}).encode()
