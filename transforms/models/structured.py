"""Answers that must fit a JSON schema: what a message may ask for, and whether an answer does.

A schema comes from whoever may publish, and an answer from whatever server there is, so both are read with bounds: on
a schema's size and on what its references unfold to, on the steps of a validation, and on the time of each pattern.
No reference is ever fetched. Imports neither torch nor transformers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
import orjson
import referencing.exceptions
import regex
from jsonschema.validators import Draft202012Validator, extend

from transforms.errors import quoted
from transforms.models.errors import InvalidAnswer, InvalidParameter, brief
from transforms.models.parameters import Parameter
from transforms.models.schema_bounds import bad_schema, check_bounds

#: Largest schema, in bytes as JSON.
MAX_BYTES = 65_536

#: Most keywords that one validation looks at.
MAX_STEPS = 50_000

#: So many digits may be a whole number of more than 64 bits, which is read as one with a fraction, and is another then.
_DIGITS = re.compile("[0-9]{19}")

#: Longest that one pattern may take over one text, in seconds.
PATTERN_S = 0.5


class Structure:
    """One schema, ready to hold answers to."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.text = json.dumps(schema)
        self._steps: Iterator[int] = iter(())
        keywords = {name: self._counted(name, check) for name, check in Draft202012Validator.VALIDATORS.items()}
        kind: Any = extend(Draft202012Validator, keywords)
        # A registry of its own: the usual one fetches what a reference names.
        self._validator = kind(schema, registry=referencing.Registry())

    def read(self, text: str) -> Any:
        """The value in ``text``, an answer.

        Raises:
          InvalidAnswer: it is no JSON, or does not fit; the reason quotes the answer, and is marked so.
        """
        try:
            value = orjson.loads(text)
        except ValueError as error:
            raise InvalidAnswer(
                f"the answer is not JSON: {error!s:.100}; with too few max_new_tokens it ends before its JSON does"
            ) from None
        if _DIGITS.search(text):
            json.loads(text, parse_int=_whole)
        self._steps = iter(range(MAX_STEPS))
        try:
            wrong = next(self._validator.iter_errors(value), None)
        except (_TooMuch, RecursionError, TimeoutError, referencing.exceptions.Unresolvable):
            raise InvalidAnswer("the answer cannot be held against response_format: that takes too much") from None
        if wrong is not None:
            where = quoted(f" at {wrong.json_path}"[:200])
            raise InvalidAnswer(f"the answer does not fit response_format{where}: {quoted(wrong.message[:300])}")
        return value

    def _counted(self, name: str, check: Callable[..., Any]) -> Callable[..., Any]:
        check = _PATTERNS.get(name, check)

        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if next(self._steps, None) is None:
                raise _TooMuch
            yield from check(validator, value, instance, schema) or ()

        return counted


class _TooMuch(Exception):
    """A validation has looked at as many keywords as it may."""


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, inner in patterns.items() if isinstance(instance, dict) else ():
        for key, value in instance.items():
            if _matches(pattern, key):
                yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _additional(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    patterns = schema.get("patternProperties", {})
    for key, value in instance.items() if isinstance(instance, dict) else ():
        if key in schema.get("properties", {}) or any(_matches(pattern, key) for pattern in patterns):
            continue
        if inner is False:
            yield jsonschema.ValidationError(f"{key!r} was unexpected")
        else:
            yield from validator.descend(value, inner, path=key)


#: In the place of jsonschema's own, whose patterns Python's ``re`` would look for without a bound.
_PATTERNS: dict[str, Callable[..., Iterator[Any]]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
}


def _matches(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=PATTERN_S) is not None


def _whole(digits: str) -> None:
    if not -(1 << 63) <= int(digits) < 1 << 64:
        raise InvalidAnswer("the answer has a whole number of more than 64 bits, which no result can hold")


def response_format() -> Parameter:
    """``{"type": "json_schema", "json_schema": {"schema": …}}``, as OpenAI's servers take it; or any object."""
    return Parameter('{"type": "json_schema", "json_schema": {"schema": {…}}}', _is_object, check=_check)


def grammar() -> Parameter:
    """``{"type": "json", "value": {…}}``, as Text Generation Inference takes it."""
    return Parameter('{"type": "json", "value": {…}}', _is_object, check=_check)


def asked(parameters: Mapping[str, Any]) -> Structure | None:
    """What the answers to ``parameters`` must fit; None for any text.

    Raises:
      InvalidParameter: it cannot be.
    """
    given = {name: parameters[name] for name in ("response_format", "grammar") if name in parameters}
    if not given:
        return None
    if len(given) == 2:
        raise InvalidParameter("parameters.grammar: response_format is given too; give one")
    ((name, value),) = given.items()
    return _structure(_schema(name, value))


def _check(value: Any) -> None:
    _structure(_schema("response_format", value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _schema(name: str, value: Mapping[str, Any]) -> str:
    """The schema in ``value``, in whichever form that servers take it, as JSON."""
    kind, inner = value["type"], value.get("json_schema", value.get("value"))
    if kind == "json_object" and inner is None:
        inner = {"type": "object"}
    elif kind == "json_schema" and isinstance(inner, dict) and isinstance(inner.get("schema"), (dict, bool)):
        inner = inner["schema"]
    elif kind not in ("json", "json_object", "json_schema") or not isinstance(inner, dict):
        raise InvalidParameter(
            f'parameters.{name}={brief(value)}: must be {{"type": "json_schema", "json_schema": {{"schema": …}}}},'
            ' {"type": "json_object"}, or {"type": "json", "value": …}'
        )
    try:
        return orjson.dumps(inner, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, RecursionError):
        raise InvalidParameter(f"parameters.{name}: its schema is no JSON") from None


@functools.lru_cache(maxsize=64)
def _structure(text: str) -> Structure:
    if len(text) > MAX_BYTES:
        raise bad_schema(f"has {len(text)} bytes; at most {MAX_BYTES} are read")
    schema = orjson.loads(text)
    if isinstance(schema, dict):
        schema.pop("$schema", None)
        schema.pop("$id", None)
    check_bounds(schema)
    try:
        Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise bad_schema(f"is none{quoted(f' at {error.json_path}: {error.message}'[:300])}") from None
    except RecursionError:
        raise bad_schema("is nested too deep") from None
    return Structure(schema)
