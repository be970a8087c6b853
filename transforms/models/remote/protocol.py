"""How a server is asked, one small class a kind: from rows to an HTTP request, and from its answer back to rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from transforms.models import structured
from transforms.models.errors import InvalidParameter, ModelLoadError, brief
from transforms.models.inputs import Ask
from transforms.models.magic import content_type
from transforms.models.misfits import Misfit
from transforms.models.remote import chat_completions
from transforms.models.task_entry import TaskEntry
from transforms.models.task_parameters import DIMENSIONS, dimensions

#: Rows that go into one request where the server takes several and names no limit of its own.
ROWS = 32


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request, still without a token. ``generates`` is how many tokens may come of it, at the most."""

    url: str
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    generates: int = 0

    @classmethod
    def json(cls, url: str, payload: Any, headers: Mapping[str, str] | None = None) -> Post:
        return cls(url, orjson.dumps(payload), {**(headers or {}), "content-type": "application/json"})


class Server(Protocol):
    """A kind of server.

    ``rows`` inputs go into one request, and no more than ``most_bytes``; where that is a bound, it has a ``size(ask)``.
    """

    rows: int

    @property
    def most_bytes(self) -> int | None: ...

    def post(self, asks: Sequence[Ask]) -> Post: ...

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]: ...


class InferenceApi:
    """A server that takes ``{"inputs", "parameters"}``, one input a request.

    Inference Endpoints with the default container or a custom handler, and Text Generation Inference. Chats go to the
    route that such servers have for them.
    """

    rows = 1
    most_bytes = None

    def __init__(self, task: TaskEntry, url: str, model: str) -> None:
        self.task = task
        self.url = url
        self.model = model

    def post(self, asks: Sequence[Ask]) -> Post:
        """The request for ``asks``.

        Raises:
          ElementError: a parameter has no meaning on this kind of server.
        """
        ask = asks[0]
        structure = structured.asked(ask.parameters)
        if chat_completions.is_chat(ask):
            payload = {"model": self.model or "default", "messages": ask.inputs, **chat_completions.parameters(ask)}
            if structure is not None:  # in the words of Text Generation Inference
                payload["response_format"] = {"type": "json_object", "value": structure.schema}
            return Post.json(f"{self.url}/v1/chat/completions", payload)
        given = dict(ask.parameters)
        if structure is not None:
            given.pop("response_format", None)
            given["grammar"] = {"type": "json", "value": structure.schema}
        if self.task.is_file and not given:
            return Post(self.url, ask.inputs, {"content-type": content_type(ask.inputs), "accept": "application/json"})
        if self.task.name == "text-generation":
            # Servers differ in what they do when it is left out.
            given.setdefault("return_full_text", True)
        inputs = base64.b64encode(ask.inputs).decode() if self.task.is_file else ask.inputs
        payload = {"inputs": inputs, **({"parameters": given} if given else {})}
        if self.task.name == "feature-extraction":
            # Its specification has parameters beside the inputs; the default container reads them from "parameters".
            payload = {**given, **payload}
        return Post.json(self.url, payload)

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        """What ``answer`` says for each of ``asks``, not yet in the task's shape.

        Raises:
          Misfit: it is not an answer to them.
        """
        chat = chat_completions.is_chat(asks[0])
        return [chat_completions.read(answer, asks[0], self.task.name)] if chat else [answer]


def beside(task: TaskEntry, ask: Ask, truncate: bool) -> dict[str, Any]:
    """The parameters that Text Embeddings Inference takes beside its inputs.

    Raises:
      InvalidParameter: it has none for one of them.
    """
    given = {"truncate": truncate, **with_dimensions(ask.parameters)}
    if task.name == "text-ranking":
        for name in ("top_k", "return_text"):  # of all scores, which come back, both are made here
            given.pop(name, None)
        return given
    if task.name == "sentence-similarity":
        if "dimensions" in given:
            raise InvalidParameter("parameters.dimensions: this server compares whole embeddings; leave it out")
        return given
    if task.name == "feature-extraction":
        if "pooling" in given:
            raise InvalidParameter("parameters.pooling: this server pools as it was started; leave it out")
        return given
    function = given.pop("function_to_apply", None)
    given.pop("top_k", None)
    if function not in (None, "none"):
        raise InvalidParameter(f"parameters.function_to_apply={brief(function)}: this server takes none, or its own")
    return {**given, "raw_scores": function == "none"}


class TextEmbeddings:
    """Text Embeddings Inference: several rows a request where its route takes them, parameters beside them."""

    tasks = ("feature-extraction", "text-classification", "sentence-similarity", "text-ranking")

    most_bytes = None

    def __init__(self, task: TaskEntry, url: str, rows: int, truncate: bool) -> None:
        self.task = task
        self.url = url
        self.rows = rows if task.name in ("feature-extraction", "text-classification") else 1
        self.truncate = truncate

    def post(self, asks: Sequence[Ask]) -> Post:
        given = beside(self.task, asks[0], self.truncate)
        if self.task.name == "text-ranking":
            return Post.json(f"{self.url}/rerank", {**asks[0].inputs, **given})
        if self.task.name == "sentence-similarity":
            return Post.json(f"{self.url}/similarity", {"inputs": asks[0].inputs, "parameters": given})
        if self.task.name == "feature-extraction":
            return Post.json(f"{self.url}/embed", {"inputs": [ask.inputs for ask in asks], **given})
        pairs = [list(ask.inputs.values()) if isinstance(ask.inputs, dict) else [ask.inputs] for ask in asks]
        return Post.json(f"{self.url}/predict", {"inputs": pairs, **given})

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        return one_each(answer, asks) if self.task.name in ("feature-extraction", "text-classification") else [answer]


def with_dimensions(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, with an embedding's length under the one name that servers have for it."""
    asked = dimensions(given)
    others = {name: value for name, value in given.items() if name not in DIMENSIONS}
    return others if asked is None else {**others, "dimensions": asked}


def one_each(answer: Any, asks: Sequence[Ask]) -> list[Any]:
    """``answer``, if it is a list of as many as ``asks``."""
    if not isinstance(answer, list) or len(answer) != len(asks):
        count = f"{len(answer)} answers" if isinstance(answer, list) else brief(answer)
        raise Misfit(f"{len(asks)} inputs were sent, and {count} came back")
    return answer


#: Routes that a pasted URL may end with; they are added again where they are needed.
_OPENAI = ("/chat/completions", "/completions", "/embeddings")
_PLAIN = ("/embed", "/predict", "/rerank", "/similarity", "/generate", "/info", "/health")


def locate(url: str) -> tuple[str, bool]:
    """``url`` without its last route, and whether it is one of an OpenAI-compatible API.

    Raises:
      ModelLoadError: it holds a password or a query, which would end in logs and in the job's description.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ModelLoadError(
            "`endpoint`: the URL holds a user, a password or a query; say where a token is read by `token`"
        )
    path = parts.path.rstrip("/")
    route = next((one for one in (*_OPENAI, *_PLAIN) if path.endswith(one)), "")
    path = path.removesuffix(route)
    return f"{parts.scheme}://{parts.netloc}{path}", route in _OPENAI or path.endswith("/v1")
