"""Aggregates that SQLGlot's translation from GoogleSQL to DuckDB gets wrong; see ``dialect_fixes``."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from pipeline.emulators.bigquery.fix import Fix, call


def _quantiles(node: exp.ApproxQuantiles) -> exp.Expr:
    """Exact quantiles for ``APPROX_QUANTILES``: DuckDB's approximate ones take numbers only, and interpolate."""
    values, count = node.this, node.expression
    if isinstance(values, exp.Distinct):
        *rest, count = values.expressions
        values = exp.Distinct(expressions=rest)
    steps = int(count.name)
    return exp.Anonymous(
        this="quantile_disc", expressions=[values, exp.convert([step / steps for step in range(steps + 1)])]
    )


def _count_if(node: exp.CountIf) -> exp.Expr:
    """``COUNTIF`` of nothing but nulls is 0, not null."""
    if isinstance(node.this, exp.Distinct):
        return node
    return exp.Count(this=exp.Case().when(node.this, exp.convert(1)))


def _limited(aggregate: Callable[[exp.Expr], exp.Expr], argument: exp.Expr) -> exp.Expr:
    """An array aggregate whose ``LIMIT``, which DuckDB lacks, is a slice of the whole."""
    if isinstance(argument, exp.Limit):
        return call("list_slice", aggregate(argument.this), 1, argument.expression)
    return aggregate(argument)


def _array_agg(node: exp.ArrayAgg) -> exp.Expr:
    if isinstance(node.parent, exp.IgnoreNulls) or not isinstance(node.this, exp.Limit):
        return node
    return _limited(lambda argument: exp.ArrayAgg(this=argument), node.this)


def _ignore_nulls(node: exp.IgnoreNulls) -> exp.Expr:
    """``IGNORE NULLS`` as a filter; quantiles ignore them anyway."""
    if not isinstance(node.this, exp.ArrayAgg):
        return node.this if isinstance(node.this, exp.Anonymous) else node

    def aggregate(argument: exp.Expr) -> exp.Expr:
        return exp.Filter(this=exp.ArrayAgg(this=argument), expression=_not_null(argument))

    return _limited(aggregate, node.this.this)


def _string_agg(node: exp.GroupConcat) -> exp.Expr:
    if not isinstance(node.this, exp.Limit):
        return node

    def aggregate(argument: exp.Expr) -> exp.Expr:
        return exp.Filter(this=exp.ArrayAgg(this=argument), expression=_not_null(argument))

    return call("array_to_string", _limited(aggregate, node.this), node.args.get("separator") or ",")


def _not_null(argument: exp.Expr) -> exp.Where:
    value = argument
    while isinstance(value, exp.Order | exp.Distinct):
        value = value.this if isinstance(value, exp.Order) else value.expressions[0]
    return exp.Where(this=value.copy().is_(exp.null()).not_())


#: As in ``dialect_fixes``.
AGGREGATES: dict[type, Fix] = {
    exp.ApproxQuantiles: _quantiles,
    exp.ArrayAgg: _array_agg,
    exp.CountIf: _count_if,
    exp.GroupConcat: _string_agg,
    exp.IgnoreNulls: _ignore_nulls,
}
