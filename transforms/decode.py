"""Decode: a message's bytes and content type become the request the model is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import jmespath
import jmespath.exceptions
import orjson

from transforms.barrier import guarded
from transforms.errors import MessageError
from transforms.outcome import Outcome, split
from transforms.records import Message, Request

#: Content types whose body is the model's input as raw bytes.
RAW_TYPES = ("image/", "audio/")


#: Nesting beyond this no model reads, and what recurses into it (pickle, to begin with) fails at some hundred levels.
MAX_DEPTH = 100


class GivenUp(MessageError):
    """Some later step failed on this message alone, for a reason that is not known to be anybody else's fault."""


class InvalidBody(MessageError):
    """The body is not what its content type says; the message belongs in the dead letters."""


def decode(message: Message, input_path: jmespath.parser.ParsedResult | None = None) -> Request:
    """Reads ``message`` as a Hugging Face inference endpoint would.

    ``text/plain`` is the input itself and ``image/*`` or ``audio/*`` its raw bytes; anything else is JSON,
    ``{"inputs": …, "parameters": {…}}``, or any JSON of which `input_path` picks the input.

    Raises:
        InvalidBody: the bytes are not that.
    """
    content_type = message.attributes.get("content-type", "").partition(";")[0].strip().lower()
    if not message.data:
        raise InvalidBody("the body is empty")
    if content_type.startswith(RAW_TYPES):
        return Request(message.data, {}, message)
    if content_type == "text/plain":
        return Request(_text(message.data), {}, message)
    body = _json(message.data)
    if input_path is not None:
        return Request(_pick(body, input_path), {}, message)
    if not isinstance(body, dict) or "inputs" not in body:
        raise InvalidBody(f'the body is {_kind(body)}; use {{"inputs": …, "parameters": {{…}}}} or set input_path')
    parameters = body.get("parameters")
    if parameters is None:
        parameters = {}
    elif not isinstance(parameters, dict):
        raise InvalidBody(f"'parameters' is {_kind(parameters)}; it must be an object")
    return Request(body["inputs"], parameters, message)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None


def _json(data: bytes) -> Any:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # The parser's message may quote the input; its words and position are enough.
        raise InvalidBody(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise InvalidBody(f"the body is nested deeper than {MAX_DEPTH} levels")
    return body


def _depth(value: Any) -> int:
    """How deep arrays and objects are nested in ``value``."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return depth


def _pick(body: Any, input_path: jmespath.parser.ParsedResult) -> Any:
    try:
        inputs = input_path.search(body)
    except jmespath.exceptions.JMESPathError as error:
        raise InvalidBody(f"input_path {input_path.expression!r} does not fit the body: {error}") from None
    if inputs is None:
        raise InvalidBody(f"input_path {input_path.expression!r} finds nothing in the body")
    return inputs


def _kind(value: Any) -> str:
    """``value``'s kind in JSON's words."""
    if isinstance(value, dict):
        return "an object without 'inputs'" if value else "an empty object"
    names = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


class Decode(beam.PTransform):
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
        yield split(guarded(self._decode, message, message, "decode"))

    def _decode(self, message: Message) -> Request:
        if message.given_up:
            raise GivenUp(message.given_up)
        return decode(message, self._input_path)
