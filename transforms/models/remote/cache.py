"""Answers of this process, to be given again where the same question comes again: streams often repeat themselves.

The same input, parameters, model and revision have the same answer. Where a server does not say which revision it runs,
an answer is given again only as long as nobody would have looked whether that has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Any, Generic, TypeVar

import numpy as np
import orjson

from transforms.models.inputs import Ask
from transforms.models.remote.chunks import same_parameters
from transforms.records import ModelInfo

#: What an entry takes beside its prediction, in bytes: key, places, counts.
_AROUND = 500

T = TypeVar("T")


def key_of(ask: Ask, info: ModelInfo) -> bytes | None:
    """The identity of a question to a model; None where it has none that could be written down."""
    try:
        content = ask.inputs if isinstance(ask.inputs, bytes) else orjson.dumps(ask.inputs)
    except TypeError:
        return None
    kind = type(ask.inputs).__name__
    found = hashlib.blake2b(digest_size=20)
    for part in (kind, info.task, info.model, info.revision, same_parameters(ask)):
        text = part.encode("utf-8", "replace")
        found.update(len(text).to_bytes(8, "big") + text)
    found.update(content)
    return found.digest()


class Cache(Generic[T]):
    """The answers that were given last, up to ``mib`` of them. Lives on one event loop."""

    def __init__(self, mib: int) -> None:
        self._most = mib * 2**20
        self._used = 0
        self._entries: OrderedDict[bytes, tuple[T, int, float]] = OrderedDict()

    def get(self, key: bytes, longest_s: float) -> T | None:
        """The answer, if there is one that is no older than ``longest_s``."""
        found = self._entries.get(key)
        if found is None:
            return None
        if time.monotonic() - found[2] > longest_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, answer: T, prediction: Any) -> None:
        """Keeps ``answer``, which is as large as its ``prediction``; the ones unused for longest make room."""
        size = _size(prediction)
        if size > self._most:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (answer, size, time.monotonic())
        self._used += size
        while self._used > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self._used -= self._entries.pop(key)[1]


def _size(prediction: Any) -> int:
    if isinstance(prediction, np.ndarray):
        return prediction.nbytes + _AROUND
    # A Python object is several times as large as its text.
    return 4 * len(orjson.dumps(prediction, default=repr, option=orjson.OPT_SERIALIZE_NUMPY)) + _AROUND
