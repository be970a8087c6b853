"""Media uploads: the two ways in which Google's clients send a load job's file, at once or in parts.

https://cloud.google.com/bigquery/docs/reference/api-uploads
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from email import message_from_bytes, policy
from typing import Any, NamedTuple

import orjson

from pipeline.emulators.bigquery.api import Api
from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request, check_body

_PATH = re.compile(r"(?:/resumable)?/upload/bigquery/v2/projects/([^/]+)/jobs")
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
#: All of one file, and how many may be under way.
MAX_BYTES = 64 * 1024 * 1024
_SESSIONS = 16


class Reply(NamedTuple):
    """An HTTP answer: status, headers, body."""

    status: int
    headers: dict[str, str]
    body: Mapping[str, Any]


class Uploads:
    """Uploads under way, and the jobs that they become."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, tuple[Any, bytearray]] = OrderedDict()

    def call(
        self, verb: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply | None:
        """Answers a request for an upload; ``None`` if it is for something else."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        project, kind = match[1], query.get("uploadType")
        given = {name.lower(): value for name, value in headers.items()}
        if verb == "POST" and kind == "multipart":
            resource, media = _parts(given.get("content-type", ""), body)
            return self._finish(project, resource, media)
        if verb == "POST" and kind == "resumable":
            session = secrets.token_hex(16)
            with self._lock:
                self._sessions[session] = (_resource(body), bytearray())
                while len(self._sessions) > _SESSIONS:
                    self._sessions.popitem(last=False)
            location = f"http://{given['host']}{path}?uploadType=resumable&upload_id={session}"
            return Reply(200, {"Location": location, "X-GUploader-UploadID": session}, {})
        if verb in ("PUT", "POST") and "upload_id" in query:
            return self._continue(project, query["upload_id"], given.get("content-range"), body)
        raise BigQueryError("notImplemented", f"uploadType {kind}: the embedded BigQuery takes multipart and resumable")

    def _continue(self, project: str, session: str, range_: str | None, body: bytes) -> Reply:
        try:
            resource, received = self._sessions[session]
        except KeyError:
            raise BigQueryError("notFound", f"Not found: upload {session}") from None
        match = _RANGE.fullmatch(range_ or f"bytes */{len(body)}")
        if match is None or (
            match[1] and (int(match[1]) > len(received) or int(match[2]) - int(match[1]) + 1 != len(body))
        ):
            raise BigQueryError("invalid", f"Content-Range {range_}: {len(received)} bytes are here, {len(body)} came")
        start = int(match[1]) if match[1] else 0 if body else len(received)
        received[start:] = body
        if len(received) > MAX_BYTES:
            raise BigQueryError("requestTooLarge", f"the embedded BigQuery loads files of at most {MAX_BYTES} bytes")
        if match[3] == "*" or len(received) < int(match[3]):
            return Reply(308, {"Range": f"bytes=0-{len(received) - 1}"} if received else {}, {})
        reply = self._finish(project, resource, bytes(received))
        with self._lock:
            self._sessions.pop(session, None)
        return reply

    def _finish(self, project: str, resource: Any, media: bytes) -> Reply:
        body = check_body("jobs.insert", resource)
        return Reply(200, {}, self._api.call("jobs.insert", Request({"projectId": project}, {}, body, media=media)))


def _resource(body: bytes) -> Any:
    try:
        return orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BigQueryError("invalid", f"Parse Error: {error}") from None


def _parts(content_type: str, body: bytes) -> tuple[Any, bytes]:
    """The job and the file of a ``multipart/related`` body."""
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body, policy=policy.HTTP)
    parts = list(message.iter_parts()) if message.is_multipart() else []
    if len(parts) != 2:
        raise BigQueryError("invalid", f"a multipart upload is two parts, a job and a file; here are {len(parts)}")
    boundary = b"--" + str(message.get_boundary()).encode()
    # The file as it was sent: the parser would change its line ends.
    media = body.split(boundary)[2].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    described = parts[0].get_payload(decode=True)
    assert isinstance(described, bytes)
    return _resource(described), media
