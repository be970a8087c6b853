"""Decode: a message's bytes and content type become the request the model is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import jmespath
import jmespath.exceptions
import orjson

from transforms import body
from transforms.barrier import failure, guarded
from transforms.errors import MessageError
from transforms.outcome import Outcome, failed, split
from transforms.records import Message, Request

#: Content types whose body is the model's input as raw bytes.
RAW_TYPES = ("image/", "audio/")

#: First bytes of a byte order mark.
_MARKED = (b"\xef", b"\xff", b"\xfe")

#: Nesting beyond this no model reads, and what recurses into it (pickle, to begin with) fails at some hundred levels.
MAX_DEPTH = 100


class Unexpected(MessageError):
    """Some later step failed on this message alone, for a reason that is not known to be anybody else's fault."""


class InvalidBody(MessageError):
    """The body is not what its content type says; the message belongs in the dead letters."""


def decode(message: Message, input_path: jmespath.parser.ParsedResult | None = None) -> Request:
    """Reads ``message`` as a Hugging Face inference endpoint would.

    ``text/plain`` is the input itself and ``image/*`` or ``audio/*`` its raw bytes; anything else is JSON,
    ``{"inputs": …, "parameters": {…}}``, or any JSON of which ``input_path`` picks the input. A charset, and gzip as
    ``content-encoding``, are honoured.

    Raises:
        InvalidBody: the bytes are not that.
    """
    if not message.data:
        raise InvalidBody("the body is empty")
    try:
        content_type = body.content_type(message.attributes)
        data = body.unpack(message.data, body.find(message.attributes, "content-encoding"))
        if content_type.kind.startswith(RAW_TYPES):
            return Request(data, {}, message)
        if content_type.kind == "text/plain":
            return Request(body.text(data, content_type.charset), {}, message)
        value = _json(data, content_type.charset)
    except body.Unreadable as error:
        raise InvalidBody(str(error)) from None
    if input_path is not None:
        return Request(_pick(value, input_path), {}, message)
    if not isinstance(value, dict) or "inputs" not in value:
        raise InvalidBody(f'the body is {_kind(value)}; use {{"inputs": …, "parameters": {{…}}}} or set input_path')
    parameters = value.get("parameters")
    if parameters is None:
        parameters = {}
    elif not isinstance(parameters, dict):
        raise InvalidBody(f"'parameters' is {_kind(parameters)}; it must be an object")
    return Request(value["inputs"], parameters, message)


def _json(data: bytes, charset: str | None) -> Any:
    # UTF-8 without a mark is what JSON is, and is read as it is. A NUL among its first bytes tells UTF-16 or UTF-32.
    other = charset is not None and charset.lower() not in ("utf-8", "utf8")
    if other or data[:1] in _MARKED or 0 in data[:4]:
        if charset is None and 0 in data[:4]:
            try:
                data = data.decode(json.detect_encoding(data)).encode()
            except UnicodeError:
                raise InvalidBody("the body is not JSON: it is no text") from None
        else:
            data = body.text(data, charset).encode()
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # The parser's message may quote the input; its words and position are enough.
        raise InvalidBody(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidBody(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    """How deep arrays and objects are nested in ``value``."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return depth


def _pick(value: Any, input_path: jmespath.parser.ParsedResult) -> Any:
    expression = _cut(input_path.expression)
    try:
        inputs = input_path.search(value)
    except Exception as error:  # noqa: BLE001 (it raises TypeError, ValueError, OverflowError and more)
        # What it says quotes the body; which function took offence at which type does not.
        raise InvalidBody(f"input_path {expression!r} does not fit the body: {_why(error)}") from None
    if inputs is None:
        raise InvalidBody(f"input_path {expression!r} finds nothing in the body")
    if not isinstance(inputs, (str, int, float, list, dict)):
        raise InvalidBody(f"input_path {expression!r} gives an expression, not a value")
    return inputs


def _why(error: Exception) -> str:
    if isinstance(error, jmespath.exceptions.JMESPathTypeError):
        expected = " or ".join(map(str, error.expected_types))
        return f"{error.function_name}() takes {expected}, not {error.actual_type}"
    return type(error).__name__


def _cut(expression: str) -> str:
    return expression if len(expression) <= 200 else expression[:199] + "…"


def _kind(value: Any) -> str:
    """``value``'s kind in JSON's words."""
    if isinstance(value, dict):
        return "an object without 'inputs'" if value else "an empty object"
    names = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


class Decode(beam.PTransform[beam.PCollection[Message], Outcome]):
    """``Message`` → ``Outcome`` of ``Request``; what cannot be decoded fails with stage ``decode``."""

    def __init__(self, input_path: str | None = None):
        super().__init__()
        self._input_path = input_path

    def expand(self, messages: beam.PCollection[Message]) -> Outcome:
        return Outcome.of(beam.ParDo(_DecodeFn(self._input_path)), messages)


class _DecodeFn(beam.DoFn):
    def __init__(self, input_path: str | None):
        self._expression = input_path
        self._input_path = None

    def setup(self) -> None:
        if self._expression is not None:
            self._input_path = jmespath.compile(self._expression)

    def process(self, message: Message) -> Iterator[Any]:
        if message.given_up:
            yield failed(failure(Unexpected(message.given_up), message, "predict"))
        else:
            yield split(guarded(self._decode, message, message, "decode"))

    def _decode(self, message: Message) -> Request:
        return decode(message, self._input_path)
