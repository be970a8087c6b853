"""The coder of records where a step says what it takes: their versioned form, and what Beam's coder wrote before."""

from __future__ import annotations

import pickle
from typing import Any

from apache_beam import coders

from transforms.records import Failure, Result
from transforms.travel import UnknownVersion

#: First byte of what this coder writes; none that Beam's own coder begins with (``coders/coder_impl.py``).
_OURS = b"R"

#: Of Python 3.8 and newer: whatever Python a worker has, it reads what another wrote.
_PROTOCOL = 5


class RecordCoder(coders.Coder):
    """Writes records as :mod:`transforms.travel` has them, and reads those of Beam's ``FastPrimitivesCoder`` as well.

    Raises:
        UnknownVersion: the bytes are neither.
    """

    def encode(self, value: Any) -> bytes:
        """``value`` in bytes."""
        return _OURS + pickle.dumps(value, _PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        """The record in ``encoded``, which may be of an older release."""
        if encoded.startswith(_OURS):
            return pickle.loads(memoryview(encoded)[1:])  # noqa: S301 (of the job's own steps, as Beam's coder reads them)
        try:
            return coders.FastPrimitivesCoder().decode(encoded)
        except UnknownVersion:
            raise
        except Exception as error:
            raise UnknownVersion(
                f"{len(encoded)} bytes in flight begin with {encoded[:1]!r}, which no release up to this one wrote; "
                "update the job to the release that did, or drain it there before going back"
            ) from error

    def is_deterministic(self) -> bool:
        """False: no record is a key."""
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


def register() -> None:
    """Makes it the coder of the records that go through the shuffle on their own."""
    for kind in (Result, Failure):
        coders.registry.register_coder(kind, RecordCoder)
