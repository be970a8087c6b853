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
    #: What the branch ``main`` is, and what it was before, by commit.
    commit = COMMIT
    older: dict[str, dict[str, bytes]] = {}

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
        for commit, files in self.older.items():
            if f"/{commit}" in path:
                self.commit, self.files = commit, files
        if "acme/gated" in path:
            return self.reply(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        if "acme/tiny" not in path:
            return self.reply(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if path.startswith("/api/models/acme/tiny"):
            parts = path.removeprefix("/api/models/acme/tiny").strip("/").split("/")
            if len(parts) == 2 and parts[1] not in ("main", self.commit):
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
                "sha": self.commit,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "private": False,
            }
            return self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        data = self.files.get(path.split(f"/resolve/{self.commit}/")[-1].split("/resolve/main/")[-1])
        if data is None:
            return self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=self.commit)
        return self.reply(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=self.commit)

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


def _files(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


class Store:
    """A store that serves: its ``url``, the paths that were ``seen`` in requests, and what it holds."""

    def __init__(self, kind: type[_Quiet], folder: str) -> None:
        self.seen: list[str] = []
        self._handler = type("Handler", (kind,), {"files": _files(folder), "seen": self.seen, "older": {}})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hold(self, folder: str, commit: str = COMMIT) -> None:
        """What ``folder`` has now is held from now on; of a hub it is the new ``commit`` of its branch."""
        kind = self._handler
        kind.older = {**kind.older, kind.commit: kind.files} if commit != kind.commit else kind.older
        kind.files, kind.commit = _files(folder), commit

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving(kind: type[_Quiet], folder: str) -> Iterator[Store]:
    """Serves the files of ``folder``."""
    store = Store(kind, folder)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def serve(kind: type[_Quiet], folder: str) -> Iterator[tuple[str, list[str]]]:
    """Serves the files of ``folder``; gives the server's URL and the paths that were asked of it."""
    with serving(kind, folder) as store:
        yield store.url, store.seen


Hub, Storage = _Hub, _Storage
