"""What came back from a server, and who is to blame when it is not an answer."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from transforms.models.remote import usage, waits
from transforms.models.remote.waits import LONGEST_WAIT_S as LONGEST_WAIT_S

#: What stands where a server had no number to write, and is no JSON.
_NO_NUMBER = re.compile(rb"NaN|Infinity|\d[eE]\+?\d{3}")


class Verdict(enum.Enum):
    """What a reply says about the request, and what to do about it."""

    OK = "an answer"
    REFUSED = "the input is to blame: a dead letter"
    BUSY = "overloaded, loading or away: wait, and never blame the input"
    BROKEN = "failed: wait; it may be the input's doing if it happens to this one only"
    DENIED = "the token is not accepted: read it again"
    WRONG = "no endpoint for this: wait, as an operator must act"


@dataclass(frozen=True, slots=True)
class Reply:
    """One attempt's outcome, after ``ms``. ``status`` 0 means that no answer came; ``words`` then say why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    words: str = ""
    ms: float = 0.0
    reached: bool = True

    def json(self) -> Any:
        """The body as JSON; NaN and infinities, which some servers write and JSON has not, are null.

        Raises:
          ValueError: it is none.
        """
        body = self.body.removeprefix(b"\xef\xbb\xbf")
        try:
            return orjson.loads(body)
        except ValueError:
            if not _NO_NUMBER.search(body):
                raise
        try:
            return orjson.loads(orjson.dumps(json.loads(body.decode())))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not JSON: {type(error).__name__}") from None

    def tokens(self, answer: Any) -> tuple[int | None, int]:
        """Tokens that the server read (None where it does not say) and generated."""
        return usage.tokens(self.headers, answer)

    def retry_after(self) -> float:
        """Seconds that the server asks to wait, up to ``LONGEST_WAIT_S``; 0 where it does not say."""
        try:
            answer = self.json() if self.body[:1] in (b"{", b"[") else None
        except ValueError:
            answer = None
        return waits.wait_s(self.headers, answer) or self._loading()

    def _loading(self) -> float:
        """A server that loads its model may say how long that takes."""
        try:
            found = self.json() if self.status == 503 else None
            return min(60.0, max(0.0, float(found["estimated_time"]))) if isinstance(found, dict) else 0.0
        except (ValueError, KeyError, TypeError, OverflowError):
            return 0.0

    def said(self) -> str:
        """The server's own words, one line."""
        if self.status == 0 or self.words:
            return self.words
        text = self.body[:4000].decode("utf-8", "replace")
        try:
            text = error_in(self.json()) or text
        except ValueError:
            if "<html" in text.lower():
                title = re.search(r"<title>(.*?)</title>", text, re.I | re.S)
                text = title.group(1) if title else "a web page"
        return " ".join(text.split())[:600] or "(no words)"

    def describe(self) -> str:
        """Status and words."""
        return self.said() if self.status == 0 else f"{self.status}: {self.said()}"


def error_in(found: Any) -> str:
    """The message in the ways that Hugging Face's servers, OpenAI's and FastAPI write an error."""
    if not isinstance(found, dict):
        return ""
    error = found.get("error") or found.get("message") or found.get("detail") or found.get("errors")
    if isinstance(error, dict):
        error = error.get("message") or error
    if isinstance(error, list):
        error = "; ".join(str(one.get("msg", one) if isinstance(one, dict) else one) for one in error)
    return str(error) if error else ""


#: Statuses that blame the input: malformed, not acceptable, too large, of the wrong kind, or not processable.
_INPUT = {400, 406, 411, 413, 415, 416, 422, 431, 451}
#: 529 is "overloaded" on several gateways.
_WAIT = {408, 409, 425, 429, 503, 529}

#: An endpoint that is paused, starts or runs out of memory answers 400 all the same.
NOT_THE_INPUT = re.compile(
    r"\bpaused\b|not stopped|initializ|scaled to zero|scaling (up|from)|is (currently )?loading|not ready|"
    r"out of memory|dedicated (dns|endpoint|domain)|(not|n't|no|any) (have |be |been )?(any |a )?(deployed|traffic)",
    re.I,
)


def judge(reply: Reply) -> Verdict:
    """Who is to blame for ``reply``, if anyone."""
    status = reply.status
    if status == 0:
        return Verdict.BROKEN if reply.reached else Verdict.BUSY
    if 200 <= status < 300:
        return Verdict.OK
    if status in (401, 403):
        return Verdict.DENIED
    if status in _WAIT:
        return Verdict.BUSY
    if status in _INPUT:
        # The words may quote the input, so this only waits: an input that nothing else explains is blamed in the end.
        return Verdict.BROKEN if status == 400 and NOT_THE_INPUT.search(reply.said()) else Verdict.REFUSED
    if status >= 500 or status == 424:
        return Verdict.BROKEN
    return Verdict.WRONG
