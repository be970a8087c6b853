"""Types and shapes that SQLGlot's translation loses (decimals, structs, counted values); see ``dialect_fixes``."""

from __future__ import annotations

from sqlglot import exp

from pipeline.emulators.bigquery.fix import Fix
from pipeline.emulators.bigquery.types import SCALARS
from pipeline.emulators.bigquery.unsupported import not_here


def _decimal(node: exp.DataType) -> exp.Expr:
    """NUMERIC has 9 places, where DuckDB's plain DECIMAL has 3, and BIGNUMERIC here 18."""
    names = {exp.DataType.Type.DECIMAL: "NUMERIC", exp.DataType.Type.BIGDECIMAL: "BIGNUMERIC"}
    if node.this in exp.DataType.TEMPORAL_TYPES and node.expressions:
        raise not_here(f"{node.sql(dialect='bigquery')}: a precision")
    if node.this not in names or node.expressions:
        return node
    return exp.DataType.build(SCALARS[names[node.this]][0], dialect="duckdb")


def _parsed(kind: str) -> Fix:
    return lambda node: exp.cast(node.this, SCALARS[kind][0], dialect="duckdb")


def _struct(node: exp.Struct) -> exp.Expr:
    """A field without a name has that of its column or, as the service has it, ``_field_2`` for the second."""
    if isinstance(node.parent, exp.Cast):
        return node  # STRUCT<a INT64>(1): the type has the names
    return _named(node.expressions)


def _tuple(node: exp.Tuple) -> exp.Expr:
    """``(a, b)`` is a struct of nameless fields where a value is wanted; in ``IN`` and ``VALUES``, expressions."""
    typed = isinstance(node.parent, exp.Array) and isinstance(node.parent.parent, exp.Cast)
    wanted = isinstance(node.parent, exp.Select | exp.Alias | exp.Array | exp.PropertyEQ) and not typed
    return _named(node.expressions, nameless=True) if wanted else node


def _named(expressions: list[exp.Expr], nameless: bool = False) -> exp.Struct:
    fields = []
    for number, value in enumerate(expressions, 1):
        if not isinstance(value, exp.PropertyEQ):
            told = isinstance(value, exp.Alias | exp.Column | exp.Dot) and not nameless
            name = value.alias_or_name if told else f"_field_{number}"
            inner = value.this if isinstance(value, exp.Alias) else value
            inner = _named(inner.expressions, nameless=True) if isinstance(inner, exp.Tuple) else inner
            value = exp.PropertyEQ(this=exp.to_identifier(name, quoted=True), expression=inner.copy())
        fields.append(value.copy())
    return exp.Struct(expressions=fields)


_COUNTS = """list_transform(
  list_slice(list_reverse_sort(list_transform(map_entries(histogram(values_)), LAMBDA e: {'n': e.value, 'v': e.key})),
             1, limit_),
  LAMBDA e: {'value': e.v, 'count': e.n})"""


def _top_count(node: exp.ApproxTopK) -> exp.Expr:
    """``APPROX_TOP_COUNT`` gives records of value and count, the most frequent first; here they are exact."""
    parsed: exp.Expr = exp.maybe_parse(_COUNTS, dialect="duckdb")
    for column in list(parsed.find_all(exp.Column)):
        if column.name == "values_":
            column.replace(node.this.copy())
        elif column.name == "limit_":
            column.replace(node.expression.copy())
    return parsed


#: As in ``dialect_fixes``.
SHAPES: dict[type, Fix] = {
    exp.ApproxTopK: _top_count,
    exp.DataType: _decimal,
    exp.ParseBignumeric: _parsed("BIGNUMERIC"),
    exp.ParseNumeric: _parsed("NUMERIC"),
    exp.Struct: _struct,
    exp.Tuple: _tuple,
}
