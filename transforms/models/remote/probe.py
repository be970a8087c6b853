"""A look at an endpoint before a launch: what an operator must mend, in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from transforms.models.errors import ElementError, ModelLoadError, foreign
from transforms.models.remote.caller import Caller
from transforms.models.remote.discover import EndpointSpec, discover
from transforms.models.remote.provider import NobodyServes
from transforms.models.remote.reading import NOT_JSON, Reading
from transforms.models.remote.reply import Verdict
from transforms.models.remote.rows import read_rows
from transforms.models.remote.small import small_ask
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenError, TokenKeeper
from transforms.records import ModelInfo

#: Seconds between the attempts of a look: one that meets a busy moment says nothing yet.
_PAUSES_S = (0.2, 1.0)


async def probe(caller: Caller, spec: EndpointSpec, task: TaskEntry, parameters: Mapping[str, Any]) -> ModelInfo:
    """Asks the endpoint something small; returns which model answers.

    Raises:
      ModelLoadError: one line on what an operator must mend: the token, its scope, the model, the URL, the certificate,
        or that it answers, and never with what the task gives.
      EndpointAway: it does not answer now, and may later.
    """
    about = await discover(caller, spec, task, parameters)
    ask = small_ask(task, parameters)
    if ask is None:
        return about.info
    asks = [ask]
    try:
        post = await about.post(asks)
        for pause in (*_PAUSES_S, None):
            found = await caller.once(
                post, spec.timeout_s, lambda reply, answer: read_rows(answer, about.protocol, task, asks)
            )
            # Silence is not asked again: it takes the whole of timeout_s each time.
            silent = found.reply.status == 0 and found.reply.reached
            if pause is None or silent or found.verdict not in (Verdict.BUSY, Verdict.BROKEN):
                break
            await asyncio.sleep(pause)
    except TokenError as error:
        raise ModelLoadError(str(error)) from None
    except ElementError as error:
        raise ModelLoadError(f"`parameters`: {error}") from None
    except NobodyServes as error:
        raise ModelLoadError(f"`endpoint={spec.endpoint}`: {foreign(caller.token.scrub(str(error)))}") from None
    _explain(found, spec, task, caller.token)
    return about.info


class EndpointAway(RuntimeError):
    """The endpoint does not answer now; nothing needs mending for it to do so later."""


def _explain(found: Reading, spec: EndpointSpec, task: TaskEntry, token: TokenKeeper) -> None:
    """Raises what the answer to a small question means for an operator, if it means anything."""
    where, verdict, reply = f"`endpoint={spec.endpoint}`", found.verdict, found.reply
    said = foreign(found.misfit or found.words)
    if found.misfit.startswith(NOT_JSON):
        said = "a web page, or other text that is not JSON"
    unfit = next((one for one in found.value if isinstance(one, ElementError)), None) if found.value else None
    if unfit is not None:
        said = f"{type(unfit).__name__}: {foreign(str(unfit))}"
    if found.misfit or unfit is not None or (found.in_body and verdict is Verdict.BROKEN):
        raise ModelLoadError(f"{where}: no answer to `task={task.name}`: {said}; check the task and the URL")
    if verdict is Verdict.DENIED:
        raise ModelLoadError(f"{where}: {said}; {token.advice(reply.status)}")
    if verdict is Verdict.WRONG or "certificate" in reply.words:
        advice = {
            404: "check the URL, and `model` where the server runs several",
            405: "the URL is one of a server, but not of inference; check its path",
            402: "the account behind the token has no credit left; see https://huggingface.co/settings/billing",
        }
        way_out = advice.get(reply.status)
        raise ModelLoadError(f"{where}: {said}" + (f"; {way_out}" if way_out else ""))
    if verdict in (Verdict.BUSY, Verdict.BROKEN):
        raise EndpointAway(f"{where}: {said}")
