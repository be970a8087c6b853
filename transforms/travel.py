"""How records are written where they wait: in Dataflow's shuffle and state, which outlive the release that wrote them.

A record is written as its kind, a version and its values, and read by :func:`read`, whose name therefore stays. That
is what pickle does with it, so it holds wherever Beam's own coder pickles: in the state of ``BatchElements`` above all,
whose coder cannot be exchanged, as Dataflow refuses an update that changes one (github.com/apache/beam/issues/34933).
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: Raised when a record's values change their order or meaning. A new field at the end, with a default, needs no new
#: one: what was written before it is read with the default.
VERSION = 1

_KINDS: dict[str, type[Any]] = {}


class UnknownVersion(ValueError):
    """The bytes are of a release that this one does not know."""


def travels(cls: type[T]) -> type[T]:
    """Class decorator: the dataclass is written by kind and version.

    Its values are its fields, or what ``packed()`` returns; it is made of them by its constructor, or ``unpacked()``.
    """
    names = [each.name for each in dataclasses.fields(cls)]  # type: ignore[arg-type] # a dataclass
    packed: Callable[[Any], Sequence[Any]] = getattr(cls, "packed", operator.attrgetter(*names))

    def reduce(record: Any) -> tuple[Any, ...]:
        return read, (cls.__name__, VERSION, *packed(record))

    # Set here and not in the class: on Python 3.10 a dataclass with slots would overwrite them.
    cls.__reduce__ = reduce  # type: ignore[method-assign, assignment]
    cls.__setstate__ = _restore  # type: ignore[attr-defined]
    _KINDS[cls.__name__] = cls
    return cls


def read(kind: str, version: int, *values: Any) -> Any:
    """The record of ``kind`` whose ``values`` were written by ``version``.

    Raises:
        UnknownVersion: a newer release wrote them.
    """
    cls = _KINDS.get(kind)
    if cls is None or version != VERSION:
        raise UnknownVersion(
            f"a {kind} of version {version} is in flight, and this release reads up to version {VERSION}: a newer one "
            "wrote it; update the job to that release, or drain it there before going back"
        )
    try:
        record = getattr(cls, "unpacked", cls)(*values)
    except TypeError as error:
        raise UnknownVersion(
            f"a {kind} of {len(values)} values is in flight, which this release cannot read ({error}): a newer one "
            "wrote it; update the job to that release, or drain it there before going back"
        ) from None
    return record


def _restore(record: Any, state: Sequence[Any]) -> None:
    """Fills ``record`` with what release 0.1.0 pickled: the values of the fields that it had then."""
    fields = dataclasses.fields(record)
    for field, value in zip(fields, state, strict=False):
        object.__setattr__(record, field.name, value)
    for field in fields[len(state) :]:
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        object.__setattr__(record, field.name, made)
