"""What a message may ask of a remote task: its inputs, checked without torch or transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.models.errors import InvalidInput, brief

#: Texts in one message, as with local weights.
MAX_TEXTS = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """One row of a request: inputs as the task's ``check`` returns them, and parameters over the job's defaults."""

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


def question(value: Any) -> Any:
    """``{"question", "context"}``."""
    if not isinstance(value, dict) or value.keys() != {"question", "context"}:
        raise InvalidInput(f'inputs={brief(value)}: must be {{"question": …, "context": …}}')
    return {key: text(value[key], f"inputs.{key}") for key in ("question", "context")}


def prompt_or_chat(value: Any) -> Any:
    """A prompt, or a list of ``{"role", "content"}``."""
    if isinstance(value, str):
        return text(value)
    if not isinstance(value, list) or not value:
        raise InvalidInput(f'inputs={brief(value)}: must be a string, or a list of {{"role": …, "content": …}}')
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message.get("content"):
            raise InvalidInput(f'inputs[{i}]={brief(message)}: must be {{"role": …, "content": …}}')
    return value


def media(value: Any) -> bytes:
    """The bytes of an image or a recording: raw, base64, or read from a ``gs://`` URI."""
    # One reader, with its limits, for local and remote models; it comes with torch, which only these tasks then load.
    from transforms.models.tasks.media import check_media, read_all

    found = read_all([check_media(value)], bytes)[0]
    if isinstance(found, Exception):
        raise found
    return found


def picture_and_text(value: Any) -> list[dict[str, Any]]:
    """``{"image", "text"}`` or a chat with images, as the chat that a server takes: images are data URIs."""
    if isinstance(value, dict) and value.keys() == {"image", "text"}:
        content = [_picture(value["image"]), {"type": "text", "text": text(value["text"], "inputs.text")}]
        return [{"role": "user", "content": content}]
    if isinstance(value, (dict, str)):
        raise InvalidInput(f'inputs={brief(value)}: must be {{"image": …, "text": …}}, or a chat')
    return [{**message, "content": _content(message["content"])} for message in prompt_or_chat(value)]


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    parts = []
    for i, part in enumerate(content if isinstance(content, list) else [content]):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            parts.append({"type": "text", "text": text(part.get("text"), f"content[{i}].text")})
        elif kind == "image_url":
            url = part.get("image_url")
            parts.append(_picture(url.get("url") if isinstance(url, dict) else url))
        elif kind == "image":
            parts.append(_picture(next((part[key] for key in ("image", "url", "base64") if key in part), None)))
        else:
            raise InvalidInput(f"content[{i}]={brief(part)}: its type must be text, image or image_url")
    return parts


def _picture(source: Any) -> dict[str, Any]:
    import base64

    data = media(source)
    url = f"data:{content_type(data)};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
)


def content_type(data: bytes) -> str:
    """The content type of an image or a recording, by its first bytes."""
    if data[:4] == b"RIFF":
        return "image/webp" if data[8:12] == b"WEBP" else "audio/wav"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "application/octet-stream")


def document(value: Any) -> dict[str, Any]:
    """``{"image", "question"}``."""
    if not isinstance(value, dict) or value.keys() != {"image", "question"}:
        raise InvalidInput(f'inputs={brief(value)}: must be {{"image": …, "question": …}}')
    import base64

    return {
        "image": base64.b64encode(media(value["image"])).decode(),
        "question": text(value["question"], "inputs.question"),
    }
