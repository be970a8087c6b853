"""Which kind of server an endpoint is, and which model and revision it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transforms.models.errors import ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.remote.caller import Caller
from transforms.models.remote.chat_completions import WRITES
from transforms.models.remote.openai_compatible import OpenAi
from transforms.models.remote.protocol import ROWS, InferenceApi, Post, Server, TextEmbeddings, locate
from transforms.models.remote.provider import PREFIX, Provider
from transforms.models.remote.reply import Reply, Verdict
from transforms.models.remote.small import small_ask
from transforms.models.remote.vertex import Place, Vertex, VertexRaw, answered_by, forms, place
from transforms.models.remote.vertex_look import Look, look
from transforms.models.task_entry import TaskEntry
from transforms.models.token import TokenError
from transforms.records import ModelInfo

#: Longest look, in seconds; it is repeated later where it fails.
_LOOK_S = 10.0

#: Most rows that go into one request, whatever the server says that it takes.
_MOST_ROWS = 1024

#: How many tokens a generation is taken to give that was told no bound.
_NEW_TOKENS = 256

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
    requests_per_s: float | None = None
    tokens_per_min: float | None = None
    hedge_s: float | None = None
    cache_mib: int | None = None


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
    deployed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    async def post(self, asks: Sequence[Ask]) -> Post:
        """The request for ``asks``; the hub may have to be asked for a provider's, which must not block the loop."""
        if isinstance(self.protocol, Provider):
            post = await asyncio.to_thread(self.protocol.post, asks)
        else:
            post = self.protocol.post(asks)
        if self.info.task not in WRITES:
            return post
        return replace(post, generates=sum(ask.parameters.get("max_new_tokens", _NEW_TOKENS) for ask in asks))

    def who(self, reply: Reply, answer: Any) -> ModelInfo:
        """The model that gave ``answer``."""
        if isinstance(self.protocol, (Vertex, VertexRaw)):
            return answered_by(reply, answer, self.info, self.deployed)
        return self.info


def pick_server(spec: EndpointSpec, task: TaskEntry, rows: int | None, model: str) -> Server:
    """The kind of server, by its name or URL, and by the ``rows`` that Text Embeddings Inference says it takes.

    Raises:
      ModelLoadError: the URL cannot be one, or that kind has no such task.
    """
    if spec.endpoint.startswith(PREFIX):
        if not spec.model:
            raise ModelLoadError(f"`endpoint={spec.endpoint}` needs `model`, the hub id that it shall run")
        return Provider(task, spec.endpoint.removeprefix(PREFIX), spec.model)
    there = place(spec.endpoint)
    if there and there.is_shared_model:
        if not spec.model:
            raise ModelLoadError(f"`endpoint={spec.endpoint}` needs `model`, the publisher's name that it shall run")
        return OpenAi(task, there.url, spec.model)
    if there:
        return Vertex(task, there, forms(task)[0], spec.model or "", spec.truncate)
    base, openai = locate(spec.endpoint)
    if openai:
        return OpenAi(task, base, model)
    if rows is not None and task.name in TextEmbeddings.tasks:
        return TextEmbeddings(task, base, rows, spec.truncate)
    return InferenceApi(task, base, model)


async def discover(
    caller: Caller, spec: EndpointSpec, task: TaskEntry, parameters: Mapping[str, Any] | None = None
) -> About:
    """What the endpoint says of itself; tries once, and is not ``known`` where it did not answer."""
    there = place(spec.endpoint)
    if there and not there.is_shared_model:
        return await _discover_vertex(caller, spec, task, there, parameters or {})
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


async def _discover_vertex(
    caller: Caller, spec: EndpointSpec, task: TaskEntry, there: Place, parameters: Mapping[str, Any]
) -> About:
    small = small_ask(task, parameters)
    by = Look(caller, task, small, spec.model or "", spec.truncate, min(_LOOK_S, spec.timeout_s))
    found = await look(by, there)
    info = ModelInfo(task.name, spec.model or found.model or there.name, found.revision, "remote", "")
    return About(found.server, info, found.known, found.deployed)


def _question(spec: EndpointSpec) -> Post | None:
    """The request that tells which model runs there; None where it was named."""
    if spec.endpoint.startswith(PREFIX) or place(spec.endpoint):
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
