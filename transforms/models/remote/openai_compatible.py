"""OpenAI-compatible servers: chats, completions, embeddings, and the ``/rerank`` that others have beside these."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from transforms.models.errors import InvalidParameter, ModelLoadError, brief
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit, are_objects
from transforms.models.remote import chat_completions
from transforms.models.remote.protocol import ROWS, Post, one_each, with_dimensions
from transforms.models.task_entry import TaskEntry


class OpenAi:
    """An OpenAI-compatible server, by its ``…/v1`` URL: chats, completions, embeddings, and the others' ``/rerank``.

    ``unnamed`` is what it is told where no model was named; most have one, and any name means that.
    """

    most_bytes = None

    def __init__(self, task: TaskEntry, url: str, model: str, unnamed: str = "default") -> None:
        if task.name not in ("text-generation", "image-text-to-text", "feature-extraction", "text-ranking"):
            raise ModelLoadError(
                f"`task={task.name}`: an OpenAI-compatible endpoint (its URL ends in /v1) has none; it has"
                " text-generation, image-text-to-text, feature-extraction and text-ranking"
            )
        self.task = task
        self.url = url
        self.model = model or unnamed
        self.rows = ROWS if task.name == "feature-extraction" else 1

    def post(self, asks: Sequence[Ask]) -> Post:
        ask, model = asks[0], {"model": self.model}
        if self.task.name == "feature-extraction":
            unknown = ask.parameters.keys() & {"normalize", "truncate", "prompt_name", "pooling"}
            if unknown:
                raise InvalidParameter(f"parameters.{min(unknown)}: an OpenAI-compatible server has none; leave it out")
            asked = {**_FLOATS, **with_dimensions(ask.parameters)}
            return Post.json(f"{self.url}/embeddings", {**model, "input": [one.inputs for one in asks], **asked})
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
        return one_each([_floats(one["embedding"]) for one in _in_order(data)], asks)


#: Asked for, as some clients' default is base64; a gateway may answer so all the same.
_FLOATS = {"encoding_format": "float"}


def _floats(embedding: Any) -> Any:
    """An embedding in base64, which is float32 in little-endian order, as numbers; anything else as it is.

    https://platform.openai.com/docs/api-reference/embeddings/create#embeddings-create-encoding_format
    """
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").tolist()
    except ValueError:
        raise Misfit(f"expected numbers, or float32 in base64, got {brief(embedding)}") from None


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
