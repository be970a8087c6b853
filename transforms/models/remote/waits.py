"""How long a server asks to wait, in the ways that servers, gateways and providers write it."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Longest that a server is believed, in seconds: then it is asked again.
LONGEST_WAIT_S = 300.0

#: A date's seconds since the epoch, as opposed to a number of seconds to wait.
_A_DATE = 1_000_000_000

#: ``6m0s``, ``1.5s``, ``20ms``: durations as Go writes them, and so OpenAI, Groq and others.
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_PARTS = (3600.0, 60.0, 1.0, 0.001)

#: What is counted and runs out: requests, tokens, or whatever the server does not say.
_COUNTED = ("", "-requests", "-tokens", "-input-tokens", "-output-tokens")
_PREFIXES = ("x-ratelimit-", "ratelimit-", "x-rate-limit-", "anthropic-ratelimit-")


def wait_s(headers: Mapping[str, str], answer: Any) -> float:
    """Seconds to wait, up to ``LONGEST_WAIT_S``, by the headers and the JSON of a refusal; 0 where neither says so."""
    # A server's dates are by its own clock, which need not be this one.
    now = _date(headers.get("date", "")) or time.time()
    found = (
        _number(headers.get("retry-after-ms") or headers.get("x-ms-retry-after-ms"), 0.001)
        or _retry_after(headers.get("retry-after", ""), now)
        or _resets(headers, now)
        or _structured(headers.get("ratelimit", ""))
        or _in_details(answer)
    )
    return min(LONGEST_WAIT_S, found)


def _retry_after(text: str, now: float) -> float:
    """https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or a date; here a duration too."""
    return _seconds(text) or max(0.0, _date(text) - now)


def _date(text: str) -> float:
    """An HTTP date as seconds since the epoch; 0 where it is none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _resets(headers: Mapping[str, str], now: float) -> float:
    """When what has run out is there again, the latest of it."""
    found = [0.0]
    for prefix in _PREFIXES:
        for counted in _COUNTED:
            left = headers.get(f"{prefix}remaining{counted}", headers.get(f"{prefix[:-1]}{counted}-remaining", "0"))
            until = headers.get(f"{prefix}reset{counted}", headers.get(f"{prefix[:-1]}{counted}-reset", ""))
            if left.strip() in ("0", "0.0") and until:
                found.append(_until(until, now))
    found.append(_seconds(headers.get("x-ratelimit-reset-after", "")))
    return max(found)


def _until(text: str, now: float) -> float:
    """Seconds to a moment: a date, its seconds or milliseconds since the epoch, or how far off it is."""
    seconds = _seconds(text)
    if seconds > _A_DATE * 1000:
        seconds /= 1000
    if seconds > _A_DATE:
        return seconds - now
    if seconds:
        return seconds
    try:
        iso = re.sub(r"Z$", "+00:00", text.strip())  # Python 3.10 does not know the letter
        return datetime.fromisoformat(iso).timestamp() - now
    except (ValueError, OverflowError):
        return _retry_after(text, now)


def _structured(text: str) -> float:
    """``"default";r=0;t=50``, and older ``remaining=0, reset=50``.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers
    """
    left = re.search(r"\b(?:r|remaining)=(\d+)", text)
    until = re.search(r"\b(?:t|reset)=(\d{1,9})\b", text)
    return float(until[1]) if until and left and int(left[1]) == 0 else 0.0


def _in_details(answer: Any) -> float:
    """Google's ``RetryInfo``: https://cloud.google.com/apis/design/errors#retry_info"""
    error = answer.get("error") if isinstance(answer, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    found = [one.get("retryDelay") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return max((_seconds(one) for one in found if isinstance(one, str)), default=0.0)


def _number(text: str | None, scale: float) -> float:
    return float(text) * scale if text and re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text.strip(), re.ASCII) else 0.0


def _seconds(text: str) -> float:
    """A number of seconds, or a duration with units; 0 where it is neither."""
    text = text.strip().lower()[:40]
    found = _DURATION.fullmatch(text)
    if not text or not text.isascii():
        return 0.0
    if not found or not any(found.groups()):
        return _number(text, 1.0)
    return sum(float(part) * scale for part, scale in zip(found.groups(), _PARTS, strict=True) if part)
