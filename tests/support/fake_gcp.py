"""A local Google Cloud for tests: OAuth tokens, Cloud Storage, Dataflow, Compute regions, IAM, over real protocols.

Only what the Google clients ask of a launch. Objects and jobs are plain dictionaries that a test may look into.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import re
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.iam.v1 import iam_policy_pb2

ACCOUNT = "launcher@my-project.iam.gserviceaccount.com"
#: What the fake's token endpoint hands out; no staged file may hold it.
ACCESS_TOKEN = "ya29.fake-access-token"

_OVERRIDDEN = ("AIPLATFORM", "RUN", "CLOUDRESOURCEMANAGER")


@dataclass
class FakeCloud:
    """State of the fake: what tests set, and what clients did."""

    buckets: dict[str, dict[str, Any]] = field(default_factory=lambda: {"my-bucket": {"location": "EUROPE-WEST4"}})
    objects: dict[str, bytes] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    regions: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"europe-west4": []})
    #: Permissions that testIamPermissions does not grant.
    denied: set[str] = field(default_factory=set)
    #: Folder that rights on objects are limited to, by a condition on the bucket's; "" is all of it.
    folder: str = ""
    token_scopes: str = "https://www.googleapis.com/auth/cloud-platform"
    token_revoked: bool = False
    #: Beginning of paths at which there is nothing, as where a service has no such method.
    mute: str = ""
    port: int = 0
    bigquery: str = ""
    _uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @cached_property
    def _key(self) -> str:
        key = rsa.generate_private_key(65537, 2048)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def key_file(self, folder: Path) -> Path:
        """A service-account key, made for this run, whose tokens come from here."""
        path = folder / "key.json"
        key = {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "1",
            "private_key": self._key,
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(key))
        return path

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables that lead Google's clients here."""
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key_file(folder)),
            "STORAGE_EMULATOR_HOST": self.url,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.url}/compute/v1/",
            **{f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": f"{self.url}/" for name in _OVERRIDDEN},
            "NO_GCE_CHECK": "true",
        }

    def secrets(self) -> list[bytes]:
        """What must not be in anything staged."""
        return [ACCESS_TOKEN.encode(), self._key.splitlines()[5].encode()]

    # One method an endpoint: (match, query, body) → (status, answer).

    def token(self, *_: Any) -> tuple[int, Any]:
        if self.token_revoked:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        return 200, {"access_token": ACCESS_TOKEN, "expires_in": 3600, "token_type": "Bearer"}

    def token_info(self, *_: Any) -> tuple[int, Any]:
        return 200, {"scope": self.token_scopes, "expires_in": "3599", "email": ACCOUNT}

    def bucket(self, match: re.Match, *_: Any) -> tuple[int, Any]:
        found = self.buckets.get(match[1])
        return (200, {"kind": "storage#bucket", "name": match[1], **found}) if found else _not_found(match[1])

    def bucket_permissions(self, match: re.Match, query: dict[str, list[str]], _: bytes) -> tuple[int, Any]:
        limited = {p for p in query["permissions"] if self.folder and p.startswith("storage.objects.")}
        return 200, {"permissions": [p for p in query["permissions"] if p not in self.denied | limited]}

    def list_objects(self, match: re.Match, query: dict[str, list[str]], _: bytes) -> tuple[int, Any]:
        prefix = f"{match[1]}/{query.get('prefix', [''])[0]}"
        return 200, {"items": [self._object(name) for name in sorted(self.objects) if name.startswith(prefix)]}

    def _may(self, permission: str, path: str) -> bool:
        return permission not in self.denied and path.startswith(self.folder)

    def get_object(self, match: re.Match, query: dict[str, list[str]], _: bytes) -> tuple[int, Any]:
        if not self._may("storage.objects.get", urllib.parse.unquote(match[2])):
            return 403, {"error": {"code": 403, "message": "storage.objects.get access denied"}}
        name = f"{match[1]}/{urllib.parse.unquote(match[2])}"
        if name not in self.objects:
            return _not_found(name)
        return 200, self.objects[name] if query.get("alt") == ["media"] else self._object(name)

    def start_upload(self, match: re.Match, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        name = query.get("name", [""])[0]
        if query["uploadType"] == ["resumable"]:
            name = name or json.loads(body)["name"]
            if not self._may("storage.objects.create", name):
                return 403, {"error": {"code": 403, "message": "storage.objects.create access denied"}}
            self._uploads[str(len(self._uploads))] = (f"{match[1]}/{name}", b"")
            return 200, f"/resume/{len(self._uploads) - 1}"
        boundary = body[: body.index(b"\r\n")]
        about, data = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in body.split(boundary)[1:3])
        name = f"{match[1]}/{name or json.loads(about)['name']}"
        self.objects[name] = data
        return 200, self._object(name)

    def resume_upload(self, match: re.Match, _: Any, body: bytes) -> tuple[int, Any]:
        name, before = self._uploads[match[1]]
        self.objects[name] = before + body
        return 200, self._object(name)

    def _object(self, name: str) -> dict[str, Any]:
        bucket, _, path = name.partition("/")
        data = self.objects[name]
        crc32c = base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()
        return {"kind": "storage#object", "bucket": bucket, "name": path, "size": str(len(data)), "crc32c": crc32c}

    def table_permissions(self, match: re.Match, _: Any, body: bytes) -> tuple[int, Any]:
        return 200, {"permissions": [p for p in json.loads(body)["permissions"] if p not in self.denied]}

    def forward(self, path: str) -> tuple[int, Any]:
        """What is read from BigQuery comes from the embedded one: it lacks testIamPermissions only."""
        try:
            with urllib.request.urlopen(f"{self.bigquery}{path}", timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def create_job(self, match: re.Match, _: Any, body: bytes) -> tuple[int, Any]:
        job = json.loads(body)
        self.jobs.append({**job, "id": f"job-{len(self.jobs)}", "currentState": "JOB_STATE_RUNNING"})
        return 200, {key: self.jobs[-1][key] for key in ("id", "name", "clientRequestId", "currentState")}

    def list_jobs(self, *_: Any) -> tuple[int, Any]:
        return 200, {"jobs": [{key: job[key] for key in ("id", "name", "currentState")} for job in self.jobs]}

    def service_permissions(self, match: re.Match, _: Any, body: bytes) -> tuple[int, Any]:
        """Of Vertex AI, Cloud Run and Resource Manager, whose bodies are alike."""
        if match[0].startswith(self.mute or "none"):
            return _not_found(match[0])
        return 200, {"permissions": [p for p in json.loads(body)["permissions"] if p not in self.denied]}

    def services(self, match: re.Match, *_: Any) -> tuple[int, Any]:
        name = f"projects/{match[1]}/locations/europe-west4/services/tei"
        return 200, {"services": [{"name": name, "uri": "https://tei-abc-ez.a.run.app"}]}

    def region(self, match: re.Match, *_: Any) -> tuple[int, Any]:
        quotas = self.regions.get(match[1])
        return _not_found(match[1]) if quotas is None else (200, {"name": match[1], "quotas": quotas})


def _not_found(name: str) -> tuple[int, Any]:
    return 404, {"error": {"code": 404, "message": f"{name} was not found"}}


_ROUTES = (
    ("POST", r"/token", FakeCloud.token),
    ("POST", r"/tokeninfo", FakeCloud.token_info),
    ("GET", r"/storage/v1/b/([^/]+)/iam/testPermissions", FakeCloud.bucket_permissions),
    ("GET", r"/storage/v1/b/([^/]+)/o", FakeCloud.list_objects),
    ("GET", r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", FakeCloud.get_object),
    ("GET", r"/storage/v1/b/([^/]+)", FakeCloud.bucket),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", FakeCloud.start_upload),
    ("PUT", r"/resume/(\d+)", FakeCloud.resume_upload),
    ("POST", r"/v1b3/projects/[^/]+/locations/[^/]+/jobs", FakeCloud.create_job),
    ("GET", r"/v1b3/projects/[^/]+/locations/[^/]+/jobs", FakeCloud.list_jobs),
    ("POST", r"/bigquery/v2/projects/.*:testIamPermissions", FakeCloud.table_permissions),
    ("POST", r"/v1beta1/projects/.*/endpoints/[^/]+:testIamPermissions", FakeCloud.service_permissions),
    ("POST", r"/v1/projects/[^/]+:testIamPermissions", FakeCloud.service_permissions),
    ("POST", r"/v2/projects/.*/services/[^/]+:testIamPermissions", FakeCloud.service_permissions),
    ("GET", r"/v2/projects/([^/]+)/locations/-/services", FakeCloud.services),
    ("GET", r"/compute/v1/projects/[^/]+/regions/([^/]+)", FakeCloud.region),
)


@contextlib.contextmanager
def with_iam(cloud: FakeCloud, pubsub: str) -> Iterator[str]:
    """The Pub/Sub at ``pubsub`` with what it lacks, testIamPermissions; its address."""
    channel = grpc.insecure_channel(pubsub)

    class Proxy(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def call(request: bytes, context: grpc.ServicerContext) -> bytes:
                if details.method == "/google.iam.v1.IAMPolicy/TestIamPermissions":
                    asked = iam_policy_pb2.TestIamPermissionsRequest.FromString(request).permissions
                    granted = [permission for permission in asked if permission not in cloud.denied]
                    return iam_policy_pb2.TestIamPermissionsResponse(permissions=granted).SerializeToString()
                try:
                    return channel.unary_unary(details.method)(request)
                except grpc.RpcError as error:
                    context.abort(error.code(), error.details())

            return grpc.unary_unary_rpc_method_handler(call)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Proxy(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        channel.close()


@contextlib.contextmanager
def start() -> Iterator[FakeCloud]:
    """Serves a fake cloud on a free port of this machine."""
    cloud = FakeCloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, answer = _not_found(path)
            for method, pattern, endpoint in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == self.command:
                    status, answer = endpoint(cloud, match, urllib.parse.parse_qs(query), body)
                    break
            if self.command == "GET" and path.startswith("/bigquery/"):
                status, answer = cloud.forward(self.path)
            self.send_response(status)
            if isinstance(answer, str):
                self.send_header("location", cloud.url + answer)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_header("content-type", "application/octet-stream" if answer is data else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cloud.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
