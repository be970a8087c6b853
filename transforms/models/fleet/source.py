"""Files of the control plane: the models file and its checks, on this machine or in a bucket."""

from __future__ import annotations

import time
from pathlib import Path

from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage  # type: ignore[attr-defined]

from transforms.models.errors import ModelLoadError, Unreachable, foreign

#: A file that is being written is read again after so many seconds, until two readings agree.
_SETTLED_S = 0.1
_READINGS = 20


def read(uri: str) -> bytes:
    """The bytes at ``uri``: of an object whole, of a local file once nobody writes it.

    Raises:
      Unreachable: the bucket cannot be asked now.
      ModelLoadError: it is not there, or cannot be read.
    """
    return _object(uri) if uri.startswith("gs://") else _local(uri)


def _local(uri: str) -> bytes:
    path = Path(uri).expanduser()
    try:
        found = path.read_bytes()
        for _ in range(_READINGS):
            if time.time() - path.stat().st_mtime > _SETTLED_S:
                break
            time.sleep(_SETTLED_S)
            again = path.read_bytes()
            if again == found:
                break
            found = again
        return found
    except OSError as error:
        raise ModelLoadError(f"{uri}: cannot be read: {foreign(error.strerror or type(error).__name__)}") from None


def _object(uri: str) -> bytes:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    try:
        found: bytes = storage.Client().bucket(bucket).blob(name).download_as_bytes(timeout=30)
    except NotFound:
        raise ModelLoadError(f"{uri}: is not there") from None
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        first = foreign((str(error).splitlines() or [type(error).__name__])[0])
        raise Unreachable(f"{uri}: {first[:300]}; check that the job's account may read it") from None
    return found


def beside(uri: str, name: str) -> str:
    """``name`` as the file at ``uri`` names it: as it is, or beside that file."""
    if name.startswith(("gs://", "/", "~")):
        return name
    return f"{uri.rpartition('/')[0]}/{name}" if "/" in uri else name
