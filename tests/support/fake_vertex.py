"""Vertex AI and the metadata server of a Google VM, as far as an endpoint's job meets them, on 127.0.0.1.

The metadata server hands out tokens that the fake Vertex AI then wants to see; a test may end one, or shorten its life.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Fault, vector
from google.auth.compute_engine import _metadata

from transforms.models.remote import identity

NAME = "projects/my-project/locations/europe-west4/endpoints/1234567890"
MODEL = "projects/my-project/locations/europe-west4/models/987"
DEPLOYED, VERSION = "5555", "3"
ACCOUNT = "worker@my-project.iam.gserviceaccount.com"
IMAGES = {
    "toolkit": "us-docker.pkg.dev/d/gcr.io/huggingface-pytorch-inference-cu121.2-3.transformers.4-48.ubuntu2204.py311",
    "tei": "us-docker.pkg.dev/d/gcr.io/huggingface-text-embeddings-inference-cu122.1-6.ubuntu2204",
    "tgi": "us-docker.pkg.dev/d/gcr.io/huggingface-text-generation-inference-cu124.3-0.ubuntu2204.py311",
    "vllm": "us-docker.pkg.dev/vertex-ai/vertex-vision-model-garden-dockers/pytorch-vllm-serve:20250601_0916_RC01",
}


class FakeVertex(FakeEndpoint):
    """An endpoint whose container is one of ``IMAGES``, or one with ``route`` for rawPredict."""

    def __init__(self, container: str = "toolkit", route: str = "/predict", **settings: Any) -> None:
        super().__init__("vertex", **settings)
        self.container = container
        self.route = route
        #: What its own account may not see: "endpoint", "model".
        self.hidden: set[str] = set()
        self.dedicated = ""
        self.most_bytes = 1_500_000
        self.deployed = DEPLOYED

    @property
    def endpoint(self) -> str:
        return f"{self.url}/v1/{NAME}"

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        if path == f"/v1/{NAME}" and "endpoint" not in self.hidden:
            about = {"name": NAME, "trafficSplit": {DEPLOYED: 100}}
            about["deployedModels"] = [{"id": DEPLOYED, "model": MODEL, "modelVersionId": VERSION}]
            if self.dedicated:
                about |= {"dedicatedEndpointEnabled": True, "dedicatedEndpointDns": self.dedicated}
            return 200, about, {}
        if path == f"/v1/{MODEL}@{VERSION}" and "model" not in self.hidden:
            spec = {"imageUri": IMAGES.get(self.container, self.container), "predictRoute": self.route}
            return 200, {"name": MODEL, "containerSpec": spec}, {}
        return error(403, "PERMISSION_DENIED", f"Permission denied on resource {path}")

    def post(self, path: str, payload: Any) -> tuple[int, Any, dict[str, str]]:
        if len(json.dumps(payload)) > self.most_bytes:
            return error(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit")
        if path.endswith("/chat/completions"):
            return self.openai("/v1/chat/completions", payload)
        if path == f"/v1/{NAME}:rawPredict":
            status, body, headers = self.openai(self.route, payload)
            return status, body, {**headers, "X-Vertex-AI-Deployed-Model-Id": self.deployed}
        if path != f"/v1/{NAME}:predict":
            return error(404, "NOT_FOUND", f"no such method: {path}")
        try:
            predictions = [self.predict(one, payload.get("parameters")) for one in payload["instances"]]
        except (KeyError, TypeError, ValueError) as wrong:
            return error(400, "INVALID_ARGUMENT", f"the container refuses it: {wrong!r}")
        about = {"deployedModelId": self.deployed, "model": MODEL, "modelVersionId": VERSION}
        return 200, {"predictions": predictions, **about}, {}

    def predict(self, instance: Any, parameters: Any) -> Any:
        """One instance as the container takes it; what it does not take, it raises for."""
        if self.container == "toolkit":
            if not isinstance(instance, str):
                raise TypeError("inputs must be a text")
            if self.answer is not None:
                return self.answer(instance, parameters)
            return vector(refused(instance))
        if self.container == "tei":
            text = refused(instance["inputs"])
            return [vector(text)] if "raw_scores" not in instance else [{"score": 0.75, "label": "A"}]
        if self.container == "tgi":
            full = instance["inputs"] if instance["parameters"].get("return_full_text") else ""
            return f"{full} and more"
        more = f"{refused(instance['prompt'])[:0]} and more"
        return more if instance.get("raw_response") else f"Prompt:\n{instance['prompt']}\nOutput:\n{more}"


def refused(text: Any) -> str:
    """``text``, if a container takes it."""
    if not isinstance(text, str) or "poison" in text:
        raise ValueError("cannot be tokenized")
    return text


def error(status: int, kind: str, words: str, **details: Any) -> tuple[int, Any, dict[str, str]]:
    """As Google's services write it."""
    return status, {"error": {"code": status, "message": words, "status": kind, **details}}, {}


def exhausted(seconds: int) -> Fault:
    """429 of Vertex AI, which says in its details how long to wait."""
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
    return Fault(429, error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", details=[retry])[1])


class FakeMetadata:
    """The metadata server: access tokens and ID tokens, each valid at the fakes that hold ``tokens``."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.given: list[str] = []
        self.audiences: list[str] = []
        self.expires_in = 3600
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self.host = f"127.0.0.1:{self._server.server_port}"

    def environment(self, folder: Any) -> dict[str, str]:
        """Variables that make this the machine's identity."""
        there = {"GCE_METADATA_HOST": self.host, "GCE_METADATA_IP": self.host, "NO_GCE_CHECK": "false"}
        return {**there, "CLOUDSDK_CONFIG": str(folder)}

    def revoke(self) -> None:
        """No token that was given is valid any more."""
        self.tokens.clear()

    def access_token(self) -> dict[str, Any]:
        token = f"ya29.fakeAccessToken-{len(self.given):04d}-{time.monotonic_ns()}"
        self._add(token)
        return {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"}

    def id_token(self, audience: str) -> str:
        self.audiences.append(audience)
        claims = {"aud": audience, "exp": int(time.time()) + self.expires_in, "email": ACCOUNT, "n": len(self.given)}
        parts = [{"alg": "RS256", "typ": "JWT"}, claims, {"signature": "of a fake"}]
        token = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
        self._add(token)
        return token

    def _add(self, token: str) -> None:
        self.given.append(token)
        self.tokens.add(token)

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeMetadata]:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


@contextlib.contextmanager
def this_machine(monkeypatch: pytest.MonkeyPatch, folder: Any) -> Iterator[FakeMetadata]:
    """This machine is a VM of Google's while the block runs: its metadata server gives the tokens."""
    with FakeMetadata().running() as fake:
        for name, value in fake.environment(folder).items():
            monkeypatch.setenv(name, value)
        # google-auth reads these when it is imported, which it was long ago.
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", fake.host)
        monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", False)
        identity._credentials.cache_clear()
        yield fake
        identity._credentials.cache_clear()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeMetadata

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        place = path.removeprefix("/computeMetadata/v1/")
        asked = urllib.parse.parse_qs(query)
        found: Any = ""
        if place.endswith("/token"):
            found = self.fake.access_token()
        elif place.endswith("/identity"):
            found = self.fake.id_token(asked["audience"][0])
        elif "service-accounts" in place:
            found = {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
        elif place == "project/project-id":
            found = "my-project"
        elif place == "universe/universe-domain":
            found = "googleapis.com"
        body = (found if isinstance(found, str) else json.dumps(found)).encode()
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("content-type", "text/plain" if isinstance(found, str) else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""
