"""Which kind of server an endpoint is, and which model and revision it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transforms.models.errors import ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.remote.caller import Caller
from transforms.models.remote.protocol import ROWS, InferenceApi, OpenAi, Post, TextEmbeddings, locate
from transforms.models.remote.provider import PREFIX, Provider
from transforms.models.remote.reply import Reply, Verdict, judge
from transforms.models.task_table import TaskEntry
from transforms.models.token import TokenError
from transforms.records import ModelInfo

#: Longest look, in seconds; it is repeated later where it fails.
_LOOK_S = 10.0


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """Which endpoint is asked for which task, and how hard. Hashable, and holds no secret.

    ``parameters`` are the defaults of every message's, as :func:`transforms.models.spec.freeze` writes them.
    """

    endpoint: str
    task: str
    model: str | None = None
    parameters: str = "{}"
    truncate: bool = True
    concurrency: int = 16
    timeout_s: float = 30.0
    max_wait_s: float = 600.0


class Server(Protocol):
    """A kind of server: see :mod:`transforms.models.remote.protocol`."""

    rows: int

    def post(self, asks: Sequence[Ask]) -> Post: ...

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class About:
    """An endpoint as far as it is ``known``: how to ask it, and what its predictions carry."""

    protocol: Server
    info: ModelInfo
    known: bool

    async def post(self, asks: Sequence[Ask]) -> Post:
        """The request for ``asks``; the hub may have to be asked for a provider's, which must not block the loop."""
        if isinstance(self.protocol, Provider):
            return await asyncio.to_thread(self.protocol.post, asks)
        return self.protocol.post(asks)


def pick_server(spec: EndpointSpec, task: TaskEntry, info: dict[str, Any], model: str) -> Server:
    """The kind of server, by its name or URL, and by what it says of itself.

    Raises:
      ModelLoadError: the URL cannot be one, or that kind has no such task.
    """
    if spec.endpoint.startswith(PREFIX):
        if not spec.model:
            raise ModelLoadError(f"`endpoint={spec.endpoint}` needs `model`, the hub id that it shall run")
        return Provider(task, spec.endpoint.removeprefix(PREFIX), spec.model)
    base, openai = locate(spec.endpoint)
    if openai:
        return OpenAi(task, base, model)
    if "max_client_batch_size" in info and isinstance(info.get("model_type"), dict):
        rows = info["max_client_batch_size"]
        if task.name in ("feature-extraction", "text-classification"):
            return TextEmbeddings(task, base, rows if isinstance(rows, int) and rows > 0 else ROWS, spec.truncate)
    return InferenceApi(task, base, model)


async def discover(caller: Caller, spec: EndpointSpec, task: TaskEntry) -> About:
    """What the endpoint says of itself; tries once, and is not ``known`` where it did not answer."""
    found, known = {}, True
    post = _question(spec)
    if post is not None:
        try:
            reply = await caller.once(post, min(_LOOK_S, spec.timeout_s))
            # Any other answer than these is that of a server which has no such route.
            known = judge(reply) not in (Verdict.BUSY, Verdict.BROKEN) and reply.status != 401
            found = _described(reply, spec)
        except TokenError:
            known = False
    model = spec.model or str(found.get("model_id") or "")
    info = ModelInfo(
        task.name,
        model or spec.endpoint,
        str(found.get("model_sha") or ""),
        "remote",
        str(found.get("model_dtype") or "").removeprefix("torch."),
    )
    return About(pick_server(spec, task, found, model), info, known)


def _question(spec: EndpointSpec) -> Post | None:
    """The request that tells which model runs there; None for a provider, whose model was named."""
    if spec.endpoint.startswith(PREFIX):
        return None
    base, openai = locate(spec.endpoint)
    return Post(base + ("/models" if openai else "/info"), None, method="GET")


def _described(reply: Reply, spec: EndpointSpec) -> dict[str, Any]:
    """``/info`` of Hugging Face's servers, or the first of an OpenAI-compatible server's models."""
    try:
        found = reply.json() if reply.status == 200 else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    models = found.get("data")
    if isinstance(models, list):
        ids = [one.get("id") for one in models if isinstance(one, dict) and isinstance(one.get("id"), str)]
        return {"model_id": ids[0]} if ids else {}
    return found
