"""Functions of time that SQLGlot's translation from GoogleSQL to DuckDB gets wrong; see ``dialect_fixes``."""

from __future__ import annotations

from sqlglot import exp

from pipeline.emulators.bigquery.fix import Fix, call


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


#: As in ``dialect_fixes``.
TIMES: dict[type, Fix] = {
    exp.CurrentDatetime: _current_datetime,
    exp.DateAdd: lambda node: exp.cast(node.copy(), "DATE"),
    exp.DateSub: lambda node: exp.cast(node.copy(), "DATE"),
    exp.DateTrunc: _date_trunc,
    exp.Extract: _extract,
    exp.GenerateTimestampArray: _timestamps,
    exp.StrToTime: _parse_timestamp,
    exp.TimeToStr: _format_time,
    exp.TsOrDsToTime: lambda node: _time_of_day(node.this),
    exp.TimestampDiff: _timestamp_diff,
    exp.UnixMillis: lambda node: exp.paren(call("epoch_us", node.this) // 1_000),
    exp.UnixSeconds: lambda node: exp.paren(call("epoch_us", node.this) // 1_000_000),
    exp.UnixToTime: lambda node: exp.cast(node.copy(), "TIMESTAMPTZ"),
}
