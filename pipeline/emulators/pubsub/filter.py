"""The filter language of subscriptions: https://cloud.google.com/pubsub/docs/subscription-message-filter#filtering_syntax."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

from pipeline.emulators.pubsub.errors import InvalidArgument
from pipeline.emulators.pubsub.limits import MAX_FILTER_BYTES

Attributes = Mapping[str, str]
Predicate = Callable[[Attributes], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_-]*)|(?P<symbol>!=|[=:.,()-]))""",
    re.DOTALL,
)


def parse_filter(text: str) -> Predicate | None:
    """What ``text`` asks of a message's attributes; ``None`` where it is empty and asks nothing.

    Raises:
      InvalidArgument: the filter is too long, or not one the service takes.
    """
    if not text:
        return None
    if len(text.encode()) > MAX_FILTER_BYTES:
        raise InvalidArgument(f"The filter is too long: at most {MAX_FILTER_BYTES} bytes.")
    parser = _Parser(text)
    predicate = parser.expression()
    parser.expect("")
    return predicate


class _Parser:
    """Recursive descent over the tokens, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokenise(text)

    def _tokenise(self, text: str) -> list[str]:
        tokens, position, text = [], 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"unexpected {text[position:][:20]!r}")
            tokens.append(match[match.lastgroup or 0])
            position = match.end()
        return [*tokens, ""]

    def error(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"Invalid filter {self.text!r}: {why}.")

    def take(self) -> str:
        return self.tokens.pop(0) if len(self.tokens) > 1 else ""

    def expect(self, word: str) -> None:
        if self.tokens[0] != word:
            raise self.error(f"expected {word or 'the end'!r} before {self.tokens[0] or 'the end'!r}")
        self.take()

    def expression(self) -> Predicate:
        """Terms joined by AND or by OR; the service does not take a mixture without parentheses."""
        terms = [self.term()]
        operator = self.tokens[0]
        while operator in ("AND", "OR") and self.tokens[0] == operator:
            self.take()
            terms.append(self.term())
        if self.tokens[0] in ("AND", "OR"):
            raise self.error("AND and OR together need parentheses")
        quantifier = any if operator == "OR" else all
        return lambda attributes: quantifier(term(attributes) for term in terms)

    def term(self) -> Predicate:
        word = self.take()
        if word in ("NOT", "-"):
            negated = self.term()
            return lambda attributes: not negated(attributes)
        if word == "(":
            inner = self.expression()
            self.expect(")")
            return inner
        if word == "hasPrefix":
            return self.has_prefix()
        if word == "attributes":
            return self.comparison()
        raise self.error(f"expected attributes or hasPrefix, got {word or 'the end'!r}")

    def has_prefix(self) -> Predicate:
        for symbol in ("(", "attributes", "."):
            self.expect(symbol)
        key = self.key()
        self.expect(",")
        prefix = self.string()
        self.expect(")")
        return lambda attributes: attributes.get(key, "").startswith(prefix) and key in attributes

    def comparison(self) -> Predicate:
        separator = self.take()
        if separator not in (":", "."):
            raise self.error("expected ':' or '.' after attributes")
        key = self.key()
        if separator == ":":
            return lambda attributes: key in attributes
        operator = self.take()
        if operator not in ("=", "!="):
            raise self.error("expected = or != after the attribute's key")
        value, equal = self.string(), operator == "="
        return lambda attributes: (key in attributes and attributes[key] == value) == equal

    def key(self) -> str:
        word = self.tokens[0]
        if word[:1] in ('"', "'"):
            return self.string()
        if not re.match(r"[A-Za-z_]", word):
            raise self.error("expected an attribute's key")
        return self.take()

    def string(self) -> str:
        word = self.take()
        if word[:1] not in ('"', "'"):
            raise self.error("expected a string in quotes")
        try:
            return str(ast.literal_eval(word))
        except (SyntaxError, ValueError) as error:
            raise self.error(f"bad string {word}") from error
