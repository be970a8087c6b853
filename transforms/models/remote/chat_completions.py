"""Text generation over chat and completion routes, as OpenAI-compatible servers have them."""

from __future__ import annotations

from typing import Any

from transforms.models import structured
from transforms.models.chats import continued
from transforms.models.errors import InvalidParameter, brief
from transforms.models.inputs import Ask
from transforms.models.misfits import Misfit
from transforms.models.task_entry import TaskEntry

_NAMES = {"max_new_tokens": "max_tokens", "num_return_sequences": "n"}
_NONE = ("typical_p", "num_beams", "truncate")

#: Types of content parts that are the answer's text, and those that may stand in its place.
_TEXT_PARTS = ("text", "output_text")
_OTHER_PARTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "refusal")

#: What a message may have in place of a content: a call of a tool, a refusal, or thoughts that took all the tokens.
_IN_PLACE = ("tool_calls", "function_call", "refusal", "reasoning_content", "reasoning")

#: Why a choice may have ended without a text: its tokens went into thoughts that are not shown, or it was held back.
_WITHOUT_TEXT = ("length", "tool_calls", "function_call", "content_filter")

#: How servers say that they broke off in the middle of it: what there is of a text is no answer.
_BROKEN_OFF = ("error", "abort", "aborted", "cancelled", "canceled", "timeout", "failed")

#: The tasks whose answer is text that the model writes.
WRITES = ("text-generation", "image-text-to-text")


def generates(task: TaskEntry) -> bool:
    """Whether ``task`` is one of writing text."""
    return task.name in WRITES


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
    structure = structured.asked(given)
    if structure is not None:
        given.pop("grammar", None)
        given["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": structure.schema, "strict": True},
        }
    for name in _NONE:
        if name in given:
            raise InvalidParameter(f"parameters.{name}: chat and completion endpoints have none; leave it out")
    if given.pop("do_sample", None) is False:
        given.setdefault("temperature", 0)
    # Not every server waits with its answer where nothing is said.
    return {"stream": False, **{_NAMES.get(name, name): value for name, value in given.items()}}


def read(answer: Any, ask: Ask, task: str) -> list[dict[str, Any]]:
    """``[{"generated_text"}]`` out of a completion; it holds the prompt or the chat too where local weights' does.

    Raises:
      Misfit: it is none.
      InvalidAnswer: it does not fit ``response_format``.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Misfit(f'expected {{"choices": [...]}}, got {brief(answer)}')
    # image-text-to-text answers with the new text only.
    whole = ask.parameters.get("return_full_text", task == "text-generation")
    asked = ask.parameters.get("num_return_sequences", 1)
    if len(choices) != asked:
        raise Misfit(f"expected {asked} choices, as asked, got {len(choices)}")
    texts = [_text(choice) for choice in choices]
    structure = structured.asked(ask.parameters)
    return [
        {
            "generated_text": _in_full(text, ask) if whole else text,
            **({} if structure is None else {"parsed": structure.read(text)}),
        }
        for text in texts
    ]


def _text(choice: Any) -> str:
    """The text of a choice, whether it is one text or parts."""
    found = choice if isinstance(choice, dict) else {}
    if found.get("error") or found.get("finish_reason") in _BROKEN_OFF:
        raise Misfit(f"expected a whole text, and it was broken off: {brief(choice)}")
    message = found.get("message")
    text = message.get("content") if isinstance(message, dict) else found.get("text")
    if isinstance(text, list):
        text = _joined(text)
    if text is None and isinstance(message, dict):
        why = found.get("finish_reason") in _WITHOUT_TEXT or any(message.get(key) for key in _IN_PLACE)
        text = "" if why else None
    if not isinstance(text, str):
        raise Misfit(f"expected a choice with a text, got {brief(choice)}")
    return text


def _joined(parts: list[Any]) -> str | None:
    """The text in a content's ``parts``, empty where all are thoughts; None where there is none."""
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    texts = [part.get("text") for part, kind in zip(parts, kinds, strict=True) if kind in _TEXT_PARTS]
    if not texts and not (kinds and all(kind in _OTHER_PARTS for kind in kinds)):
        return None
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _in_full(text: str, ask: Ask) -> Any:
    if isinstance(ask.inputs, str):
        return ask.inputs + text
    *before, last = ask.inputs
    if last["role"] == "assistant":  # the beginning of the model's own answer
        return [*before, {**last, "content": continued(last["content"], text)}]
    return [*ask.inputs, {"role": "assistant", "content": text}]
