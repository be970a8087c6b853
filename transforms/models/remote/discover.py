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
from transforms.models.remote.reply import Verdict
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenError
from transforms.records import ModelInfo

#: Longest look, in seconds; it is repeated later where it fails.
_LOOK_S = 10.0

#: Most rows that go into one request, whatever the server says that it takes.
_MOST_ROWS = 1024

#: Longest name of a model, a revision or a number format that is believed.
_NAME_CHARACTERS = 200


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
class Said:
    """What an endpoint says of itself; ``rows`` where it is Text Embeddings Inference."""

    model: str = ""
    revision: str = ""
    dtype: str = ""
    rows: int | None = None


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


def pick_server(spec: EndpointSpec, task: TaskEntry, rows: int | None, model: str) -> Server:
    """The kind of server, by its name or URL, and by the ``rows`` that Text Embeddings Inference says it takes.

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
    if rows is not None and task.name in TextEmbeddings.tasks:
        return TextEmbeddings(task, base, rows, spec.truncate)
    return InferenceApi(task, base, model)


async def discover(caller: Caller, spec: EndpointSpec, task: TaskEntry) -> About:
    """What the endpoint says of itself; tries once, and is not ``known`` where it did not answer."""
    said, known = Said(), True
    post = _question(spec)
    if post is not None:
        try:
            found = await caller.once(post, min(_LOOK_S, spec.timeout_s), lambda reply, answer: _described(answer))
            # Any other answer than these, a page among them, is that of a server which has no such route.
            away = found.verdict in (Verdict.BUSY, Verdict.BROKEN) and not found.misfit
            known = not away and found.reply.status != 401
            said = found.value if isinstance(found.value, Said) and found.reply.status == 200 else said
        except TokenError:
            known = False
    model = spec.model or said.model
    info = ModelInfo(task.name, model or spec.endpoint, said.revision, "remote", said.dtype)
    return About(pick_server(spec, task, said.rows, model), info, known)


def _question(spec: EndpointSpec) -> Post | None:
    """The request that tells which model runs there; None for a provider, whose model was named."""
    if spec.endpoint.startswith(PREFIX):
        return None
    base, openai = locate(spec.endpoint)
    return Post(base + ("/models" if openai else "/info"), None, method="GET")


def _described(answer: Any) -> Said:
    """``/info`` of Hugging Face's servers, or the first of an OpenAI-compatible server's models."""
    if not isinstance(answer, dict):
        return Said()
    models = answer.get("data")
    if isinstance(models, list):
        ids = [_name(one.get("id")) for one in models if isinstance(one, dict)]
        return Said(next((one for one in ids if one), ""))
    rows = None
    if "max_client_batch_size" in answer and isinstance(answer.get("model_type"), dict):
        most = answer["max_client_batch_size"]
        rows = min(most, _MOST_ROWS) if type(most) is int and most > 0 else ROWS
    dtype = _name(answer.get("model_dtype")).removeprefix("torch.")
    return Said(_name(answer.get("model_id")), _name(answer.get("model_sha")), dtype, rows)


def _name(value: Any) -> str:
    """``value`` if it can be a name, else none: it goes into attributes and rows of every message."""
    return value if isinstance(value, str) and len(value) <= _NAME_CHARACTERS and value.isprintable() else ""
