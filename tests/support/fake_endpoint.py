"""A small, honest inference server: it answers as the real ones do, and fails where its script says so.

It speaks Text Embeddings Inference, Text Generation Inference, the plain Inference API and the OpenAI-compatible
routes, asks for a token, and keeps a log of every request. ``script`` decides each request's fate.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "c" * 40


@dataclass(frozen=True)
class Fault:
    """What a request gets instead of its answer; status 0 drops the connection without a word, -1 hangs for a while."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """One request, as the server saw it."""

    at: float
    method: str
    path: str
    status: int
    token: str | None
    payload: Any
    content_type: str
    number: int


Script = Callable[[int, str, Any], "Fault | None"]


def vector(text: str) -> list[float]:
    """The embedding that the fake has of ``text``: made from it, so that a mix-up shows."""
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:8]]


def near(one: str, other: str) -> float:
    """The score that the fake has of two texts."""
    return hashlib.sha256(f"{one}/{other}".encode()).digest()[0] / 255


class FakeEndpoint:
    """Runs in threads of this process; ``kind`` is ``tei``, ``inference``, ``tgi`` or ``openai``."""

    def __init__(
        self,
        kind: str = "inference",
        answer: Any = None,
        tokens: set[str] | None = None,
        script: Script | None = None,
        latency_s: float = 0.0,
        tls: tuple[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.answer = answer
        self.tokens = tokens
        self.script = script
        self.latency_s = latency_s
        self.max_client_batch_size = 32
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.cookies: str | None = None  # that came with the last request
        self._now = 0
        self._posts = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def posts(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeEndpoint]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def reply(self, method: str, path: str, payload: Any, token: str | None) -> tuple[int, Any, dict[str, str]] | Fault:
        """Status, body and headers for a request, or the fault that the script has for it."""
        if method == "POST":
            with self._lock:
                self._posts += 1
                number = self._posts
            fault = self.script(number, path, payload) if self.script else None
            if fault is not None:
                return fault
        if self.tokens is not None and token not in self.tokens:
            # Some servers quote the token they refuse.
            return 401, {"error": f"Invalid credentials in Authorization header: {token}"}, {}
        if method == "GET":
            return self.get(path)
        time.sleep(self.latency_s)
        return self.post(path, payload)

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        if path == "/info" and self.kind == "tei":
            about = {"model_id": "org/embedder", "model_sha": SHA, "model_dtype": "float16"}
            pooling = {"embedding": {"pooling": "mean"}}
            return 200, {**about, "model_type": pooling, "max_client_batch_size": self.max_client_batch_size}, {}
        if path == "/info" and self.kind == "tgi":
            return 200, {"model_id": "org/writer", "model_sha": SHA, "model_pipeline_tag": "text-generation"}, {}
        if path == "/v1/models" and self.kind == "openai":
            return 200, {"object": "list", "data": [{"id": "org/served", "object": "model"}]}, {}
        return 404, {"error": "Not Found"}, {}

    def post(self, path: str, payload: Any) -> tuple[int, Any, dict[str, str]]:
        texts = _texts(payload)
        if any("poison" in text for text in texts):
            words = "Input validation error: the input cannot be tokenized"
            return 422, {"error": words, "error_type": "Validation"}, {}
        if self.kind == "tei":
            return self.embeddings_inference(path, texts, payload)
        if self.kind == "openai" or path.startswith("/v1/"):
            return self.openai(path, payload)
        if path != "/":
            return 404, {"error": "Not Found"}, {}
        if self.answer is not None:
            return 200, self.answer(payload) if callable(self.answer) else self.answer, {}
        if self.kind == "tgi":
            full = payload["inputs"] if payload["parameters"].get("return_full_text") else ""
            headers = {"x-prompt-tokens": "3", "x-generated-tokens": "2", "x-compute-time": "0.1"}
            return 200, [{"generated_text": f"{full} and more"}], headers
        return 200, vector(payload["inputs"]), {}

    def embeddings_inference(self, path: str, texts: list[str], payload: Any) -> tuple[int, Any, dict[str, str]]:
        if path in ("/embed", "/predict") and len(texts) > self.max_client_batch_size:
            return (
                413,
                {"error": f"batch size {len(texts)} > maximum allowed batch size", "error_type": "Validation"},
                {},
            )
        headers = {"x-compute-tokens": str(sum(len(text.split()) for text in texts))}
        if path == "/embed":
            return 200, [vector(text)[: payload.get("dimensions")] for text in texts], headers
        if path == "/rerank":
            scored = [{"index": i, "score": near(payload["query"], one)} for i, one in enumerate(payload["texts"])]
            return 200, sorted(scored, key=lambda one: -one["score"]), headers
        if path == "/similarity":
            inputs = payload["inputs"]
            return 200, [near(inputs["source_sentence"], one) for one in inputs["sentences"]], headers
        if path == "/predict":
            scored = [{"score": 0.25, "label": "NEGATIVE"}, {"score": 0.75, "label": "POSITIVE"}]
            return 200, [scored for _ in payload["inputs"]], headers
        return 404, "", {}

    def openai(self, path: str, payload: Any) -> tuple[int, Any, dict[str, str]]:
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        if payload.get("model") == "org/unknown":
            return 404, {"error": {"message": "The model `org/unknown` does not exist.", "code": 404}}, {}
        if path == "/v1/embeddings":
            short = payload.get("dimensions")
            data = [{"index": i, "embedding": vector(text)[:short]} for i, text in enumerate(payload["input"])]
            return 200, {"data": data[::-1], "usage": usage}, {}
        if path == "/v1/rerank":
            pairs = enumerate(near(payload["query"], one) for one in payload["documents"])
            return 200, {"results": [{"index": i, "relevance_score": score} for i, score in pairs][::-1]}, {}
        if path == "/v1/completions":
            return 200, {"choices": [{"text": " and more"}], "usage": usage}, {}
        if path.endswith("/v1/chat/completions"):
            said = {"role": "assistant", "content": "Hello."}
            return 200, {"choices": [{"message": said} for _ in range(payload.get("n", 1))], "usage": usage}, {}
        return 404, {"error": "Not Found"}, {}


def _texts(payload: Any) -> list[str]:
    """Every text in a request."""
    if isinstance(payload, str):
        return [payload]
    if isinstance(payload, dict):
        return [
            text for key in ("inputs", "input", "prompt", "messages", "content") for text in _texts(payload.get(key))
        ]
    return [text for one in payload for text in _texts(one)] if isinstance(payload, list) else []


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEndpoint
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        fake, at = self.fake, time.monotonic()
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = self.headers.get("content-type") or ""
        payload = json.loads(data) if "json" in kind and data else data
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        with fake._lock:
            fake._now += 1
            fake.most_at_once = max(fake.most_at_once, fake._now)
            fake.cookies = self.headers.get("cookie")
        try:
            reply = fake.reply(method, self.path, payload, token)
        finally:
            with fake._lock:
                fake._now -= 1
        fault = reply if isinstance(reply, Fault) else None
        status, body, headers = reply if not fault else (fault.status, fault.body, fault.headers)
        with fake._lock:
            fake.seen.append(Seen(at, method, self.path, status, token, payload, kind, len(fake.seen)))
        if fault and fault.seconds:
            time.sleep(fault.seconds)
        if status <= 0:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        content = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        length = {"content-length": str(len(content))}
        for name, value in {"content-type": "application/json", **length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def elsewhere(latency_s: float) -> Iterator[str]:
    """URL of a healthy endpoint in a process of its own, so that it takes no time from the one that is measured."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(latency_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


if __name__ == "__main__":
    with FakeEndpoint("inference", latency_s=float(sys.argv[1])).running() as endpoint:
        print(endpoint.url, flush=True)
        sys.stdin.read()
