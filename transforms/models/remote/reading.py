"""The one barrier around all that is made of a server's reply: whatever it holds, it ends as a verdict with words.

A reply is somebody else's: a proxy's page, another model's answer, half a body, numbers as text. What nobody foresaw in
one is a misfit of the request that it answers, as any other misfit is, and no error of ours.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from transforms.errors import quoted
from transforms.models.misfits import Misfit
from transforms.models.remote.reply import NOT_THE_INPUT, Reply, Verdict, error_in, judge

#: What makes something of a reply whose JSON it is given; raises ``Misfit`` where it is no answer to the request.
Read = Callable[[Reply, Any], Any]


#: How the words of a misfit begin that is a web page, or another text.
NOT_JSON = "not JSON"


class Reading(NamedTuple):
    """A reply as it was understood: who is to blame, what it says, or why it is none.

    ``reply`` is the one that was meant: where an answer of 200 holds an error, it has that error's status. ``misfit``
    says what came where a server answered, and not what was asked for, and ``logged`` says it without the
    answer, which may be made of the input; ``in_body`` is true where only the answer's
    words tell that it is an error, and they may quote the input. ``tokens`` is what an answer cost, where it says so.
    """

    reply: Reply
    verdict: Verdict
    value: Any = None
    words: str = ""
    misfit: str = ""
    logged: str = ""
    pause_s: float = 0.0
    in_body: bool = False
    tokens: int | None = None


def read_reply(reply: Reply, read: Read) -> Reading:
    """What ``reply`` says; raises nothing."""
    try:
        if not 200 <= reply.status < 300:
            return Reading(reply, judge(reply), words=reply.describe(), pause_s=reply.retry_after())
        if reply.words:
            raise Misfit(reply.words)
        answer = _parsed(reply)
        meant = _meant(reply, answer)
        if meant is not reply:
            verdict = judge(meant)
            if verdict not in (Verdict.BUSY, Verdict.REFUSED):
                verdict = Verdict.BROKEN  # were it the token or the URL, nothing else would be answered either
            return Reading(meant, verdict, words=meant.describe(), pause_s=meant.retry_after(), in_body=True)
        counted, generated = reply.tokens(answer)
        spent = None if counted is None else counted + generated
        return Reading(reply, Verdict.OK, read(reply, answer), tokens=spent)
    except Misfit as error:
        words, redacted = str(error), error.redacted()
    except Exception as error:
        # Its text may quote the answer, and with it the message; where it happened says enough to mend it.
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
        words = redacted = f"it cannot be read ({type(error).__name__} at {where})"
    return Reading(
        reply,
        Verdict.BROKEN,
        words=f"{reply.status}, but {words}",
        misfit=words,
        logged=f"{reply.status}, but {redacted}",
    )


def _parsed(reply: Reply) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise Misfit(f"{NOT_JSON}: {quoted(reply.said()[:200])}") from None


#: Keys of an answer. Where one is there, an "error" beside it is a note, and no error.
_ANSWERS = ("choices", "embeddings", "generated_text", "text", "labels", "answer", "model_id")
_CODES = ("code", "status", "status_code", "statusCode", "http_status")
_BUSY = re.compile(r"rate.?limit|too many requests|quota|overloaded|throttl|(at|over) capacity|try again", re.I)
_INPUT_ERROR = re.compile(r"validation|invalid_request|bad_?request", re.I)


def _meant(reply: Reply, answer: Any) -> Reply:
    """``reply``, or what it would be had its server said by the status that it is an error."""
    if not isinstance(answer, dict) or any(answer.get(key) for key in _ANSWERS):
        return reply
    error = answer.get("error")
    if answer.get("object") == "error" or (answer.get("errors") and not answer.get("data")):
        error = error or answer
    if not error:
        return reply
    words = " ".join((error_in(answer) or str(error)).split())[:600]
    places = [one for one in (error, answer) if isinstance(one, dict)]
    codes = [_status(place.get(key)) for place in places for key in _CODES]
    kinds = " ".join(str(place.get(key)) for place in places for key in ("type", "error_type", "code") if key in place)
    # A fault that names no status is the server's until others are answered meanwhile: as 500 is.
    status = next((code for code in codes if code), 0)
    if not status:
        busy = _BUSY.search(f"{kinds} {words}") or NOT_THE_INPUT.search(words)
        status = 429 if busy else 422 if _INPUT_ERROR.search(kinds) else 500
    return replace(reply, status=status, words=f"{words} (in an answer of {reply.status})")


def _status(value: Any) -> int:
    """``value`` as the status of an HTTP error, or 0."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 and text >= "400" else 0
