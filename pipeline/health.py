"""``--health_port``: whether the job lives, whether it is ready, and its metrics as Prometheus reads them.

It listens before the model loads, so that a long load is "alive, not ready". Loopback only, unless a host is given.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from pipeline import outage
from pipeline.flags import UsageError
from pipeline.pulse import Backlog
from transforms import metrics
from transforms.records import ModelInfo

_LOGGER = logging.getLogger("pipeline")

#: Seconds from publish to result.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Health:
    """What the port says of one job; it is told of each step of the job's life."""

    def __init__(self) -> None:
        self._state = "loading the model"
        self._backlog: Backlog = lambda: (0, None)
        self.registry = CollectorRegistry()
        self._results = Counter("beam_hf_results", "Results published", registry=self.registry)
        self._dead = Counter("beam_hf_dead_letters", "Dead letters published", ["stage"], registry=self.registry)
        self._latency = Histogram(
            "beam_hf_latency_seconds",
            "From an input's publishing to its result's",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._waiting = Gauge("beam_hf_backlog_messages", "Fetched and not done with", registry=self.registry)
        self._oldest = Gauge(
            "beam_hf_oldest_publish_timestamp_seconds",
            "When the oldest of the backlog was published",
            registry=self.registry,
        )
        self._ready = Gauge("beam_hf_ready", "1 if the job is ready", registry=self.registry)
        self._away = Gauge(
            "beam_hf_away_seconds", "How long a service has been away", ["service"], registry=self.registry
        )
        self._model = Gauge(
            "beam_hf_model_info",
            "The model that serves",
            ["model", "revision", "task", "device", "dtype"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        metrics.listeners.append(self.hear)

    def close(self) -> None:
        metrics.listeners.remove(self.hear)

    def running(self, backlog: Backlog, info: ModelInfo | None) -> None:
        """The model is loaded, and messages are taken."""
        self._backlog = backlog
        if info is not None:
            self._model.labels(info.model, info.revision, info.task, info.device, info.dtype).set(1)
        self._state = ""

    def draining(self) -> None:
        """No more messages are taken."""
        self._state = "draining"

    def hear(self, latencies: Sequence[int], stages: Mapping[str, int]) -> None:
        """A bundle ended: its results' latencies in milliseconds, its dead letters by stage."""
        self._results.inc(len(latencies))
        for latency in latencies:
            self._latency.observe(latency / 1000)
        for stage, count in stages.items():
            self._dead.labels(stage).inc(count)

    def why_not_ready(self) -> str:
        """In words; empty where the job is ready."""
        away = ", ".join(f"{name} is away" for name in outage.away())
        return self._state or away

    def exposed(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type."""
        waiting, oldest = self._backlog()
        self._waiting.set(waiting)
        self._oldest.set(oldest or 0)
        self._ready.set(not self.why_not_ready())
        self._away.clear()
        for name, seconds in outage.away().items():
            self._away.labels(name).set(seconds)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


@contextlib.contextmanager
def serving(address: tuple[str, int] | None) -> Iterator[Health | None]:
    """The port at ``address``, open while the block runs; None without one.

    Raises:
        UsageError: it is taken, or this machine has no such address.
    """
    if address is None:
        yield None
        return
    health = Health()
    try:
        server = ThreadingHTTPServer(address, _handler(health))
    except OSError as error:
        health.close()
        host, port = address
        raise UsageError(f"--health_port {host}:{port}: {error.strerror}; use another, or stop what has it") from None
    server.daemon_threads = True
    _LOGGER.info("health at http://%s:%s/live, /ready and /metrics", *server.server_address[:2])
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    try:
        yield health
    finally:
        server.shutdown()
        server.server_close()
        health.close()


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/live":
                self._answer(200, {"status": "alive"})
            elif path == "/ready":
                why = health.why_not_ready()
                self._answer(503 if why else 200, {"status": why or "ready"})
            elif path == "/metrics":
                body, content_type = health.exposed(self.headers.get("Accept", ""))
                self._send(200, body, content_type)
            else:
                self._answer(404, {"status": "use /live, /ready or /metrics"})

        def _answer(self, code: int, body: dict[str, Any]) -> None:
            self._send(code, json.dumps(body).encode() + b"\n", "application/json")

        def _send(self, code: int, body: bytes, content_type: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: probes come every few seconds."""

    return Handler
