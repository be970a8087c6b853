"""What a flag's text may be: each matcher returns its value, or raises ValueError with the cause and the way out.

Digits are ASCII and numbers finite: what looks like a number to Python alone (``1_000``, ``١``, ``nan``) is none here.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import jmespath

#: A plain decimal number, for a form; scientific notation is accepted too, where there is no form to fill in.
DECIMAL = r"\d+(\.\d+)?"
_NUMBER = r"(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?"
_TIME = r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?)?"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def text(given: str) -> str:
    """Any text that is not blank at its ends and has no control characters: those came from a shell's quoting."""
    if given != given.strip() or not given.isprintable():
        raise ValueError("begins or ends with a space, or holds a control character; leave these out")
    return given


@dataclass(frozen=True, slots=True)
class Matching:
    """Takes text that matches ``pattern`` whole."""

    kind: str
    pattern: str
    use: str

    @property
    def shown(self) -> str:
        """What stands for it in help."""
        return self.kind.replace(" ", "_").upper()

    def __call__(self, given: str) -> str:
        if not re.fullmatch(self.pattern, given, re.ASCII):
            raise ValueError(f"not a {self.kind}; use {self.use}")
        return given


_PROJECT = r"[a-z][-a-z0-9:.]{4,61}[a-z0-9]"
#: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_RESOURCE = r"(?!goog)[A-Za-z][A-Za-z0-9._~%+-]{2,254}"
PROJECT = Matching("project id", _PROJECT, "6 to 63 small letters, digits and hyphens")
TOPIC = Matching("topic", f"projects/{_PROJECT}/topics/{_RESOURCE}", "projects/PROJECT/topics/TOPIC")
SUBSCRIPTION = Matching(
    "subscription", f"projects/{_PROJECT}/subscriptions/{_RESOURCE}", "projects/PROJECT/subscriptions/SUBSCRIPTION"
)
#: What names of topics, subscriptions and, with underscores, of a dataset can begin with.
NAME = Matching(
    "beginning of names",
    r"(?!goog)[A-Za-z][A-Za-z0-9_-]{0,99}",
    "a letter, then letters, digits, hyphens and underscores",
)
#: https://cloud.google.com/iam/docs/service-account-types; an email of a Google-managed one has its project elsewhere.
SERVICE_ACCOUNT = Matching(
    "service account",
    r"[a-z0-9][a-z0-9.-]{0,62}@[a-z0-9][a-z0-9.-]{2,100}\.gserviceaccount\.com",
    "NAME@PROJECT.iam.gserviceaccount.com",
)
TOKEN_SOURCE = Matching(
    "token source",
    r"env:[A-Za-z_]\w*|file:\S+|secret:projects/[^/\s]+/secrets/[^/\s]+/versions/[^/\s]+",
    "env:NAME, file:PATH or secret:projects/PROJECT/secrets/SECRET/versions/latest; never the token itself",
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """Takes the key of a Pub/Sub attribute: https://cloud.google.com/pubsub/quotas#resource_limits"""

    pattern: ClassVar[str] = r"(?!goog)[^\s]{1,256}"

    def __call__(self, given: str) -> str:
        if not re.fullmatch(self.pattern, given) or not given.isprintable() or len(given.encode()) > 256:
            raise ValueError(
                "not a Pub/Sub attribute key; use up to 256 characters (as UTF-8, bytes) that do not begin with goog"
            )
        return given


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Takes a URL, ``vertex:`` and the name of an endpoint there, or ``provider:NAME``."""

    pattern: ClassVar[str] = (
        r"https?://[^\s/]+(/\S*)?|provider:[a-z][a-z0-9-]*"
        rf"|vertex:projects/({_PROJECT}|[0-9]+)/locations/[a-z][a-z0-9-]*/endpoints/[a-z0-9][a-z0-9-]*"
    )

    def __call__(self, given: str) -> str:
        use = "use https://HOST/PATH, vertex:projects/P/locations/L/endpoints/ID, provider:auto or provider:NAME"
        if not re.fullmatch(self.pattern, given, re.ASCII):
            raise ValueError(f"not a URL; {use}")
        if not given.startswith(("provider:", "vertex:")):
            try:
                host = urlsplit(given)
                if not host.hostname or host.port == 0:
                    raise ValueError("it names no host, or port 0")
            except ValueError as error:
                raise ValueError(f"not a URL ({error}); {use}") from None
        return given


@dataclass(frozen=True, slots=True)
class TableName:
    """A BigQuery table."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"


TABLE = rf"({_PROJECT})[:.]([A-Za-z0-9_]{{1,1024}})\.([\w-]{{1,1024}})"


def table_name(given: str) -> TableName:
    """``PROJECT:DATASET.TABLE``, or with a dot in place of the colon."""
    found = re.fullmatch(TABLE, given)
    if not found:
        raise ValueError("not a table; use PROJECT:DATASET.TABLE")
    return TableName(*found.groups())


@dataclass(frozen=True, slots=True)
class Integer:
    """Takes a whole number from ``least`` to ``most``."""

    least: int
    most: int
    pattern: ClassVar[str] = r"[+-]?\d{1,18}"

    def __call__(self, given: str) -> int:
        if not re.fullmatch(self.pattern, given, re.ASCII) or not self.least <= int(given) <= self.most:
            raise ValueError(f"use a whole number from {self.least} to {self.most}")
        return int(given)


#: A TCP port, or 0 for any free one.
PORT = Integer(0, 65_535)


@dataclass(frozen=True, slots=True)
class Decimal:
    """Takes a number over 0, up to ``most``."""

    most: float
    use: str

    def __call__(self, given: str) -> float:
        found = float(given) if re.fullmatch(_NUMBER, given, re.ASCII | re.IGNORECASE) else 0.0
        if not 0 < found <= self.most:
            raise ValueError(f"use {self.use}")
        return found


#: How many.
COUNT = Integer(1, 999_999_999)
positive = Decimal(999_999, "a number over 0 and up to 999999")
seconds = Decimal(86_400, "seconds, more than 0 and up to 86400")


def moment(given: str) -> float:
    """A time in RFC 3339 (without an offset: UTC), or how long ago, such as ``15m``; seconds since the epoch."""
    use = "use 2030-01-31T12:00:00Z, or 15m, 2h, 3d for that long ago"
    found = re.fullmatch(r"(\d{1,9})([smhd])", given, re.ASCII)
    if found:
        return time.time() - int(found[1]) * _UNITS[found[2]]
    parts = re.fullmatch(_TIME, given, re.ASCII | re.IGNORECASE)
    if not parts:
        raise ValueError(use)
    date, clock, fraction, zone = (part or "" for part in parts.groups())
    zone = "+00:00" if zone in ("", "Z", "z") else zone
    # Python 3.10 reads six digits of a fraction, and no fewer.
    iso = f"{date}T{clock or '00:00:00'}.{fraction:0<6.6}{zone}"
    try:
        return datetime.fromisoformat(iso).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(use) from None


def pair(given: str) -> tuple[str, str]:
    """``KEY=VALUE``; the value may hold further equals signs, or be empty."""
    key, separator, found = given.partition("=")
    if not key or not separator:
        raise ValueError("use KEY=VALUE")
    return key, found


def json_object(given: str) -> dict[str, Any]:
    """An object in JSON, which knows neither NaN nor Infinity, nor a key twice."""
    use = 'use an object such as {"top_k": 3}'
    try:
        found = json.loads(given, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({' '.join(str(error).split())}); {use}") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object; {use}")
    return found


def _no_constant(given: str) -> Any:
    raise ValueError(f"{given} is no JSON number")


def _finite(given: str) -> float:
    found = float(given)
    if abs(found) == float("inf"):
        raise ValueError(f"{given} is too large a number")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def jmespath_expression(given: str) -> str:
    """An expression of https://jmespath.org that compiles."""
    try:
        jmespath.compile(given)
    except Exception as error:  # its parser lets through errors of other kinds than its own
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"not a JMESPath expression ({words}); see https://jmespath.org") from None
    return given


def path(given: str) -> Path:
    """A file of this machine, which need not be there yet; not a folder."""
    found = Path(text(given))
    if found.is_dir():
        raise ValueError("is a folder; use a file's path")
    return found
