"""Inference Providers: a hub model, run by whichever company serves it, through Hugging Face's router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub.errors import HTTPError

# InferenceClient's own methods hide the status, the headers and the batch; its provider helpers, which know each
# company's routes and payloads, do not.
from huggingface_hub.inference._providers import PROVIDERS, get_provider_helper

from transforms.models.errors import ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.remote import chat_completions
from transforms.models.remote.protocol import Post
from transforms.models.task_entry import TaskEntry

#: The helpers route by the look of a token; the real one is added when the request is sent.
_ROUTED = "hf_routed"

PREFIX = "provider:"


class NobodyServes(RuntimeError):
    """The hub names no provider for the model, or does not answer."""


class Provider:
    """A provider by name, or ``auto``. Generation is a chat: a prompt is sent as the user's only message."""

    rows = 1
    most_bytes = None

    def __init__(self, task: TaskEntry, name: str, model: str) -> None:
        if name != "auto" and name not in PROVIDERS:
            raise ModelLoadError(
                f"`endpoint={PREFIX}{name}`: no such provider; there are: auto, {', '.join(PROVIDERS)}"
            )
        self.name = name
        self.model = model
        self.asked = task.name
        self.generates = chat_completions.generates(task)
        self.task = "conversational" if self.generates else task.name
        tasks = dict(PROVIDERS).get(name, {})  # type: ignore[call-overload]
        if name != "auto" and self.task not in tasks:
            known = ", ".join("text-generation" if one == "conversational" else one for one in tasks)
            raise ModelLoadError(f"`task={task.name}`: {PREFIX}{name} has none; it has: {known}")

    def post(self, asks: Sequence[Ask]) -> Post:
        """The request; the first call asks the hub who serves the model, and may take a moment.

        Raises:
          NobodyServes: this model, for this task; or the hub cannot be asked.
        """
        ask = asks[0]
        inputs, given = ask.inputs, dict(ask.parameters)
        if self.generates:
            inputs = inputs if chat_completions.is_chat(ask) else [{"role": "user", "content": inputs}]
            given = chat_completions.parameters(ask)
        failure: NobodyServes | None = None
        try:
            ready = self._helper().prepare_request(
                inputs=inputs, parameters=given, headers={}, model=self.model, api_key=_ROUTED
            )
        except (ValueError, StopIteration, HTTPError, OSError) as error:
            failure = NobodyServes(f"model={self.model}: {' '.join(str(error).split())[:300] or 'no provider'}")
        if failure is not None:
            raise failure  # out here, without its cause: that holds the request to the hub, and with it a token
        headers = {name: value for name, value in ready.headers.items() if name != "authorization"}
        if ready.data is not None:
            return Post(ready.url, bytes(ready.data), headers)
        return Post.json(ready.url, ready.json, headers)

    def read(self, answer: Any, asks: Sequence[Ask]) -> list[Any]:
        if self.generates:
            return [chat_completions.read(answer, asks[0], self.asked)]
        return [self._helper().get_response(answer)]

    def _helper(self) -> Any:
        return get_provider_helper(self.name, task=self.task, model=self.model)  # type: ignore[arg-type]
