"""Vertex AI endpoints: predict and rawPredict, as the containers that run behind them take their instances.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/predict
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from transforms.models.errors import brief
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit
from transforms.models.remote import chat_completions
from transforms.models.remote.openai_compatible import OpenAi
from transforms.models.remote.protocol import ROWS, Post, beside, one_each
from transforms.models.remote.reply import Reply
from transforms.models.task_entry import TaskEntry
from transforms.records import ModelInfo

PREFIX = "vertex:"

#: Longest request, in bytes: https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
SHARED_BYTES, DEDICATED_BYTES = 1_500_000, 10_000_000

#: What a request has around its instances, in bytes.
_AROUND = 200

#: As gcloud knows it: another address of the service, such as a test's.
_OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"

_RESOURCE = r"projects/[^/\s]+/locations/[^/\s]+/endpoints/[^/:?#\s]+"
_URL = re.compile(rf"(https?://[^/]+)/v1(?:beta1)?/({_RESOURCE})(?::predict|:rawPredict|/chat/completions)?/?")

#: An endpoint's own domain; no other is believed, whoever names it.
_DEDICATED = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+\.prediction\.vertexai\.goog")

#: Longest name that is believed of a reply.
_NAME_CHARACTERS = 200


class Place(NamedTuple):
    """Where an endpoint is asked: ``https://HOST``, and its resource name; ``dedicated`` if the host is its own."""

    host: str
    name: str
    dedicated: bool = False

    @property
    def url(self) -> str:
        return f"{self.host}/v1/{self.name}"

    @property
    def api(self) -> str:
        """``https://HOST`` of the service that describes it: an endpoint's own domain has predictions alone."""
        return _regional(self.name) if self.dedicated else self.host

    @property
    def is_shared_model(self) -> bool:
        """Whether it is the gate to Model Garden's models as a service, which has OpenAI's routes alone."""
        return self.name.endswith("/endpoints/openapi")

    def at(self, dns: object) -> Place:
        """The same endpoint at its own domain ``dns``, if it is that; an address that somebody chose is kept."""
        location, ident = (re.escape(self.name.split("/")[part]) for part in (3, 5))
        own = rf"{ident}\.{location}-[0-9]+\.prediction\.vertexai\.goog"
        if not self.host.endswith(".googleapis.com") or not isinstance(dns, str) or not re.fullmatch(own, dns):
            return self
        return Place(f"https://{dns}", self.name, True)


def place(endpoint: str) -> Place | None:
    """Where ``endpoint`` is asked, if it is one of Vertex AI: ``vertex:projects/…``, or its URL."""
    if endpoint.startswith(PREFIX):
        name = endpoint.removeprefix(PREFIX)
        if not re.fullmatch(_RESOURCE, name):
            return None
        return Place(_regional(name), name)
    found = _URL.fullmatch(endpoint)
    return Place(found[1], found[2], bool(_DEDICATED.fullmatch(found[1].partition("://")[2]))) if found else None


def _regional(name: str) -> str:
    location = name.split("/")[3]
    there = "aiplatform" if location == "global" else f"{location}-aiplatform"
    return os.environ.get(_OVERRIDE, f"https://{there}.googleapis.com").rstrip("/")


def dedicated_in(words: str) -> str:
    """The domain that a refusal at the shared one points to, if it does."""
    return next((word for word in re.findall(r"[\w.-]*\w", words) if _DEDICATED.fullmatch(word)), "")


#: How containers take an instance: Hugging Face's inference toolkit its inputs, with common parameters; Text Embeddings
#: Inference an object with parameters beside; Text Generation Inference one with them inside; Google's vLLM a prompt.
PLAIN, FLAT, NESTED, PROMPT = "plain", "flat", "nested", "prompt"


def forms(task: TaskEntry) -> tuple[str, ...]:
    """What may run behind an endpoint for ``task``, by how it is asked; a wrong one is refused, and harms nothing."""
    if chat_completions.generates(task):
        return NESTED, PROMPT, PLAIN
    if task.name == "text-ranking":
        return (FLAT,)
    return (PLAIN, FLAT) if task.name in ("feature-extraction", "text-classification") else (PLAIN,)


class Vertex:
    """An endpoint whose container takes instances in one of the ``forms``; chats go to its OpenAI-compatible route."""

    def __init__(self, task: TaskEntry, place: Place, form: str, model: str, truncate: bool) -> None:
        self.task = task
        self.place = place
        self.form = form
        self.truncate = truncate
        # A request lasts as long as its longest generation, and those of some containers come one after the other.
        self.rows = 1 if chat_completions.generates(task) else ROWS
        self.most_bytes = (DEDICATED_BYTES if place.dedicated else SHARED_BYTES) - _AROUND
        self._openai = OpenAi(task, place.url, model, unnamed="") if chat_completions.generates(task) else None

    def _is_chat(self, ask: Ask) -> bool:
        return self._openai is not None and self.form != PLAIN and chat_completions.is_chat(ask)

    def instance(self, ask: Ask) -> Any:
        """``ask`` as one of the instances."""
        inputs: Any = base64.b64encode(ask.inputs).decode() if isinstance(ask.inputs, bytes) else ask.inputs
        given = dict(ask.parameters)
        if self.form == PROMPT:
            given = {**chat_completions.parameters(ask), "raw_response": True}
            return {"prompt": inputs, **given}
        if self.form == NESTED:
            given.setdefault("return_full_text", True)
            return {"inputs": inputs, "parameters": given}
        if self.form == FLAT:
            beside_it = beside(self.task, ask, self.truncate)
            if self.task.name == "text-ranking":
                return {**inputs, **beside_it}
            return {"inputs": list(inputs.values()) if isinstance(inputs, dict) else inputs, **beside_it}
        return inputs

    def size(self, ask: Ask) -> int:
        """Bytes of ``ask`` in a request."""
        return len(orjson.dumps(self.instance(ask))) + 1

    def post(self, asks: Sequence[Ask]) -> Post:
        if self._openai is not None and self._is_chat(asks[0]):
            return self._openai.post(asks)
        payload: dict[str, Any] = {"instances": [self.instance(ask) for ask in asks]}
        if self.form == PLAIN and asks[0].parameters:
            payload["parameters"] = dict(asks[0].parameters)
        return Post.json(f"{self.place.url}:predict", payload)

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        if self._openai is not None and self._is_chat(asks[0]):
            return self._openai.read(answer, asks)
        found = answer.get("predictions") if isinstance(answer, dict) else None
        if found is None:
            raise Misfit(f'expected {{"predictions": [...]}}, got {brief(answer)}')
        return [self._one(one, ask) for one, ask in zip(one_each(found, asks), asks, strict=True)]

    def _one(self, found: Any, ask: Ask) -> Any:
        """A generated text, where a container gives no more than that."""
        if not isinstance(found, str) or not chat_completions.generates(self.task):
            return found
        whole = ask.parameters.get("return_full_text", self.task.name == "text-generation")
        return [{"generated_text": ask.inputs + found if self.form == PROMPT and whole else found}]


class VertexRaw:
    """An endpoint whose container has one of OpenAI's routes for predictions: rawPredict hands it what it takes."""

    #: The routes that can be told apart by their paths.
    ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

    @staticmethod
    def takes(task: TaskEntry, route: str) -> bool:
        """Whether ``route`` is one for ``task``."""
        return (
            (task.name == "feature-extraction") if route.endswith("/embeddings") else chat_completions.generates(task)
        )

    def __init__(self, task: TaskEntry, place: Place, route: str, model: str) -> None:
        self.place = place
        self.chat = route.endswith("/chat/completions")
        self._openai = OpenAi(task, place.url, model, unnamed="")
        self.rows = self._openai.rows
        self.most_bytes = (DEDICATED_BYTES if place.dedicated else SHARED_BYTES) - _AROUND

    def _asked(self, ask: Ask) -> Ask:
        """A prompt is the user's only message where there are chats alone."""
        chat = [{"role": "user", "content": ask.inputs}]
        return replace(ask, inputs=chat) if self.chat and isinstance(ask.inputs, str) else ask

    def size(self, ask: Ask) -> int:
        return len(orjson.dumps(ask.inputs)) + 1

    def post(self, asks: Sequence[Ask]) -> Post:
        return replace(self._openai.post([self._asked(ask) for ask in asks]), url=f"{self.place.url}:rawPredict")

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        return self._openai.read(answer, asks)


def answered_by(reply: Reply, answer: Any, info: ModelInfo, deployed: Mapping[str, tuple[str, str]]) -> ModelInfo:
    """``info``, with the model that gave this very answer: an endpoint's traffic may be split among several."""
    said = answer if isinstance(answer, dict) else {}
    ident = _name(said.get("deployedModelId")) or _name(reply.headers.get("x-vertex-ai-deployed-model-id"))
    if not ident:
        return info
    model, version = deployed.get(ident, ("", ""))
    revision = revision_of(_name(said.get("modelVersionId")) or version, ident)
    name = _name(said.get("model")).partition("@")[0] or model
    kept = info.model if not name or not info.model.startswith("projects/") else name
    return info if (kept, revision) == (info.model, info.revision) else replace(info, model=kept, revision=revision)


def revision_of(version: str, deployed: str) -> str:
    """What stands for a revision: the model's version in the registry, and the id under which it is deployed."""
    return f"{version}/{deployed}" if version else deployed


def _name(value: Any) -> str:
    """``value`` if it can be a name, else none: it goes into attributes and rows of every message."""
    return value if isinstance(value, str) and len(value) <= _NAME_CHARACTERS and value.isprintable() else ""
