"""A small Hugging Face hub and a small Cloud Storage on loopback, for the tests that fetch models."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    seen: list[str]

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Hub(_Quiet):
    """Model ``acme/tiny`` at ``main`` and ``COMMIT``, ``acme/gated`` behind terms; nothing else."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.seen.append(path)
        if "acme/gated" in path:
            return self.reply(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        if "acme/tiny" not in path:
            return self.reply(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if path.startswith("/api/models/acme/tiny"):
            parts = path.removeprefix("/api/models/acme/tiny").strip("/").split("/")
            if len(parts) == 2 and parts[1] not in ("main", COMMIT):
                return self.reply(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            if parts[0] == "tree":
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in self.files.items()
                ]
                return self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
            siblings = [{"rfilename": name} for name in self.files]
            info = {
                "id": "acme/tiny",
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "private": False,
            }
            return self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        data = self.files.get(path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1])
        if data is None:
            return self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        return self.reply(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


class _Storage(_Quiet):
    """Bucket ``models`` with the files under ``tiny/``; ``broken/`` has a file that arrives damaged."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.seen.append(path)
        if "/b/models/o" not in path:
            error = {"error": {"code": 403, "message": "robot@my-project does not have storage.objects.list access"}}
            return self.reply(403, json.dumps(error).encode(), Content_Type="application/json")
        if path.endswith("/o"):
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            names = [name for folder in ("tiny", "broken") for name in self._names(folder) if name.startswith(prefix)]
            return self.reply(
                200, json.dumps({"items": [self._item(n) for n in names]}).encode(), Content_Type="application/json"
            )
        name = path.rpartition("/b/models/o/")[2]
        data = self.files[name.partition("/")[2]]
        if name.startswith("broken/") and name.endswith(".safetensors"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self.reply(
            200, data, X_Goog_Hash=f"crc32c={self._item(name)['crc32c']}", Content_Type="application/octet-stream"
        )

    def _names(self, folder: str) -> list[str]:
        return [f"{folder}/{name}" for name in self.files]

    def _item(self, name: str) -> dict[str, str]:
        data = self.files[name.partition("/")[2]]
        checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        return {"name": name, "bucket": "models", "size": str(len(data)), "crc32c": checksum, "generation": "1"}


@contextmanager
def serve(kind: type[_Quiet], folder: str) -> Iterator[tuple[str, list[str]]]:
    """Serves the files of ``folder``; gives the server's URL and the paths that were asked of it."""
    root = Path(folder)
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"files": files, "seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


Hub, Storage = _Hub, _Storage
