"""Objects in Cloud Storage that messages name: what is waited for, what is a message's own fault, what is unpacked."""

from __future__ import annotations

import bz2
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests.exceptions
import tiny_models as tiny
from apache_beam.io.filesystems import FileSystems
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from transforms.models import objects
from transforms.models.bisect import isolate
from transforms.models.errors import ElementError, InvalidInput, NotYet, StorageUnavailable
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.tasks import media
from transforms.models.tasks.pictures import decode_image
from transforms.records import Prediction, Request

PICTURE = tiny.png(tiny.picture())


class Store(ThreadingHTTPServer):
    """A bucket ``b`` on loopback: what it holds, and what it answers before that."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held: dict[str, bytes] = {}
        self.faults: Iterator[int] = iter(())
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.server.asked += 1
        url = urlsplit(self.path)
        name = unquote(url.path.rpartition("/o/")[2])
        fault = next(self.server.faults, None)
        data = self.server.held.get(name)
        status = fault or (200 if data is not None else 404)
        if status != 200 or data is None:
            body = json.dumps({"error": {"code": status, "message": f"no {name}"}}).encode()
        elif "alt=media" in url.query:
            body = data
        else:
            body = json.dumps({"name": name, "bucket": "b", "size": str(len(data)), "generation": "1"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket that Beam's own file system reads, with its own client's waits taken out."""
    server = Store()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("apache_beam.internal.gcp.auth._Credentials._credentials_init", True)
    monkeypatch.setattr("apache_beam.io.gcp.gcsio.gcsio_retry.get_retry", lambda options: None)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 401])
def test_an_outage_is_waited_for(store: Store, status: int) -> None:
    """Overload, a failure of the service's own and lost credentials are tried again until the object is there."""
    store.held["x.png"] = PICTURE
    store.faults = iter([status])
    assert objects.read_object("gs://b/x.png") == PICTURE
    assert store.asked >= 3


@pytest.mark.parametrize("status", [400, 403, 404, 410, 412])
def test_what_the_message_named_wrongly_is_its_own_fault(store: Store, status: int) -> None:
    """Not found, forbidden and bad requests blame the message at once."""
    store.faults = iter([status] * 100)
    with pytest.raises(InvalidInput, match="gs://b/x.png") as caught:
        objects.read_object("gs://b/x.png")
    assert store.asked == 1
    assert "x.png" not in caught.value.redacted() and str(status) in caught.value.redacted()


@pytest.mark.parametrize("uri", ["gs://", "gs:///x", "gs://b", "gs://b/", "gs://B\0/x", "gs://" + "b" * 10_000])
def test_bad_uris_are_the_messages_own_fault(store: Store, uri: str) -> None:
    """No bucket, no object, no name."""
    with pytest.raises(InvalidInput) as caught:
        objects.read_object(uri)
    assert len(str(caught.value)) < 700


OUTAGES = [
    api.TooManyRequests("x"),
    api.ServiceUnavailable("x"),
    api.Unauthorized("x"),
    api.RetryError("x", TimeoutError()),
    api.Forbidden("x", errors=[{"reason": "rateLimitExceeded"}]),
    auth.TransportError("x"),
    auth.RefreshError("x"),
    auth.DefaultCredentialsError("x"),
    requests.exceptions.ConnectionError("x"),
    requests.exceptions.ReadTimeout("x"),
    ConnectionResetError("x"),
    TimeoutError("x"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_an_outage_that_lasts_fails_the_bundle(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once patience is over, no element is blamed: the error goes through reading, isolation and the model."""

    def fail(*args: object, **kwargs: object) -> Any:
        raise error

    monkeypatch.setattr(FileSystems, "open", fail)
    monkeypatch.setattr(objects, "PATIENCE_S", 0.2)
    with pytest.raises(StorageUnavailable, match=type(error).__name__) as caught:
        objects.read_object("gs://b/x")
    assert "gs://" not in str(caught.value), "what a message holds is in no log"
    with pytest.raises(StorageUnavailable):
        isolate(lambda uris: media.read_each(uris, lambda _, data: data), ["gs://b/x", "gs://b/y"], InvalidInput)
    assert not issubclass(StorageUnavailable, ElementError)


def test_a_batch_with_an_outage_in_it_fails_as_a_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler raises, so that all of its messages are delivered again; none becomes a failure."""
    monkeypatch.setattr(objects, "PATIENCE_S", 0.2)
    store.faults = iter([401] * 10_000)  # which the client itself does not try again
    handler = HuggingFaceModelHandler(tiny.animals(), "image-classification", dtype="float32")
    model = handler.load_model()
    with pytest.raises(StorageUnavailable):
        handler.run_inference([Request(PICTURE), Request("gs://b/x.png")], model)
    store.faults = iter(())
    store.held["x.png"] = PICTURE
    whole, missing, read = handler.run_inference(
        [Request(PICTURE), Request("gs://b/none.png"), Request("gs://b/x.png")], model
    )
    assert isinstance(whole, Prediction) and isinstance(read, Prediction)
    assert whole.prediction == read.prediction
    assert "404" in missing.error and missing.error_type == "InvalidInput"


@pytest.mark.parametrize(("ending", "pack"), [(".bz2", bz2.compress), (".gz", gzip.compress), (".deflate", bytes)])
def test_nothing_is_unpacked_for_its_name(store: Store, ending: str, pack: Callable[[bytes], bytes]) -> None:
    """Two kilobytes of .bz2 that would be gigabytes stay two kilobytes."""
    packed = pack(b"\0" * 1_000_000)
    store.held["x" + ending] = packed
    assert objects.read_object("gs://b/x" + ending) == packed


def test_many_objects_are_read_in_order(store: Store) -> None:
    """A few are read ahead, and each result stands in its place, also beside what needs no reading."""
    sources: list[bytes | str] = []
    for n in range(40):
        store.held[f"{n}"] = str(n).encode()
        sources.append(f"gs://b/{n}" if n % 3 else str(n).encode())
    assert media.read_each(sources, lambda index, data: (index, int(data))) == [(n, n) for n in range(40)]


def test_what_has_no_room_is_left_for_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded pictures are counted; beyond the bound the rest is not even read."""
    monkeypatch.setattr(media, "CHUNK_BYTES", 3 * tiny.picture().width * tiny.picture().height * 2 - 1)
    read = media.read_each([PICTURE] * 5, lambda _, data: decode_image(data))
    assert [isinstance(each, NotYet) for each in read] == [False, False, True, True, True]
    for n in range(100):
        store.held[f"{n}"] = PICTURE
    media.read_each([f"gs://b/{n}" for n in range(100)], lambda _, data: decode_image(data))
    assert store.asked < 50
