"""What a fix of SQLGlot's translation is, and what fixes are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

#: A node of GoogleSQL → what DuckDB is to run in its place, the node itself where nothing is wrong with it.
Fix = Callable[[Any], exp.Expr]


def call(name: str, *arguments: Any) -> exp.Anonymous:
    """A call of a DuckDB function that SQLGlot leaves as it is."""
    return exp.Anonymous(this=name, expressions=[exp.convert(argument) for argument in arguments])
