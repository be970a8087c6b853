"""What SQLGlot's translation from GoogleSQL to DuckDB gets wrong, put right function by function.

A fix takes a parsed GoogleSQL function and returns what DuckDB is to run in its place; :data:`FIXES` lists them all.
Each is here because a query gave another answer than the service's documentation says, or none.
"""

from __future__ import annotations

from sqlglot import exp

from pipeline.emulators.bigquery.aggregate_fixes import AGGREGATES
from pipeline.emulators.bigquery.casts import CASTS
from pipeline.emulators.bigquery.fix import Fix, call
from pipeline.emulators.bigquery.shapes import SHAPES
from pipeline.emulators.bigquery.time_fixes import TIMES
from pipeline.emulators.bigquery.unsupported import not_here


def _literal(node: exp.Literal) -> exp.Expr:
    """``1.5`` is a FLOAT64, not a decimal."""
    if node.is_string or node.name.isdigit() or "e" in node.name.lower():
        return node
    return exp.Literal.number(f"{node.name}e0")


def _divide(node: exp.Div) -> exp.Expr:
    """``/`` by zero is an error, not infinity."""
    divisor = node.expression
    if isinstance(divisor, exp.Literal) and float(divisor.name) != 0:
        return node
    return exp.Case().when(divisor.copy().eq(0), call("error", "division by zero")).else_(node.copy())


def _whole_division(node: exp.IntDiv) -> exp.Expr:
    """``DIV(a, b)`` becomes an operator: in brackets, as are its operands, or its neighbours take them from it."""
    return exp.paren(exp.IntDiv(this=exp.paren(node.this), expression=exp.paren(node.expression)))


def _unnest(node: exp.Unnest) -> exp.Expr:
    """``WITH OFFSET`` counts from 0, DuckDB's ordinality from 1; without an alias, a record's fields are columns."""
    array, alias, offset = node.expressions, node.args.get("alias"), node.args.get("offset")
    if not isinstance(node.parent, exp.From | exp.Join) or (alias and not offset):
        return node
    if not offset:
        depth = exp.PropertyEQ(this=exp.to_identifier("max_depth"), expression=exp.convert(2))
        return exp.select(call("unnest", array[0], depth)).subquery("unnested")
    column = alias.columns[0] if alias and alias.columns else exp.to_identifier("unnested")
    name = offset if isinstance(offset, exp.Identifier) else exp.to_identifier("offset", quoted=True)
    positions = call("unnest", call("range", call("len", array[0].copy())))
    if isinstance(node.parent, exp.Join) and node.parent.side:
        node.parent.set("on", exp.true())
    rows = exp.select(exp.alias_(call("unnest", array[0]), column), exp.alias_(positions, name))
    return rows.subquery(f"unnested_{column.name}")


def _json_text(node: exp.Expr) -> exp.Expr:
    """A JSON scalar without its quotes; of any other type (``STRING(timestamp)``), its text."""
    return call("json_extract_string", call("to_json", node.this), "$")


def _json_as(kind: str, lax: bool = False) -> Fix:
    """``INT64(json)`` and its kin; the ``LAX_`` ones give null where the others fail."""
    convert = exp.TryCast if lax else exp.Cast
    return lambda node: convert(this=_json_text(node), to=exp.DataType.build(kind))


def _json_type(node: exp.JSONType) -> exp.Expr:
    names = {"OBJECT": "object", "ARRAY": "array", "VARCHAR": "string", "BOOLEAN": "boolean", "NULL": "null"}
    kind = call("json_type", node.this)
    case = exp.Case().when(kind.copy().is_(exp.null()), exp.null())
    for theirs, ours in names.items():
        case = case.when(kind.copy().eq(theirs), exp.convert(ours))
    return case.else_(exp.convert("number"))


def _to_json(node: exp.JSONFormat) -> exp.Expr:
    """``TO_JSON`` gives JSON, unlike ``TO_JSON_STRING``."""
    return call("to_json", node.this) if node.args.get("to_json") else node


def _function(node: exp.Anonymous) -> exp.Expr:
    """``RANGE`` is a type of the service, and another function of DuckDB."""
    if node.name.upper() in ("RANGE", "GENERATE_RANGE_ARRAY"):
        raise not_here("type RANGE")
    return node


#: What to put in place of a node, by its type; children come before their parents.
FIXES: dict[type, Fix] = {
    **AGGREGATES,
    **CASTS,
    **SHAPES,
    **TIMES,
    exp.Anonymous: _function,
    exp.ByteLength: lambda node: call("strlen", node.this),
    exp.Div: _divide,
    exp.Float64: _json_as("DOUBLE"),
    exp.Format: lambda node: call("printf", node.this, *node.expressions),
    exp.Int64: _json_as("BIGINT"),
    exp.IntDiv: _whole_division,
    exp.JSONBool: _json_as("BOOLEAN"),
    exp.JSONFormat: _to_json,
    exp.JSONType: _json_type,
    exp.LaxBool: _json_as("BOOLEAN", lax=True),
    exp.LaxFloat64: _json_as("DOUBLE", lax=True),
    exp.LaxInt64: _json_as("BIGINT", lax=True),
    exp.LaxString: _json_text,
    exp.Literal: _literal,
    exp.SafeFunc: lambda node: call("try", node.this),
    exp.String: lambda node: node if node.args.get("zone") else _json_text(node),
    exp.Unnest: _unnest,
}
