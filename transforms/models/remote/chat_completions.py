"""Text generation over chat and completion routes, as OpenAI-compatible servers have them."""

from __future__ import annotations

from typing import Any

from transforms.models.chats import continued, is_text
from transforms.models.errors import InvalidParameter, brief
from transforms.models.inputs import Ask
from transforms.models.shapes import Misfit

_NAMES = {"max_new_tokens": "max_tokens", "num_return_sequences": "n"}
_NONE = ("typical_p", "num_beams", "truncate")


def is_chat(ask: Ask) -> bool:
    """Whether the inputs are messages with roles."""
    return isinstance(ask.inputs, list) and bool(ask.inputs) and isinstance(ask.inputs[0], dict)


def parameters(ask: Ask) -> dict[str, Any]:
    """The message's parameters under the names that these routes have for them.

    Raises:
      InvalidParameter: there is none for one of them.
    """
    given = dict(ask.parameters)
    given.pop("return_full_text", None)
    for name in _NONE:
        if name in given:
            raise InvalidParameter(f"parameters.{name}: chat and completion endpoints have none; leave it out")
    if given.pop("do_sample", None) is False:
        given.setdefault("temperature", 0)
    return {_NAMES.get(name, name): value for name, value in given.items()}


def read(answer: Any, ask: Ask) -> list[dict[str, Any]]:
    """``[{"generated_text"}]`` out of a completion; it holds the prompt or the chat too where local weights' does.

    Raises:
      Misfit: it is none.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Misfit(f'expected {{"choices": [...]}}, got {brief(answer)}')
    return [{"generated_text": _text(choice, ask)} for choice in choices]


def _text(choice: Any, ask: Ask) -> Any:
    found = choice if isinstance(choice, dict) else {}
    text = found.get("text")
    if isinstance(found.get("message"), dict):
        text = found["message"].get("content") or ""  # a call of a tool has no text
    if not isinstance(text, str):
        raise Misfit(f"expected a choice with a text, got {brief(choice)}")
    if not ask.parameters.get("return_full_text", not _has_pictures(ask)):
        return text
    if isinstance(ask.inputs, str):
        return ask.inputs + text
    *before, last = ask.inputs
    if last["role"] == "assistant":  # the beginning of the model's own answer
        return [*before, {**last, "content": continued(last["content"], text)}]
    return [*ask.inputs, {"role": "assistant", "content": text}]


def _has_pictures(ask: Ask) -> bool:
    """Whether it is image-text-to-text, which answers with the new text only."""
    contents = [message["content"] for message in ask.inputs] if is_chat(ask) else []
    return any(not is_text(part) for content in contents if isinstance(content, list) for part in content)
