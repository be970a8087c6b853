"""Decode: a message's bytes and content type become the request the model is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import jmespath
import jmespath.exceptions

from transforms import body
from transforms.barrier import failure, guarded
from transforms.envelopes import Opener
from transforms.errors import MessageError
from transforms.outcome import Outcome, failed, split
from transforms.records import Message, Request

#: Opens what says what it is, of schemas that nobody here knows.
_OPENER = Opener()


class Unexpected(MessageError):
    """Some later step failed on this message alone, for a reason that is not known to be anybody else's fault."""


class InvalidBody(MessageError):
    """The body is not what its content type says; the message belongs in the dead letters."""


def decode(
    message: Message, input_path: jmespath.parser.ParsedResult | None = None, opener: Opener = _OPENER
) -> Request:
    """Reads ``message`` as a Hugging Face inference endpoint would, out of the envelopes that ``opener`` opens.

    ``text/plain`` is the input itself and ``image/*`` or ``audio/*`` its raw bytes; anything else is JSON,
    ``{"inputs": …, "parameters": {…}}``, or any JSON of which ``input_path`` picks the input. A charset, and gzip as
    ``content-encoding``, are honoured.

    Raises:
        InvalidBody: the bytes are not that.
        SchemaUnavailable: the definition of the message's schema could not be had, which is not its fault.
    """
    try:
        payload = opener.open(message.data, message.attributes, by_shape=input_path is None)
        if not payload.is_value:
            kind, charset = payload.content_type.kind, payload.content_type.charset
            raw = kind.startswith(body.RAW_TYPES)
            return Request(payload.data if raw else body.text(payload.data, charset), {}, message)
        value = payload.json()
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


def _pick(value: Any, input_path: jmespath.parser.ParsedResult) -> Any:
    expression = _cut(input_path.expression)
    try:
        inputs = input_path.search(value)
    except Exception as error:  # noqa: BLE001 (it raises TypeError, ValueError, OverflowError and more)
        # What it says quotes the body; which function took offence at which type does not.
        raise InvalidBody(f"input_path {expression!r} does not fit the body: {_why(error)}") from None
    if inputs is None:
        raise InvalidBody(f"input_path {expression!r} finds nothing in the body")
    if not isinstance(inputs, (str, bytes, int, float, list, dict)):
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

    def __init__(self, input_path: str | None = None, opener: Opener = _OPENER):
        super().__init__()
        self._input_path = input_path
        self._opener = opener

    def expand(self, messages: beam.PCollection[Message]) -> Outcome:
        return Outcome.of(beam.ParDo(_DecodeFn(self._input_path, self._opener)), messages)


class _DecodeFn(beam.DoFn):
    def __init__(self, input_path: str | None, opener: Opener = _OPENER):
        self._expression = input_path
        self._input_path = None
        self._opener = opener

    def setup(self) -> None:
        if self._expression is not None:
            self._input_path = jmespath.compile(self._expression)

    def process(self, message: Message) -> Iterator[Any]:
        if message.given_up:
            yield failed(failure(Unexpected(message.given_up), message, "predict"))
        else:
            yield split(guarded(self._decode, message, message, "decode"))

    def _decode(self, message: Message) -> Request:
        return decode(message, self._input_path, self._opener)
