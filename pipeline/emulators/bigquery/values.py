"""Scalars on their way in: from what JSON holds to what Arrow takes, by column type.

A parser raises ``ValueError`` (or an arithmetic error) in the service's words for a value that its type does not take.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

Converter = Callable[[Any], Any]

_INTEGER = re.compile(r"[+-]?\d+")
_TIMESTAMP = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[ Tt](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?)?"
    r" ?(?:([Zz]|UTC)|([+-])(\d{1,2})(?::?(\d{2}))?)?"
)
_TIME = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?")
_EPOCH = dt.datetime(1970, 1, 1)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _string(value: Any) -> str:
    if isinstance(value, bool):
        raise ValueError("Conversion from bool to std::string is unsupported.")
    return _shown(value)


def _bytes(value: Any) -> bytes:
    try:
        # The service takes either alphabet, and base64 whose padding was left out.
        return base64.b64decode(value.translate(_URL_SAFE) + "=" * (-len(value) % 4), validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise ValueError("Could not decode base64 string to bytes.") from None


_URL_SAFE = str.maketrans("-_", "+/")


def _integer(value: Any) -> int:
    if type(value) is int:
        number = value
    elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        number = int(value)
    else:
        raise ValueError(f"Cannot convert value to integer (bad value): {_shown(value)}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"Cannot convert value to integer (bad value): {number}")
    return number


def _float(value: Any) -> float:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value)
        if math.isinf(number) and isinstance(value, str) and "inf" not in value.lower():
            raise ValueError
        return number
    except (ValueError, OverflowError):
        raise ValueError(f"Cannot convert value to floating point (bad value): {_shown(value)}") from None


def _numeric(places: int, kind: str) -> Converter:
    quantum = decimal.Decimal(1).scaleb(-places)
    context = decimal.Context(prec=38, rounding=decimal.ROUND_HALF_UP)

    def parse(value: Any) -> decimal.Decimal:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = decimal.Decimal(_shown(value))
            if not number.is_finite():
                raise ValueError
            return number.quantize(quantum, context=context)
        except (ValueError, decimal.InvalidOperation):
            raise ValueError(f"Invalid {kind} value: {_shown(value)}") from None

    return parse


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"Cannot convert value to boolean (bad value): {_shown(value)}")


def _timestamp(value: Any) -> dt.datetime:
    """UTC without saying so: Arrow reads that three times as fast as a ``datetime`` with a time zone."""
    if isinstance(value, str):
        try:
            return parse_timestamp(value)
        except ValueError:
            pass
        try:
            value = float(value)
        except ValueError:
            raise ValueError(
                f"Could not parse '{value}' as a timestamp. Required format is YYYY-MM-DD HH:MM[:SS[.SSSSSS]] or "
                "YYYY/MM/DD HH:MM[:SS[.SSSSSS]]"
            ) from None
    if isinstance(value, bool):
        raise ValueError("Conversion from bool to TIMESTAMP is unsupported.")
    try:
        return _EPOCH + dt.timedelta(microseconds=round(value * 1_000_000))
    except (OverflowError, ValueError):
        raise ValueError(f"Timestamp is out of supported range: {_shown(value)}") from None


def parse_timestamp(text: str) -> dt.datetime:
    """``2024-01-31T12:00:00.123456Z`` and its variants as naive UTC; raises ``ValueError``."""
    if len(text) == 27 and text[26] == "Z" and text[19] == ".":  # what most clients write: five times as fast
        return dt.datetime.fromisoformat(text[:26])
    moment = _naive(text)
    sign, hours, minutes = _TIMESTAMP.fullmatch(text).group(9, 10, 11)  # type: ignore[union-attr]
    if sign:
        offset = dt.timedelta(hours=int(hours), minutes=int(minutes or 0))
        moment = moment - offset if sign == "+" else moment + offset
    return moment


def _naive(text: str) -> dt.datetime:
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction = match.groups()[:7]
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    return dt.datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), microsecond)


def _date(value: Any) -> dt.date:
    try:
        return dt.date(*map(int, re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", value).groups()))  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid date: '{_shown(value)}'") from None


def _datetime(value: Any) -> dt.datetime:
    try:
        if _TIMESTAMP.fullmatch(value).group(8, 9) != (None, None):  # type: ignore[union-attr]
            raise ValueError("a DATETIME has no time zone")
        return _naive(value)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'Invalid datetime string "{_shown(value)}"') from None


def _time(value: Any) -> dt.time:
    try:
        hour, minute, second, fraction = _TIME.fullmatch(value).groups()  # type: ignore[union-attr]
        return dt.time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")[:6]))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'Invalid time string "{_shown(value)}"') from None


def _json(value: Any) -> str:
    if not isinstance(value, str):
        return _shown(value)
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"Invalid JSON: syntax error while parsing value - {error}") from None
    return value


#: Types whose JSON value is the Arrow value already.
NATIVE = {"STRING": str, "FLOAT": float, "BOOLEAN": bool, "GEOGRAPHY": str}

#: What makes an Arrow value of any other.
PARSERS: dict[str, Converter] = {
    "STRING": _string,
    "BYTES": _bytes,
    "INTEGER": _integer,
    "FLOAT": _float,
    "NUMERIC": _numeric(9, "NUMERIC"),
    "BIGNUMERIC": _numeric(18, "BIGNUMERIC"),
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "DATE": _date,
    "TIME": _time,
    "DATETIME": _datetime,
    "JSON": _json,
    "GEOGRAPHY": _string,
}
