"""What a message may ask of a task: its ``inputs``, checked before any of them is read, without torch.

Each check returns the inputs in the form in which local tasks and endpoints start from them.

Raises:
  InvalidInput: they are not what the task takes, in every check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.models.errors import InvalidInput, brief
from transforms.models.tasks.media import check_media

#: Texts in one message.
MAX_TEXTS = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """One element as a task sees it: its checked inputs, and its validated parameters over the job's defaults."""

    inputs: Any
    parameters: Mapping[str, Any]


def text(value: Any, what: str = "inputs") -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what}={brief(value)}: must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidInput(f"{what} is an empty string; there is nothing to run the model on")
    return value


def text_or_pair(value: Any) -> Any:
    """A text, or ``{"text", "text_pair"}``."""
    if isinstance(value, dict) and value.keys() == {"text", "text_pair"}:
        return {key: text(value[key], f"inputs.{key}") for key in ("text", "text_pair")}
    if isinstance(value, str):
        return text(value)
    raise InvalidInput(f'inputs={brief(value)}: must be a string, or {{"text": …, "text_pair": …}}')


def text_or_texts(value: Any) -> Any:
    """A text, or a list of up to a thousand."""
    if not isinstance(value, list):
        return text(value)
    if not 1 <= len(value) <= MAX_TEXTS:
        raise InvalidInput(f"inputs={brief(value)}: must be a text, or a list of 1 to {MAX_TEXTS} texts")
    return [text(one, f"inputs[{i}]") for i, one in enumerate(value)]


def question(value: Any) -> dict[str, str]:
    """``{"question", "context"}``."""
    if not isinstance(value, dict) or value.keys() != {"question", "context"}:
        raise InvalidInput(f'inputs={brief(value)}: must be {{"question": …, "context": …}}')
    return {key: text(value[key], f"inputs.{key}") for key in ("question", "context")}


def prompt_or_chat(value: Any) -> Any:
    """A prompt, or a list of ``{"role", "content"}``."""
    return text(value) if isinstance(value, str) else chat(value)


def chat(value: Any) -> list[dict[str, Any]]:
    """A list of ``{"role", "content"}``, whatever their content is."""
    if not isinstance(value, list) or not value:
        raise InvalidInput(f'inputs={brief(value)}: must be a string, or a list of {{"role": …, "content": …}}')
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message.get("content"):
            raise InvalidInput(f'inputs[{i}]={brief(message)}: must be {{"role": …, "content": …}}')
    return value


def media(value: Any) -> bytes | str:
    """One image or recording: raw bytes, base64, or a ``gs://`` URI; nothing is read yet."""
    return check_media(value)


def document(value: Any) -> dict[str, Any]:
    """``{"image", "question"}``."""
    if not isinstance(value, dict) or value.keys() != {"image", "question"}:
        raise InvalidInput(f'inputs={brief(value)}: must be {{"image": …, "question": …}}')
    return {
        "image": check_media(value["image"], "inputs.image"),
        "question": text(value["question"], "inputs.question"),
    }


def picture_and_text(value: Any) -> tuple[Any, list[bytes | str]]:
    """``{"image", "text"}``, or a chat: the text, or the chat with its images as ``{"type": "image"}``; the images."""
    if isinstance(value, dict) and value.keys() == {"image", "text"}:
        return text(value["text"], "inputs.text"), [check_media(value["image"], "inputs.image")]
    if isinstance(value, (dict, str)):
        raise InvalidInput(f'inputs={brief(value)}: must be {{"image": …, "text": …}}, or a chat')
    images: list[bytes | str] = []
    messages = [
        {**message, "content": _content(message["content"], f"inputs[{i}].content", images)}
        for i, message in enumerate(chat(value))
    ]
    return messages, images


def _content(content: Any, what: str, images: list[bytes | str]) -> str | list[dict[str, str]]:
    """A message's content, with its images taken out and added to ``images``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput(f"{what}={brief(content)}: must be a string, or a list of texts and images")
    parts: list[dict[str, str]] = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            parts.append({"type": "text", "text": text(part.get("text"), f"{what}[{i}].text")})
            continue
        if kind == "image_url":
            url = part.get("image_url")
            source = url.get("url") if isinstance(url, dict) else url
        elif kind == "image":
            source = next((part[key] for key in ("image", "url", "base64") if key in part), None)
        else:
            raise InvalidInput(f"{what}[{i}]={brief(part)}: its type must be text, image or image_url")
        images.append(check_media(source, f"{what}[{i}].{kind}"))
        parts.append({"type": "image"})
    return parts
