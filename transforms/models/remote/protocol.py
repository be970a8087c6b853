"""How a server is asked, one small class a kind: from rows to an HTTP request, and from its answer back to rows."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from transforms.models.errors import InvalidParameter, ModelLoadError, brief
from transforms.models.inputs import Ask
from transforms.models.magic import content_type
from transforms.models.misfits import Misfit, are_objects
from transforms.models.remote import chat_completions
from transforms.models.task_entry import TaskEntry
from transforms.models.task_parameters import DIMENSIONS, dimensions

#: Rows that go into one request where the server takes several and names no limit of its own.
ROWS = 32


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request, still without a token."""

    url: str
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"

    @classmethod
    def json(cls, url: str, payload: Any, headers: Mapping[str, str] | None = None) -> Post:
        return cls(url, orjson.dumps(payload), {**(headers or {}), "content-type": "application/json"})


class InferenceApi:
    """A server that takes ``{"inputs", "parameters"}``, one input a request.

    Inference Endpoints with the default container or a custom handler, and Text Generation Inference. Chats go to the
    route that such servers have for them.
    """

    rows = 1

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
        if chat_completions.is_chat(ask):
            payload = {"model": self.model or "default", "messages": ask.inputs, **chat_completions.parameters(ask)}
            return Post.json(f"{self.url}/v1/chat/completions", payload)
        given = dict(ask.parameters)
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


class TextEmbeddings:
    """Text Embeddings Inference: several rows a request where its route takes them, parameters beside them."""

    tasks = ("feature-extraction", "text-classification", "sentence-similarity", "text-ranking")

    def __init__(self, task: TaskEntry, url: str, rows: int, truncate: bool) -> None:
        self.task = task
        self.url = url
        self.rows = rows if task.name in ("feature-extraction", "text-classification") else 1
        self.truncate = truncate

    def post(self, asks: Sequence[Ask]) -> Post:
        given = {"truncate": self.truncate, **_with_dimensions(asks[0].parameters)}
        if self.task.name == "text-ranking":
            for name in ("top_k", "return_text"):  # of all scores, which come back, both are made here
                given.pop(name, None)
            return Post.json(f"{self.url}/rerank", {**asks[0].inputs, **given})
        if self.task.name == "sentence-similarity":
            if "dimensions" in given:
                raise InvalidParameter("parameters.dimensions: this server compares whole embeddings; leave it out")
            return Post.json(f"{self.url}/similarity", {"inputs": asks[0].inputs, "parameters": given})
        if self.task.name == "feature-extraction":
            if "pooling" in given:
                raise InvalidParameter("parameters.pooling: this server pools as it was started; leave it out")
            return Post.json(f"{self.url}/embed", {"inputs": [ask.inputs for ask in asks], **given})
        function = given.pop("function_to_apply", None)
        given.pop("top_k", None)
        if function not in (None, "none"):
            raise InvalidParameter(
                f"parameters.function_to_apply={brief(function)}: this server takes none, or its own"
            )
        pairs = [list(ask.inputs.values()) if isinstance(ask.inputs, dict) else [ask.inputs] for ask in asks]
        return Post.json(f"{self.url}/predict", {"inputs": pairs, **given, "raw_scores": function == "none"})

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        return one_each(answer, asks) if self.task.name in ("feature-extraction", "text-classification") else [answer]


class OpenAi:
    """An OpenAI-compatible server, by its ``…/v1`` URL: chats, completions, embeddings, and the others' ``/rerank``."""

    def __init__(self, task: TaskEntry, url: str, model: str) -> None:
        if task.name not in ("text-generation", "image-text-to-text", "feature-extraction", "text-ranking"):
            raise ModelLoadError(
                f"`task={task.name}`: an OpenAI-compatible endpoint (its URL ends in /v1) has none; it has"
                " text-generation, image-text-to-text, feature-extraction and text-ranking"
            )
        self.task = task
        self.url = url
        self.model = model
        self.rows = ROWS if task.name == "feature-extraction" else 1

    def post(self, asks: Sequence[Ask]) -> Post:
        ask, model = asks[0], {"model": self.model or "default"}
        if self.task.name == "feature-extraction":
            unknown = ask.parameters.keys() & {"normalize", "truncate", "prompt_name", "pooling"}
            if unknown:
                raise InvalidParameter(f"parameters.{min(unknown)}: an OpenAI-compatible server has none; leave it out")
            asked = _with_dimensions(ask.parameters)
            return Post.json(f"{self.url}/embeddings", {**model, "input": [ask.inputs for ask in asks], **asked})
        if self.task.name == "text-ranking":
            unknown = ask.parameters.keys() & {"raw_scores", "truncate"}
            if unknown:
                raise InvalidParameter(f"parameters.{min(unknown)}: an OpenAI-compatible server has none; leave it out")
            pair = {"query": ask.inputs["query"], "documents": ask.inputs["texts"]}
            return Post.json(f"{self.url}/rerank", {**model, **pair})
        if chat_completions.is_chat(ask):
            return Post.json(
                f"{self.url}/chat/completions", {**model, "messages": ask.inputs, **chat_completions.parameters(ask)}
            )
        return Post.json(f"{self.url}/completions", {**model, "prompt": ask.inputs, **chat_completions.parameters(ask)})

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        if self.task.name == "text-ranking":
            results = answer.get("results") if isinstance(answer, dict) else None
            if not are_objects(results, "index", "relevance_score"):
                raise Misfit(f'expected {{"results": [{{"index": …, "relevance_score": …}}]}}, got {brief(answer)}')
            return [[{"index": one["index"], "score": one["relevance_score"]} for one in answer["results"]]]
        if self.task.name != "feature-extraction":
            return [chat_completions.read(answer, asks[0], self.task.name)]
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not all(isinstance(one, dict) and "embedding" in one for one in data):
            raise Misfit(f'expected {{"data": [{{"embedding": …}}]}}, got {brief(answer)}')
        return one_each([one["embedding"] for one in _in_order(data)], asks)


def _with_dimensions(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, with an embedding's length under the one name that servers have for it."""
    asked = dimensions(given)
    others = {name: value for name, value in given.items() if name not in DIMENSIONS}
    return others if asked is None else {**others, "dimensions": asked}


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``data`` by its indices; without any it is in the order of the inputs.

    Raises:
      Misfit: it has some of them only, one twice, or others than these: whose row is whose cannot be told.
    """
    indices: list[Any] = [one.get("index") for one in data]
    if not any("index" in one for one in data):
        return data
    if not all(type(index) is int for index in indices) or sorted(indices) != list(range(len(data))):
        raise Misfit(f"expected each index once, got {brief(indices)}")
    return [data[place] for place in sorted(range(len(data)), key=indices.__getitem__)]


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
