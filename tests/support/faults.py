"""Faults on the way to a server: proxies on the loopback that fail as they are told to, and forward all else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import grpc
import orjson


class TcpProxy:
    """Forwards bytes to ``target`` (``host:port``). ``down`` refuses connections and cuts those there are."""

    def __init__(self, target: str):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._address = ("127.0.0.1", 0)
        self.up()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._address[1]}"

    def up(self) -> None:
        listener = socket.create_server(self._address)
        self._listener, self._address = listener, listener.getsockname()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown() wakes the thread in accept(), which close() alone does not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection, whatever is on its way."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            self._open.discard(end)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Answer:
    """Answer in the server's place: an HTTP status and reason, as BigQuery's envelope has them."""

    status: int
    reason: str


@dataclass(frozen=True)
class Hang:
    """Say nothing for ``seconds``, then hang up; the server hears of the request if ``forwarded``."""

    seconds: float
    forwarded: bool = False


@dataclass(frozen=True)
class DropHalf:
    """Forward the request, and hang up in the middle of the answer."""


@dataclass(frozen=True)
class RejectRows:
    """Forward ``insertAll`` without the rows that ``which`` picks, and report those as invalid."""

    which: Callable[[dict[str, Any]], bool]
    reason: str = "invalid"


HttpFault = Answer | Hang | DropHalf | RejectRows


class HttpProxy:
    """In front of an HTTP server; ``fault(method, path)`` says what happens to a request, None forwards it."""

    def __init__(self, target: str):
        self.fault: Callable[[str, str], HttpFault | None] = lambda method, path: None
        self.faults = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_HttpHandler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.target = urlsplit(target).netloc or target
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HttpProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _HttpHandler(BaseHTTPRequestHandler):
    proxy: HttpProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault(self.command, self.path)
        self.proxy.faults += fault is not None
        if isinstance(fault, Answer):
            detail = {"message": f"scripted {fault.reason}", "reason": fault.reason, "domain": "global"}
            envelope = {"error": {"code": fault.status, "message": detail["message"], "errors": [detail]}}
            self._write(fault.status, orjson.dumps(envelope))
        elif isinstance(fault, Hang):
            if fault.forwarded:
                self._ask(body)
            time.sleep(fault.seconds)
            self.close_connection = True
        elif isinstance(fault, RejectRows) and "/insertAll" in self.path:
            self._write(200, self._insert(orjson.loads(body), fault))
        else:
            status, answer = self._ask(body)
            self._write(status, answer, half=isinstance(fault, DropHalf))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 - the names http.server calls

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() in ("content-type", "accept")}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def _insert(self, request: dict[str, Any], fault: RejectRows) -> bytes:
        rows = request["rows"]
        bad = {index for index, row in enumerate(rows) if fault.which(row["json"])}
        good = [row for index, row in enumerate(rows) if index not in bad]
        if good:
            status, answer = self._ask(orjson.dumps({**request, "rows": good}))
            assert status == 200 and "insertErrors" not in orjson.loads(answer), answer
        error = {"reason": fault.reason, "location": "prediction", "debugInfo": "", "message": "scripted rejection"}
        return orjson.dumps({"insertErrors": [{"index": index, "errors": [error]} for index in sorted(bad)]})

    def _write(self, status: int, answer: bytes, half: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if half else answer)
        self.wfile.flush()
        self.close_connection = self.close_connection or half

    def log_message(self, format: str, *args: Any) -> None:
        pass


class GrpcProxy:
    """In front of a gRPC server; ``fault(method, request)`` returns the status to fail a unary call with, or None.

    ``method`` is a short name such as ``Publish``, ``request`` the serialized message.
    """

    def __init__(self, target: str):
        self.fault: Callable[[str, bytes], grpc.StatusCode | None] = lambda method, request: None
        self.faults = 0
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(target, [*options, ("grpc.max_reconnect_backoff_ms", 1_000)])
        self._server = grpc.server(futures.ThreadPoolExecutor(64), options=options)
        self._server.add_generic_rpc_handlers((_Forward(self, self._channel),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> GrpcProxy:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
        self._channel.close()


class _Forward(grpc.GenericRpcHandler):
    def __init__(self, proxy: GrpcProxy, channel: grpc.Channel):
        self._proxy = proxy
        self._channel = channel

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method
        if name.endswith("/StreamingPull"):
            streams = self._channel.stream_stream(name)
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, context: self._stream(streams, requests, context)
            )
        unary = self._channel.unary_unary(name)
        short = name.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._call(unary, short, request, context))

    def _call(self, unary: Any, name: str, request: bytes, context: grpc.ServicerContext) -> Any:
        code = self._proxy.fault(name, request)
        if code is not None:
            self._proxy.faults += 1
            context.abort(code, f"scripted {code.name}")
        try:
            return unary(request, timeout=context.time_remaining())
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())

    def _stream(self, streams: Any, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        call = streams(requests)
        context.add_callback(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                context.abort(error.code(), error.details())
