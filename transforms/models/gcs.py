"""Models in a ``gs://`` folder: listed cheaply, downloaded once, checked, put in place at once or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from google.api_core.exceptions import ClientError, GoogleAPIError, TooManyRequests
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage  # type: ignore[attr-defined]

from transforms.models.errors import Changed, ModelLoadError, Unreachable, foreign
from transforms.models.files import READ, read_json

#: What a revision of a bucket's folder begins with.
_REVISION = "gcs:"


def list_files(uri: str) -> tuple[Collection[str], Callable[[str], Any]]:
    """The names in the folder, and a reader of its JSON files."""
    blobs = _list(uri)

    def read(name: str) -> Any:
        return read_json(_guard(uri, blobs[name].download_as_bytes), f"{uri}/{name}")

    return set(blobs), read


def fetch(uri: str, revision: str | None = None) -> tuple[Path, str]:
    """The folder on this machine, downloaded unless that very content is there already, and a hash that names it.

    Raises:
      Changed: ``revision`` names what is neither here nor in the bucket any more.
    """
    here = kept(revision)
    if here is not None:
        return here, str(revision)
    blobs, digest = _contents(uri)
    if revision not in (None, f"{_REVISION}{digest}"):
        raise Changed(f"`model={uri}`: its files are no longer those of {revision}")
    folder = cache_dir() / digest
    if not folder.is_dir():
        _download(uri, blobs, folder)
    return folder, f"{_REVISION}{digest}"


def resolve(uri: str) -> str:
    """The hash that names the folder's content now."""
    return f"{_REVISION}{_contents(uri)[1]}"


def kept(revision: str | None) -> Path | None:
    """The folder of ``revision`` on this machine, if it was downloaded before."""
    digest = (revision or "").removeprefix(_REVISION)
    folder = cache_dir() / digest
    return folder if digest != revision and digest.isalnum() and folder.is_dir() else None


def _contents(uri: str) -> tuple[dict[str, Any], str]:
    blobs = {name: blob for name, blob in _list(uri).items() if name.endswith(READ)}
    listing = "".join(f"{name}\0{blob.size}\0{blob.crc32c}\n" for name, blob in sorted(blobs.items()))
    return blobs, hashlib.sha256(listing.encode()).hexdigest()[:40]


def cache_dir() -> Path:
    """Where downloaded folders are kept: ``$XDG_CACHE_HOME/beam-hf-inference``, or below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam-hf-inference"


def _list(uri: str) -> dict[str, Any]:
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
    client = _guard(uri, storage.Client)
    blobs: Sequence[Any] = _guard(uri, lambda: list(client.list_blobs(bucket, prefix=prefix)))
    found = {blob.name.removeprefix(prefix): blob for blob in blobs if not blob.name.endswith("/")}
    if not found:
        raise ModelLoadError(f"`model={uri}`: the folder is empty or does not exist")
    return found


def _download(uri: str, blobs: dict[str, Any], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        for name in blobs:
            if not (part / name).resolve().is_relative_to(part.resolve()):
                raise ModelLoadError(f"`model={uri}`: the object name {name!r} leads out of the folder")
            (part / name).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(8) as pool:
            # The client checks each file's CRC32C; the size is checked here, as an empty body has none to check.
            running = [
                pool.submit(_guard, uri, partial(blob.download_to_filename, part / name))
                for name, blob in blobs.items()
            ]
            for one in running:
                one.result()
        for name, blob in blobs.items():
            if (part / name).stat().st_size != blob.size:
                raise ModelLoadError(f"`model={uri}`: {name} came incomplete; start again")
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _guard(uri: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (GoogleAPIError, GoogleAuthError, storage.exceptions.DataCorruption, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ModelLoadError(
                f"`model={uri}`: no space left in {cache_dir()}; free some, or set XDG_CACHE_HOME"
            ) from None
        first = foreign((str(error).splitlines() or [type(error).__name__])[0])
        refused = isinstance(error, ClientError) and not isinstance(error, TooManyRequests)
        raise (ModelLoadError if refused else Unreachable)(
            f"`model={uri}`: {first[:300]}; check the bucket, and that the job's service account may read it"
            " (roles/storage.objectViewer)"
        ) from error
