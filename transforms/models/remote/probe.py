"""A look at an endpoint before a launch: what an operator must mend, in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from transforms.models.errors import ElementError, ModelLoadError, foreign
from transforms.models.inputs import Ask
from transforms.models.remote.caller import Caller
from transforms.models.remote.discover import About, EndpointSpec, discover
from transforms.models.remote.provider import NobodyServes
from transforms.models.remote.reply import Reply, Verdict, judge
from transforms.models.shapes import Misfit
from transforms.models.task_table import TaskEntry
from transforms.models.token import TokenError
from transforms.records import ModelInfo

#: Seconds between the attempts of a look: one that meets a busy moment says nothing yet.
_PAUSES_S = (0.2, 1.0)


async def probe(caller: Caller, spec: EndpointSpec, task: TaskEntry, parameters: Mapping[str, Any]) -> ModelInfo:
    """Asks the endpoint something small; returns which model answers.

    Raises:
      ModelLoadError: one line on what an operator must mend: the token, its scope, the model, the URL, the certificate.
      EndpointAway: it does not answer now, and may later.
    """
    about = await discover(caller, spec, task)
    if task.small is None:
        return about.info
    given = dict(parameters)
    for name in task.needed:
        given.setdefault(name, ["a", "b"])
    if task.name == "text-generation":
        given["max_new_tokens"] = 1
    ask = Ask(task.small, given)
    try:
        post = await about.post([ask])
        for pause in (*_PAUSES_S, None):
            reply = await caller.once(post, spec.timeout_s)
            if pause is None or judge(reply) not in (Verdict.BUSY, Verdict.BROKEN):
                break
            await asyncio.sleep(pause)
    except TokenError as error:
        raise ModelLoadError(str(error)) from None
    except ElementError as error:
        raise ModelLoadError(f"`parameters`: {error}") from None
    except NobodyServes as error:
        raise ModelLoadError(f"`endpoint={spec.endpoint}`: {foreign(caller.token.scrub(str(error)))}") from None
    _explain(reply, about, ask, spec, task, caller.token.at_hand()[1] is not None)
    return about.info


class EndpointAway(RuntimeError):
    """The endpoint does not answer now; nothing needs mending for it to do so later."""


def _explain(reply: Reply, about: About, ask: Ask, spec: EndpointSpec, task: TaskEntry, has_token: bool) -> None:
    """Raises what ``reply`` to a small question means for an operator, if it means anything."""
    where, verdict = f"`endpoint={spec.endpoint}`", judge(reply)
    said = foreign(reply.describe())
    if verdict is Verdict.OK:
        try:
            task.read(about.protocol.read(reply.json(), [ask])[0], ask)
        except (Misfit, ValueError) as error:
            words = foreign(str(error)) if isinstance(error, Misfit) else "a web page, or other text that is not JSON"
            raise ModelLoadError(
                f"{where}: no answer to `task={task.name}`: {words}; check the task and the URL"
            ) from None
    elif verdict is Verdict.DENIED:
        raise ModelLoadError(f"{where}: {said}; {_token_advice(reply.status, has_token)}")
    elif verdict is Verdict.WRONG or "certificate" in reply.words:
        advice = {
            404: "check the URL, and `model` where the server runs several",
            405: "the URL is one of a server, but not of inference; check its path",
            402: "the account behind the token has no credit left; see https://huggingface.co/spec/billing",
        }
        way_out = advice.get(reply.status)
        raise ModelLoadError(f"{where}: {said}" + (f"; {way_out}" if way_out else ""))
    elif verdict in (Verdict.BUSY, Verdict.BROKEN):
        raise EndpointAway(f"{where}: {said}")


def _token_advice(status: int, has_token: bool) -> str:
    if not has_token:
        return "it wants a token; say where to read it, `token`"
    if status == 401:
        return "the token is expired or wrong; put a valid one where `token` points"
    return (
        "the token lacks a permission: for a provider 'Make calls to Inference Providers', else access to the endpoint"
    )
