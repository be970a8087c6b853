"""Bounds on a JSON schema that comes with a message: its size, what its references unfold to, and where they lead."""

from __future__ import annotations

import itertools
from typing import Any

import regex

from transforms.errors import quoted
from transforms.models.errors import InvalidParameter, brief

#: Most levels of a schema.
MAX_DEPTH = 40

#: Most that a schema unfolds to, in keywords, each reference in the place of what it refers to.
MAX_UNFOLDED = 20_000

#: Keywords by which a reference could lead anywhere but to a place in the schema itself.
_ELSEWHERE = frozenset(
    {"$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
)

#: Keywords whose values are no schemas, whatever they hold; and those that hold schemas by names of the sender's.
_PLAIN = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def check_bounds(schema: Any) -> None:
    """Looks at every place of ``schema`` once.

    Raises:
      InvalidParameter: it is too deep, unfolds to too much, has a pattern that is none, or refers to elsewhere.
    """
    _Unfolding(schema).count(schema, MAX_DEPTH)


def bad_schema(why: str) -> InvalidParameter:
    """The failure of a message whose schema is not taken."""
    return InvalidParameter(f"parameters.response_format: its schema {why}")


class _Unfolding:
    """What a schema comes to with each reference in the place of what it refers to; one to itself counts once."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._counts: dict[str, int] = {}

    def count(self, value: Any, depth: int) -> int:
        """Keywords in a schema, or in a list of them."""
        if depth < 0:
            raise bad_schema(f"is nested deeper than {MAX_DEPTH} levels")
        total = 1
        if isinstance(value, list):
            total += sum(self.count(each, depth - 1) for each in value)
        elif isinstance(value, dict):
            total += sum(self._keyword(name, each, depth - 1) for name, each in value.items())
        if total > MAX_UNFOLDED:
            raise bad_schema(f"unfolds to more than {MAX_UNFOLDED} keywords")
        return total

    def _keyword(self, name: str, value: Any, depth: int) -> int:
        if isinstance(value, str):
            if name in _ELSEWHERE:
                raise bad_schema(f"has {name}, which is not read; refer to a place by #/$defs/…")
            if name == "pattern":
                _check_pattern(value)
            return self._target(value) if name == "$ref" else 1
        if name == "unevaluatedProperties":
            raise bad_schema(f"has {name}, which is not read; use additionalProperties")
        if name in _NAMED and isinstance(value, dict):
            if name == "patternProperties":
                for pattern in value:
                    _check_pattern(pattern)
            return sum(self.count(each, depth) for each in value.values())
        return 1 if name in _PLAIN else self.count(value, depth)

    def _target(self, reference: str) -> int:
        if reference not in self._counts:
            self._counts[reference] = 1  # to itself
            self._counts[reference] = self.count(self._find(reference), MAX_DEPTH)
        return self._counts[reference]

    def _find(self, reference: str) -> Any:
        found = self.schema
        if reference != "#" and not reference.startswith("#/"):
            raise bad_schema(f"refers to {brief(reference)}; nothing is fetched, refer to a place by #/$defs/…")
        for part in itertools.islice(reference.split("/"), 1, MAX_DEPTH):
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise bad_schema(f"refers to {brief(reference)}, which is not in it") from None
        return found


def _check_pattern(pattern: str) -> None:
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise bad_schema(f"has pattern {brief(pattern)}, which is none: {quoted(str(error)[:100])}") from None
