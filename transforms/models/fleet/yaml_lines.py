"""YAML read to plain values, each with the line that it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

#: Where a value is: keys and indices from the top.
Path = tuple[str | int, ...]

#: Values that a file may have, aliases counted as often as they are used: a few lines can stand for billions.
_MOST = 10_000
_DEEPEST = 50


class Unreadable(ValueError):
    """It is not YAML, or no plain values; ``line`` is where."""

    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line


@dataclass(slots=True)
class Document:
    """The plain ``value`` of a text, and the lines of everything in it."""

    value: Any = None
    _lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Sequence[str | int]) -> int:
        """The line of what is at ``path``, or of the nearest thing around it."""
        for end in range(len(path), 0, -1):
            found = self._lines.get(tuple(path[:end]))
            if found is not None:
                return found
        return 1

    def read(self, node: Any, path: Path, line: int) -> Any:
        """``node`` of the parser as a plain value."""
        self._lines[path] = line
        if len(self._lines) > _MOST or len(path) > _DEEPEST:
            raise Unreadable(line, "is too much for such a file: too long, nested too deep, or aliases of aliases")
        if isinstance(node, CommentedMap):
            return {
                self._key(key, line): self.read(each, (*path, key), _at(node, key, line)) for key, each in node.items()
            }
        if isinstance(node, CommentedSeq):
            return [self.read(each, (*path, i), _at(node, i, line)) for i, each in enumerate(node)]
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        if node is None:
            return None
        raise Unreadable(line, f"{str(node)!r} is read as a {type(node).__name__.lower()}; put it in quotes")

    def _key(self, key: Any, line: int) -> str:
        if not isinstance(key, str):
            raise Unreadable(line, f"the key {str(key)!r} is no text; put it in quotes")
        return str(key)


def _at(node: Any, key: Any, otherwise: int) -> int:
    """The line of ``key``; what a merge (``<<``) brought has none of its own here."""
    try:
        where = node.lc.key(key) if isinstance(key, str) else node.lc.item(key)
    except (KeyError, AttributeError, TypeError):
        return otherwise
    return int(where[0]) + 1


def _check_brackets(text: str) -> None:
    """Refuses what opens more brackets than any file needs: the parser takes minutes over thousands of them."""
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        depth += sum(line.count(each) for each in "[{") - sum(line.count(each) for each in "]}")
        if depth > _DEEPEST:
            raise Unreadable(number, "is too much for such a file: nested too deep")


def read(text: str) -> Document:
    """``text`` as YAML 1.2, in which ``no`` is a text.

    Raises:
      Unreadable: it is not, has a key twice, or holds what is no plain value.
    """
    _check_brackets(text)
    try:
        node = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(str(error.problem or error.context or "is not YAML").split())
        raise Unreadable(mark.line + 1 if mark else 1, words[:300]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(1, f"is not YAML: {' '.join(str(error).split())[:300]}") from None
    document = Document()
    document.value = document.read(node, (), 1)
    return document
