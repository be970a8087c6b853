"""What SQLGlot's translation from GoogleSQL to DuckDB gets wrong, mended function by function.

A mend takes a parsed GoogleSQL function and returns what DuckDB is to run in its place; :data:`MENDS` lists them. Each
is here because a query gave another answer than the service's documentation says, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

Mend = Callable[[Any], exp.Expr]


def call(name: str, *arguments: Any) -> exp.Anonymous:
    """A call of a DuckDB function that SQLGlot leaves as it is."""
    return exp.Anonymous(this=name, expressions=[exp.convert(argument) for argument in arguments])


def _literal(node: exp.Literal) -> exp.Expr:
    """``1.5`` is a FLOAT64, not a decimal."""
    if node.is_string or node.name.isdigit() or "e" in node.name.lower():
        return node
    return exp.Literal.number(f"{node.name}e0")


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


def _divide(node: exp.Div) -> exp.Expr:
    """``/`` by zero is an error, not infinity."""
    divisor = node.expression
    if isinstance(divisor, exp.Literal) and float(divisor.name) != 0:
        return node
    return exp.Case().when(divisor.copy().eq(0), call("error", "division by zero")).else_(node.copy())


def _whole_division(node: exp.IntDiv) -> exp.Expr:
    """``DIV(a, b)`` becomes an operator: in brackets, as are its operands, or its neighbours take them from it."""
    return exp.paren(exp.IntDiv(this=exp.paren(node.this), expression=exp.paren(node.expression)))


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


def _timestamp_diff(node: exp.TimestampDiff) -> exp.Expr:
    """``TIMESTAMP_DIFF`` counts whole units passed; SQLGlot's ``DATE_DIFF`` counts the boundaries between."""
    return call("date_sub", node.args["unit"].name, node.expression, node.this)


def _extract(node: exp.Extract) -> exp.Expr:
    """Parts that DuckDB names or counts otherwise."""
    value, part = node.expression, node.this.name.upper()
    if isinstance(node.this, exp.WeekStart):
        return exp.cast(call("strftime", value, "%W"), "BIGINT") if part == "MONDAY" else node
    if part == "TIME":
        return _time_of_day(value)
    if part in ("DATE", "DATETIME"):
        return exp.cast(value, "TIMESTAMP" if part == "DATETIME" else part)
    if part == "WEEK":  # weeks begin on Sunday, and days before the first are in week 0
        return exp.cast(call("strftime", value, "%U"), "BIGINT")
    if part == "DAYOFWEEK":  # Sunday is 1, not 0
        return exp.paren(exp.Extract(this=exp.var("DOW"), expression=value) + 1)
    if part in ("MILLISECOND", "MICROSECOND"):  # DuckDB's include the seconds
        return exp.paren(node.copy() % (1_000 if part == "MILLISECOND" else 1_000_000))
    renamed = {"ISOWEEK": "WEEK", "DAYOFYEAR": "DOY"}.get(part)
    return exp.Extract(this=exp.var(renamed), expression=value) if renamed else node


def _time_of_day(moment: exp.Expr) -> exp.Expr:
    """DuckDB has no way from ``TIMESTAMPTZ`` to ``TIME`` in one step."""
    return exp.cast(exp.cast(moment, "TIMESTAMP"), "TIME")


_FORMATS = {"%E*S": "%S.%f", "%E3S": "%S.%g", "%E6S": "%S.%f", "%R": "%H:%M"}
_UTC_FORMATS = {"%Ez": "+00:00", "%z": "+0000", "%Z": "UTC"}


def _format_time(node: exp.TimeToStr) -> exp.Expr:
    """``FORMAT_TIMESTAMP`` and its kin: the zone, which SQLGlot drops, and elements that DuckDB spells otherwise."""
    zone = node.args.get("zone")
    if zone is not None:
        moment = node.this.this
        node.this.set("this", exp.AtTimeZone(this=exp.cast(moment, "TIMESTAMPTZ"), zone=zone))
        node.set("zone", None)
    pattern = node.args["format"]
    if isinstance(pattern, exp.Literal):
        text = pattern.name
        for ours, theirs in {**_FORMATS, **({} if zone is not None else _UTC_FORMATS)}.items():
            text = text.replace(ours, theirs)
        node.set("format", exp.convert(text))
    return node


def _parse_timestamp(node: exp.StrToTime) -> exp.Expr:
    """``PARSE_TIMESTAMP`` gives a TIMESTAMP, and reads offsets as ``%Ez``."""
    pattern = node.args["format"]
    if isinstance(pattern, exp.Literal):
        node.set("format", exp.convert(pattern.name.replace("%Ez", "%z").replace("%E*S", "%S.%f")))
    return exp.cast(node.copy(), "TIMESTAMPTZ")


def _timestamps(node: exp.GenerateTimestampArray) -> exp.Expr:
    """Bounds given as text are timestamps."""
    for bound in ("start", "end"):
        node.set(bound, exp.cast(node.args[bound], "TIMESTAMPTZ"))
    return node


def _date_trunc(node: exp.DateTrunc) -> exp.Expr:
    """``DATE_TRUNC`` to a day or more gives a DATE. (The service lets it take a TIMESTAMP too; use TIMESTAMP_TRUNC.)"""
    days = ("DAY", "WEEK", "ISOWEEK", "MONTH", "QUARTER", "YEAR", "ISOYEAR", "SUNDAY", "MONDAY")
    return exp.cast(node.copy(), "DATE") if node.args["unit"].name.upper() in days else node


def _current_datetime(node: exp.CurrentDatetime) -> exp.Expr:
    now = exp.AtTimeZone(this=exp.CurrentTimestamp(), zone=node.this or exp.convert("UTC"))
    return exp.cast(now, "TIMESTAMP")


def _json_text(node: exp.Expr) -> exp.Expr:
    """A JSON scalar without its quotes; of any other type (``STRING(timestamp)``), its text."""
    return call("json_extract_string", call("to_json", node.this), "$")


def _json_as(kind: str, lax: bool = False) -> Mend:
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


#: GoogleSQL's functions that need mending; children are mended before their parents.
MENDS: dict[type, Mend] = {
    exp.ApproxQuantiles: _quantiles,
    exp.ArrayAgg: _array_agg,
    exp.ByteLength: lambda node: call("strlen", node.this),
    exp.CountIf: _count_if,
    exp.CurrentDatetime: _current_datetime,
    exp.DateAdd: lambda node: exp.cast(node.copy(), "DATE"),
    exp.DateSub: lambda node: exp.cast(node.copy(), "DATE"),
    exp.DateTrunc: _date_trunc,
    exp.Div: _divide,
    exp.Extract: _extract,
    exp.Float64: _json_as("DOUBLE"),
    exp.Format: lambda node: call("printf", node.this, *node.expressions),
    exp.GenerateTimestampArray: _timestamps,
    exp.GroupConcat: _string_agg,
    exp.IgnoreNulls: _ignore_nulls,
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
    exp.StrToTime: _parse_timestamp,
    exp.String: lambda node: node if node.args.get("zone") else _json_text(node),
    exp.TimeToStr: _format_time,
    exp.TsOrDsToTime: lambda node: _time_of_day(node.this),
    exp.TimestampDiff: _timestamp_diff,
    exp.UnixMillis: lambda node: exp.paren(call("epoch_us", node.this) // 1_000),
    exp.UnixSeconds: lambda node: exp.paren(call("epoch_us", node.this) // 1_000_000),
    exp.UnixToTime: lambda node: exp.cast(node.copy(), "TIMESTAMPTZ"),
    exp.Unnest: _unnest,
}
