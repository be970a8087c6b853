"""From GoogleSQL to DuckDB's SQL: names, parameters, views and functions, on the tree that SQLGlot parses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.tokenizer_core import TokenType

from pipeline.emulators.bigquery.dialect_fixes import FIXES
from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.refs import TableRef
from pipeline.emulators.bigquery.types import Field, duckdb_type

Tree = TypeVar("Tree", bound=exp.Expr)


def parse(text: str) -> exp.Expr:
    """The one statement in ``text``; positional parameters ``?`` become ``@p1``, ``@p2`` …

    Raises ``invalidQuery`` for a syntax error, ``notImplemented`` for a script of several statements.
    """
    try:
        statements = sqlglot.parse(_name_positional(text), read="bigquery")
    except (SqlglotError, RecursionError) as error:
        detail = (getattr(error, "errors", None) or [{}])[0]
        where = f" at [{detail['line']}:{detail['col']}]" if detail.get("line") else ""
        message = re.sub(r" but got <Token.*", "", detail.get("description") or str(error), flags=re.DOTALL)
        raise BigQueryError("invalidQuery", f"Syntax error: {message}{where}", "query") from None
    found = [statement for statement in statements if statement is not None]
    if not found:
        raise BigQueryError("invalidQuery", "Syntax error: Unexpected end of script", "query")
    if len(found) > 1:
        raise BigQueryError("notImplemented", "scripts are not supported here: one statement", "query")
    return found[0]


def _name_positional(text: str) -> str:
    """Numbers the ``?`` in the order of the text, which the parsed tree no longer tells."""
    marks = [t.start for t in sqlglot.tokenize(text, read="bigquery") if t.token_type == TokenType.PLACEHOLDER]
    for number, start in reversed(list(enumerate(marks, 1))):
        text = f"{text[:start]}@p{number}{text[start + 1 :]}"
    return text


def table_ref(node: exp.Table, project: str, dataset: str | None) -> TableRef:
    """The full name of a table in a query; raises ``invalid`` if no dataset is given or defaulted."""
    parts = [part for part in (node.catalog, node.db, node.name) if part]
    if len(parts) == 1:
        if dataset is None:
            raise BigQueryError(
                "invalid", f'Table "{node.name}" must be qualified with a dataset (e.g. dataset.table).', "query"
            )
        parts.insert(0, dataset)
    return TableRef(*parts) if len(parts) == 3 else TableRef(project, *parts)


def replace_tables(tree: Tree, resolve: Callable[[exp.Table], TableRef | exp.Query]) -> Tree:
    """Puts DuckDB's names in place of table names, and queries in place of views; leaves names of a ``WITH`` alone."""
    known: dict[tuple[str, str], bool] = {}
    names = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for node in list(tree.find_all(exp.Table)):
        if not isinstance(node.this, exp.Identifier) or (not node.db and node.name.lower() in names):
            continue
        known[node.db, node.name] = True
        target = resolve(node)
        if isinstance(target, TableRef):
            node.set("this", exp.to_identifier(target.table, quoted=True))
            node.set("db", exp.to_identifier(f"{target.project}.{target.dataset}", quoted=True))
            node.set("catalog", None)
        else:
            view = target.subquery(node.alias or node.name)
            node.replace(view)
    for column in list(tree.find_all(exp.Column)):
        if (column.text("db"), column.table) in known:  # dataset.table.column: DuckDB knows the table by its last name
            column.set("db", None)
            column.set("catalog", None)
    return tree


def bind(tree: exp.Expr, fields: Mapping[str, Field]) -> exp.Expr:
    """Gives every ``@name`` the type of its parameter, which DuckDB would otherwise guess from the value."""
    for node in list(tree.find_all(exp.Parameter)):
        field = fields.get(node.name.lower())
        if field is None:
            raise BigQueryError("invalidQuery", f"Query parameter '{node.name or node.this.name}' not found", "query")
        name = parameter_name(node.name.lower())
        node.replace(exp.cast(exp.Parameter(this=exp.var(name)), duckdb_type(field), dialect="duckdb"))
    return tree


def parameter_name(name: str) -> str:
    """``name`` as DuckDB can have it: the service takes any in backquotes."""
    return name if re.fullmatch(r"[a-z_]\w*", name, re.ASCII) else f"x{name.encode().hex()}"


def name_columns(tree: exp.Query) -> exp.Query:
    """Names the result's columns as the service does: the last name of a path, ``f0_``, ``f1_`` … if there is none."""
    select: exp.Expr = tree
    while isinstance(select, exp.SetOperation | exp.Subquery):
        select = select.this
    if isinstance(select, exp.Select):
        select.set("kind", None)  # SELECT AS STRUCT: at the top its fields are columns
        unnamed = 0
        for column in select.expressions:
            if isinstance(column, exp.Dot) and not column.is_star:
                column.replace(exp.alias_(column.copy(), column.name))
            elif not isinstance(column, exp.Alias | exp.Column | exp.Dot | exp.Star):
                column.replace(exp.alias_(column.copy(), f"f{unnamed}_"))
                unnamed += 1
    return tree


def index_json(tree: exp.Expr, columns: set[str]) -> None:
    """Keeps JSON subscripts as they are: DuckDB counts from 0 there, and from 1 in lists, for which SQLGlot adds 1.

    A subscript's type is told from the lower-case names of JSON ``columns``, and from functions that give JSON.
    """
    columns = set(columns)
    for unnest in tree.find_all(exp.Unnest):
        if isinstance(unnest.expressions[0], exp.JSONExtractArray) and unnest.args.get("alias"):
            columns |= {column.name.lower() for column in unnest.args["alias"].columns}
    for alias in tree.find_all(exp.Alias):
        if _is_json(alias.this, columns):
            columns.add(alias.alias.lower())
    for node in tree.find_all(exp.Bracket):
        if node.args.get("offset") is None and _is_json(node.this, columns):
            node.set("offset", 1)


def _is_json(node: exp.Expr, columns: set[str]) -> bool:
    while isinstance(node, exp.Dot | exp.Bracket | exp.Paren):
        node = node.this
    if isinstance(node, exp.Column):
        return any(part.name.lower() in columns for part in node.parts)
    return isinstance(node, exp.ParseJSON | exp.JSONExtract) or (isinstance(node, exp.Cast) and node.is_type("json"))


def to_duckdb(tree: exp.Expr) -> str:
    """``tree`` in DuckDB's SQL."""
    for node in reversed(list(tree.walk(bfs=True))):
        fix = FIXES.get(type(node))
        if fix:
            fixed = fix(node)
            if fixed is not node:
                node.replace(fixed)
    try:
        return tree.sql(dialect="duckdb", unsupported_level=ErrorLevel.IGNORE)  # DuckDB says it better
    except (SqlglotError, RecursionError) as error:
        raise BigQueryError("invalidQuery", str(error), "query") from None
