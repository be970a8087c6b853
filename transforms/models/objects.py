"""Objects in Cloud Storage that messages name: read as they are, up to a limit, through outages."""

from __future__ import annotations

import requests.exceptions
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth

from transforms.errors import quoted
from transforms.models.errors import InvalidInput, StorageUnavailable, brief, cut

#: Most bytes of an object; Pub/Sub itself carries 10 MB a message.
MAX_BYTES = 64 * 1024 * 1024

#: How long an object is waited for before the bundle fails and its messages are delivered again, as with the sinks.
PATIENCE_S = 600.0

#: What says nothing of the object: Cloud Storage is down or overloaded, the network is, or there are no credentials.
_OUTAGES = (
    api.TooManyRequests,
    api.ServerError,
    api.Unauthorized,
    api.RetryError,
    auth.GoogleAuthError,
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
    ConnectionError,
    TimeoutError,
)


def is_outage(error: BaseException) -> bool:
    """Whether ``error`` is no fault of the object that was asked for; a quota answers 403 with its reason."""
    if isinstance(error, api.Forbidden):
        reasons = {each.get("reason") for each in error.errors if isinstance(each, dict)}
        return bool(reasons & {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
    return isinstance(error, _OUTAGES) or (isinstance(error, api.GoogleAPICallError) and error.code == 408)


def read_object(uri: str) -> bytes:
    """The bytes of the object, as they are stored: nothing is unpacked for what its name ends in.

    Raises:
      InvalidInput: it is not there, may not be read, or is too large.
      StorageUnavailable: there was no answer for ``PATIENCE_S``.
    """
    retry = Retry(predicate=is_outage, initial=0.1, maximum=10.0, multiplier=2.0, timeout=PATIENCE_S)
    try:
        data: bytes = retry(_read)(uri)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (each client library behind FileSystems has errors of its own)
        if is_outage(error):
            # It goes into the job's log, where no name of an object belongs: the message gave it.
            raise StorageUnavailable(
                f"Cloud Storage could not be read for {PATIENCE_S:g} s: {_what(error.__cause__ or error)}"
            ) from None
        words = f"{_what(error)}: {quoted(cut(str(error), 300))}"
        raise InvalidInput(f"inputs={brief(uri)}: cannot be read: {words}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"inputs={brief(uri)}: over {MAX_BYTES:,} bytes")
    return data


def _what(error: BaseException) -> str:
    """``error`` without its text, which holds the object's URL; of credentials it holds none."""
    name = type(error).__name__
    if isinstance(error, auth.GoogleAuthError):
        return f"{name}: {cut(str(error), 300)}"
    return f"{name} ({int(error.code)})" if isinstance(error, api.GoogleAPICallError) and error.code else name


def _read(uri: str) -> bytes:
    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        data: bytes = file.read(MAX_BYTES + 1)
        return data
