"""Which model answers a message: rules by what it holds, and splits that send a key to the same model for ever."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathTypeError

from transforms.errors import BundleError
from transforms.models.fleet.view import View


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: ``when`` it fits, the models that ``share`` its messages (1 in all), and what they are split ``by``."""

    when: str | None
    shares: tuple[tuple[str, float], ...]
    by: str | None = None

    def names(self) -> Iterator[str]:
        """The models that it can send a message to."""
        return (name for name, share in self.shares if share)

    def choose(self, view: View) -> str:
        """The model for a message that fits."""
        if len(self.shares) == 1:
            return self.shares[0][0]
        at = point(_key(view, self.by))
        for name, share in self.shares:
            at -= share
            if at < 0:
                return name
        return [name for name, share in self.shares if share][-1]  # what rounding leaves


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model that answers a ``share`` of the messages too."""

    model: str
    share: float
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """The rules in order, and the shadows."""

    rules: tuple[Rule, ...]
    shadows: tuple[Shadow, ...] = ()

    def choose(self, view: View) -> str | None:
        """The model that answers; None where no rule fits."""
        for rule in self.rules:
            if fits(rule.when, view):
                return rule.choose(view)
        return None

    def shadow(self, view: View) -> str | None:
        """The model that answers too; a message has one such at the most, so their cost is their shares."""
        if not self.shadows:
            return None
        at = point(f"shadow/{view.message_id}")
        for each in self.shadows:
            if 0 <= at < each.share:
                return each.model if fits(each.when, view) else None
            at -= each.share
        return None

    def always(self) -> list[str]:
        """The models that a message can get whatever it holds."""
        return _once(name for rule in self.rules if rule.when is None for name in rule.names())


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def point(key: str) -> float:
    """Where ``key`` lies between 0 and 1; the same for ever, and spread evenly."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64


def fits(when: str | None, view: View) -> bool:
    """Whether a message fits; one on which the expression raises does not, and ``view.raised`` says so."""
    if when is None:
        return True
    found = _search(when, view)
    return not (found is None or found is False or (isinstance(found, str | list | dict) and not found))


def _key(view: View, by: str | None) -> str:
    """What a message is split by: its id where ``by`` finds nothing."""
    found = _search(by, view) if by else None
    if found is None:
        return view.message_id
    if isinstance(found, str):
        return found
    try:
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # an expression, which is no value
        return view.message_id


def _search(expression: str, view: View) -> Any:
    try:
        compiled, reads_body = _compiled(expression)
        return compiled.search({"attributes": view.attributes, "body": view.body() if reads_body else None})
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a message does to a rule, it is one that does not fit)
        view.raised[expression] = _why(error)
        return None


def _why(error: Exception) -> str:
    """What an expression raised, without what the message holds."""
    if isinstance(error, JMESPathTypeError):
        return f"{error.function_name}() takes {' or '.join(error.expected_types)}, and got {error.actual_type}"
    return type(error).__name__


@functools.lru_cache(maxsize=4096)
def _compiled(expression: str) -> tuple[Any, bool]:
    compiled = jmespath.compile(expression)
    # The body is read again only where it may be looked at.
    return compiled, _reads_body(compiled.parsed)


def _reads_body(node: Any) -> bool:
    """Whether anything but ``attributes`` may be looked at; in doubt, yes."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        return bool(node["value"] != "attributes")
    if kind == "literal":
        return False
    if kind == "subexpression":  # what follows is looked up in the first
        return _reads_body(children[0])
    return not children or any(_reads_body(child) for child in children)
