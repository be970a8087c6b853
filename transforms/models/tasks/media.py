"""Images and audio from messages: raw bytes, base64, or a ``gs://`` URI. Nothing else is ever fetched or opened."""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from PIL import Image

from transforms.models.bisect import blame
from transforms.models.errors import InvalidInput, NotYet, StorageUnavailable, brief
from transforms.models.objects import read_object

#: Bytes of decoded images and recordings in memory before the next are left for later.
CHUNK_BYTES = 512 * 1024 * 1024

#: Parallel reads from Cloud Storage.
_READERS = 8

_BLANKS = b" \t\r\n\v\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def check_media(inputs: Any, what: str = "inputs") -> bytes | str:
    """``inputs`` as ``read_each`` takes it, before any of it is read.

    Raises:
      InvalidInput: it is neither bytes, nor base64, nor a ``gs://`` URI.
    """
    if isinstance(inputs, bytes) and inputs:
        return inputs
    if not isinstance(inputs, str) or not inputs:
        raise InvalidInput(
            f"{what}={brief(inputs)}: must be base64 or a gs:// URI (or raw bytes with a content-type of their own)"
        )
    if inputs.startswith("gs://") or is_data_uri(inputs):
        return inputs
    if ":" in inputs[:100]:  # base64 has none
        raise InvalidInput(f"{what}={brief(inputs)}: only gs:// URIs are read; send the content as base64 instead")
    return inputs


def is_data_uri(text: str) -> bool:
    """Whether ``text`` holds its content itself: ``data:image/png;base64,…``."""
    return text[:5].lower() == "data:"


def in_turn(count: int, work: Callable[[int], Any]) -> list[Any]:
    """``work(index)``, or the ``ElementError`` of that element, for ``count`` elements, one after the other.

    Once the results hold ``CHUNK_BYTES``, the rest is ``NotYet``.

    Raises:
      StorageUnavailable: no element is to blame.
    """
    left = CHUNK_BYTES
    results: list[Any] = []
    while len(results) < count and (left > 0 or not results):
        try:
            result = work(len(results))
        except StorageUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 (whatever one picture makes a processor raise is its own)
            result = blame(error, InvalidInput)
        left -= _bytes(result)
        results.append(result)
    return results + [NotYet()] * (count - len(results))


def read_each(sources: Sequence[bytes | str], work: Callable[[int, bytes], Any]) -> list[Any]:
    """``work(index, content)`` for each of ``sources``, in turn; Cloud Storage is read in parallel, a little ahead."""
    if not any(isinstance(source, str) and source.startswith("gs://") for source in sources):
        return in_turn(len(sources), lambda index: work(index, read_one(sources[index])))
    pool = ThreadPoolExecutor(_READERS)
    try:
        ahead = {index: pool.submit(read_one, source) for index, source in enumerate(sources[:_READERS])}

        def one(index: int) -> Any:
            after = index + _READERS
            if after < len(sources):
                ahead[after] = pool.submit(read_one, sources[after])
            return work(index, ahead.pop(index).result())

        return in_turn(len(sources), one)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_all(sources: Sequence[bytes | str], decode: Callable[[bytes], Any]) -> list[Any]:
    """``decode`` of what each of one message's ``sources`` holds, or its ``ElementError``."""
    return [
        InvalidInput(f"inputs holds over {CHUNK_BYTES:,} bytes of images, once decoded; send fewer or smaller ones")
        if isinstance(one, NotYet)
        else one
        for one in read_each(sources, lambda _, data: decode(data))
    ]


def read_one(source: bytes | str) -> bytes:
    """The bytes that ``source`` is, holds or names.

    Raises:
      InvalidInput: it is not base64, or the object cannot be read.
      StorageUnavailable: Cloud Storage is away.
    """
    if isinstance(source, bytes):
        return source
    if source.startswith("gs://"):
        if not re.fullmatch(r"gs://[^/]+/.+", source, re.DOTALL):
            raise InvalidInput(f"inputs={brief(source)}: not an object's URI; use gs://BUCKET/OBJECT")
        return read_object(source)
    text = source
    if is_data_uri(source):
        head, _, text = source.partition(",")
        if not re.search(r"; *base64$", head, re.IGNORECASE):
            raise InvalidInput(f"inputs={brief(source)}: a data URI must be in base64: data:image/png;base64,…")
        text = unquote(text)
    try:
        return _base64(text)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"inputs={brief(source)}: not base64 ({error})") from None


def _base64(text: str) -> bytes:
    """``text`` decoded: also with line breaks, without padding, or of the alphabet for URLs."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        plain = text.encode("ascii").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


def _bytes(value: Any) -> int:
    """What ``value``, a prepared element, holds in memory, by its pictures and arrays."""
    if isinstance(value, Image.Image):
        return value.width * value.height * 3
    if isinstance(getattr(value, "nbytes", None), int):
        return int(value.nbytes)
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    if hasattr(value, "values"):
        return sum(map(_bytes, value.values()))
    return _bytes(value.rows) if hasattr(value, "rows") else sys.getsizeof(value)
