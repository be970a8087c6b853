"""``CAST`` and ``SAFE_CAST`` as the service does them, where DuckDB's take or give something else.

DuckDB reads '1.5' as the integer 2, '1' as true, '999-01-01' as a date and 24:00:00 as midnight; it rounds 2.5 to 2,
and as text a FLOAT64 of one is 1.0, a NUMERIC has all its places and bytes their escapes. In its place stands a macro a
target: https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_functions
"""

from __future__ import annotations

import re

from sqlglot import exp

from pipeline.emulators.bigquery.fix import Fix, call

#: A database of its own, in memory: what is written into the file at its opening would need room there.
_SCHEMA = "bigquery_casts"


def _text(pattern: str, kind: str, words: str) -> str:
    """A text that fits ``pattern`` as ``kind``; of any other a conversion that fails, and says ``words``."""
    x = "CAST(x AS VARCHAR)"
    return f"CAST(CASE WHEN regexp_full_match({x}, '{pattern}') THEN {x} ELSE '{words}: ' || {x} END AS {kind})"


def _digits() -> str:
    """The text of a moment: a fraction of a second has three digits or six."""
    padded = "CAST(x AS VARCHAR)"
    for left, zeros in (("1}|[0-9]{4", "00"), ("2}|[0-9]{5", "0")):
        padded = rf"regexp_replace({padded}, '\.([0-9]{{{left}}})(\+.*|)$', '.\1{zeros}\2')"
    return padded


_DATE = "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
_INTEGER = r"\s*[+-]?([0-9]+|0[xX][0-9a-fA-F]+)\s*"
_BYTES = "decode(CAST(CAST(x AS VARCHAR) AS BLOB))"
_DOUBLE = "(TRY_CAST(x AS DOUBLE) + CAST(0 AS DOUBLE))"  # -0.0 has no sign as text
_SHORT, _LONG = (f"printf('%.{digits}g', {_DOUBLE})" for digits in (15, 17))
_FLOAT = f"CASE WHEN CAST({_SHORT} AS DOUBLE) = {_DOUBLE} THEN {_SHORT} ELSE {_LONG} END"
_MOMENTS = ("DATE", "TIMESTAMP", "TIMESTAMPTZ")


def _by_type(other: str, **bodies: str) -> dict[str, str]:
    """One body for all types; ``x`` is cast to ``other`` if none of ``bodies`` is for it. Only one branch is run."""
    cases = " ".join(f"WHEN typeof(x) LIKE '{kind}%' THEN {body}" for kind, body in bodies.items())
    return {"": f"CASE {cases} ELSE CAST(x AS {other}) END"}


#: By DuckDB's name of the target: what is done with ``x`` of each type. DuckDB takes a HUGEINT or a DECIMAL for several
#: types: where it may be one, all have one body.
_BODIES: dict[str, dict[str, str]] = {
    "BIGINT": _by_type(
        "BIGINT",
        VARCHAR=_text(_INTEGER, "BIGINT", "Bad int64 value"),
        DOUBLE="CAST(round(TRY_CAST(x AS DOUBLE)) AS BIGINT)",
    ),
    "BOOLEAN": _by_type("BOOLEAN", VARCHAR=_text("(?i)true|false", "BOOLEAN", "Bad bool value")),
    "VARCHAR": _by_type(
        "VARCHAR",
        DOUBLE=_FLOAT,
        DECIMAL="rtrim(rtrim(CAST(x AS VARCHAR), '0'), '.')",
        TIME=_digits(),
        BLOB=_BYTES,
    ),
    "BLOB": {"VARCHAR": "encode(x)", "BLOB": "x"},
    "DATE": {"VARCHAR": _text(_DATE, "DATE", "Invalid date"), **dict.fromkeys(_MOMENTS, "CAST(x AS DATE)")},
    "TIMESTAMP": {
        "VARCHAR": _text(_DATE + ".*", "TIMESTAMP", "Invalid datetime"),
        **dict.fromkeys(_MOMENTS, "CAST(x AS TIMESTAMP)"),
    },
    "TIMESTAMPTZ": {
        "VARCHAR": _text(_DATE + ".*", "TIMESTAMPTZ", "Invalid timestamp"),
        **dict.fromkeys(_MOMENTS, "CAST(x AS TIMESTAMPTZ)"),
    },
    "TIME": {
        "VARCHAR": _text(r"\s*([01]?[0-9]|2[0-3]):.*", "TIME", "Invalid time"),
        "TIME": "x",
        **dict.fromkeys(("TIMESTAMP", "TIMESTAMPTZ"), "CAST(CAST(x AS TIMESTAMP) AS TIME)"),
    },
}


def _safe(body: str) -> str:
    """What gives null where ``body`` fails."""
    return re.sub(r"(?<!TRY_)CAST\(", "TRY_CAST(", body.replace(_BYTES, f"TRY({_BYTES})"))


#: To be run where a database is opened.
MACROS = f"ATTACH IF NOT EXISTS ':memory:' AS {_SCHEMA};\n" + ";\n".join(
    f"CREATE OR REPLACE MACRO {_SCHEMA}.{name}_{target.lower()}"
    + ", ".join(f"({f'x {kind}'.strip()}) AS {change(body)}" for kind, body in bodies.items())
    for target, bodies in _BODIES.items()
    for name, change in (("cast", str), ("safe_cast", _safe))
)


def _cast(name: str) -> Fix:
    def fix(node: exp.Cast) -> exp.Expr:
        target = node.to.sql(dialect="duckdb")
        target = {"TEXT": "VARCHAR", "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}.get(target, target)
        # A parameter has its type already; a FORMAT is another conversion.
        if target not in _BODIES or isinstance(node.this, exp.Parameter) or node.args.get("format"):
            return node
        macro = call(f"{name}_{target.lower()}", node.this.copy())
        return exp.Dot(this=exp.to_identifier(_SCHEMA), expression=macro)

    return fix


#: As in ``dialect_fixes``.
CASTS: dict[type, Fix] = {exp.Cast: _cast("cast"), exp.TryCast: _cast("safe_cast")}
