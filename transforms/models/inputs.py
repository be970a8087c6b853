"""What a message may ask of a task: its ``inputs``, checked before any of them is read, without torch.

Each check returns the inputs in the form in which local tasks and endpoints start from them.

Raises:
  InvalidInput: they are not what the task takes, in every check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.models.chats import check_chat, check_links
from transforms.models.errors import InvalidInput, brief
from transforms.models.parameters import is_written
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
    if not is_written(value):
        raise InvalidInput(f"{what} holds half a surrogate pair, which is no character")
    return value


def text_or_pair(value: Any) -> Any:
    """A text, or a text and its pair.

    Endpoints and pipelines differ in the forms that they take; those that mean the same to all of them are taken here:
    a text, ``{"text"}`` or ``[text]`` for one, ``{"text", "text_pair"}`` or ``[[text, pair]]`` for two.
    """
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list) and len(value) == 1:
        only = value[0]
        if isinstance(only, list) and len(only) == 2:
            return {"text": text(only[0], "inputs[0][0]"), "text_pair": text(only[1], "inputs[0][1]")}
        return text(only[0] if isinstance(only, list) and len(only) == 1 else only, "inputs[0]")
    if isinstance(value, dict) and "text" in value and value.keys() <= {"text", "text_pair"}:
        if value.get("text_pair") is None:
            return text(value["text"], "inputs.text")
        return {key: text(value[key], f"inputs.{key}") for key in ("text", "text_pair")}
    raise InvalidInput(f'inputs={brief(value)}: must be a string, {{"text": …, "text_pair": …}} or [["text", "pair"]]')


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


def sentences(value: Any) -> dict[str, Any]:
    """``{"source_sentence", "sentences"}``."""
    return _against(value, "source_sentence", "sentences")


def query(value: Any) -> dict[str, Any]:
    """``{"query", "texts"}``."""
    return _against(value, "query", "texts")


def _against(value: Any, one: str, many: str) -> dict[str, Any]:
    """A text, and the list of those that it is held against."""
    if not isinstance(value, dict) or value.keys() != {one, many}:
        raise InvalidInput(f'inputs={brief(value)}: must be {{"{one}": …, "{many}": […]}}')
    found = value[many]
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_TEXTS:
        raise InvalidInput(f"inputs.{many}={brief(found)}: must be a list of 1 to {MAX_TEXTS} texts")
    own = text(value[one], f"inputs.{one}")
    return {one: own, many: [text(each, f"inputs.{many}[{i}]") for i, each in enumerate(found)]}


def prompt_or_chat(value: Any) -> Any:
    """A prompt, or a list of ``{"role", "content"}``; what is no text in it is a ``data:`` URI or base64."""
    return text(value) if isinstance(value, str) else check_links(check_chat(value))


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
        for i, message in enumerate(check_chat(value))
    ]
    return messages, images


def _content(content: Any, what: str, images: list[bytes | str]) -> Any:
    """A message's content, with its images taken out and added to ``images``."""
    if not isinstance(content, list):
        return content
    parts: list[dict[str, str]] = []
    for i, part in enumerate(content):
        kind = part["type"]
        if kind == "text":
            parts.append({"type": "text", "text": part["text"]})
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
