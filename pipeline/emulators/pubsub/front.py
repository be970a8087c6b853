"""One port for gRPC and REST: a process of its own that reads a connection's first bytes and passes it on.

A gRPC connection begins with HTTP/2's preface and goes to the gRPC server's own loopback port, any other to the HTTP
server's. It is a process because the server's one event loop has better to do than to copy bytes.

Run as ``python front.py LISTENER GRPC_PORT REST_PORT``, the first an inherited socket's number. It imports nothing of
this package, so it is small and starts at once. It ends when its standard input does, and so with its parent.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

#: The beginning of ``PRI * HTTP/2.0``, which no HTTP/1.1 method has.
_PREFACE = b"PRI"
_CHUNK = 1024 * 1024
#: How long a port may still be held by a server that was just killed.
_BIND_SECONDS = 1.0


def listen(port: int) -> socket.socket:
    """The server's own socket on 127.0.0.1, of ``port`` or, for 0, any free one; raises ``OSError`` if it is taken."""
    give_up = time.monotonic() + _BIND_SECONDS
    while True:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def start(listener: socket.socket, grpc_port: int, rest_port: int) -> subprocess.Popen[bytes]:
    """Runs this module as a process; closing its ``stdin`` ends it."""
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-I", "-S", __file__, str(listener.fileno()), str(grpc_port), str(rest_port)],
        stdin=subprocess.PIPE,
        pass_fds=[listener.fileno()],
        start_new_session=True,  # Ctrl-C reaches the server alone, which still has calls to answer
    )


@dataclass(slots=True, eq=False)
class _End:
    """One end of a connection. What is read from it is written to ``other``; ``unsent`` waits to be written to it."""

    connection: socket.socket
    other: _End | None = None
    unsent: bytes = b""
    reading: bool = True
    ended: bool = field(default=False)


class _Front:
    def __init__(self, listener: socket.socket, grpc_port: int, rest_port: int) -> None:
        self.listener = listener
        self.ports = {True: grpc_port, False: rest_port}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, events in self.selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                if events & selectors.EVENT_WRITE:
                    self.write(key.data)
                if events & selectors.EVENT_READ and key.data.connection.fileno() >= 0:
                    self.read(key.data)

    def accept(self) -> None:
        with contextlib.suppress(OSError):  # one that is gone already
            self.add(_End(self.listener.accept()[0]))

    def add(self, end: _End) -> None:
        end.connection.setblocking(False)
        end.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.selector.register(end.connection, selectors.EVENT_READ, end)

    def read(self, end: _End) -> None:
        try:
            data = end.connection.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return self.close(end)
        if end.other is None:
            return self.sniff(end, data)
        if not data:
            return self.end(end, end.other)
        return self.send(end.other, data)

    def sniff(self, end: _End, data: bytes) -> None:
        """Connects ``end`` once its first bytes tell where to; until then they are kept in ``unsent``."""
        first = end.unsent + data
        if not data:
            return self.close(end)
        if len(first) < len(_PREFACE) and _PREFACE.startswith(first):
            end.unsent = first
            return None
        end.unsent = b""
        try:
            port = self.ports[first.startswith(_PREFACE)]
            end.other = _End(socket.create_connection(("127.0.0.1", port), timeout=10), end)
        except OSError:
            return self.close(end)
        self.add(end.other)
        return self.send(end.other, first)

    def send(self, end: _End, data: bytes) -> None:
        """Writes to ``end``; while it takes no more, nothing is read from the other."""
        try:
            sent = end.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.close(end)
        end.unsent = data[sent:]
        if end.unsent and end.other:
            end.other.reading = False
            self.watch(end)
            self.watch(end.other)
        return None

    def write(self, end: _End) -> None:
        assert end.other is not None
        self.send(end, end.unsent)
        if not end.unsent and end.connection.fileno() >= 0:
            end.other.reading = not end.other.ended
            self.watch(end)
            self.watch(end.other)

    def end(self, end: _End, other: _End) -> None:
        """``end`` says no more: so is ``other`` told, and when neither does the connection is over."""
        end.ended, end.reading = True, False
        if other.ended:
            return self.close(end)
        with contextlib.suppress(OSError):
            other.connection.shutdown(socket.SHUT_WR)
        return self.watch(end)

    def watch(self, end: _End) -> None:
        """Has the selector look for what ``end`` waits for."""
        events = (selectors.EVENT_READ if end.reading else 0) | (selectors.EVENT_WRITE if end.unsent else 0)
        with contextlib.suppress(KeyError):
            self.selector.unregister(end.connection)
        if events:
            self.selector.register(end.connection, events, end)

    def close(self, end: _End) -> None:
        for either in (end, end.other):
            if either is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(either.connection)
                either.connection.close()


if __name__ == "__main__":
    number, grpc_port, rest_port = map(int, sys.argv[1:])
    _Front(socket.socket(fileno=number), grpc_port, rest_port).run()
