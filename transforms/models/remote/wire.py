"""Checked inputs as a server takes them: images and recordings read, and written into the request."""

from __future__ import annotations

import base64
from typing import Any

from transforms.models import inputs
from transforms.models.magic import content_type
from transforms.models.task_entry import TaskEntry
from transforms.models.tasks.media import read_all


def to_wire(task: TaskEntry, checked: Any) -> Any:
    """What a request carries for the inputs that ``task.check`` returned; reads from Cloud Storage.

    Raises:
      InvalidInput: an image or a recording cannot be read.
    """
    if task.check is inputs.media:
        return _read([checked])[0]
    if task.check is inputs.document:
        return {**checked, "image": base64.b64encode(_read([checked["image"]])[0]).decode()}
    return _picture_chat(*checked) if task.check is inputs.picture_and_text else checked


def _read(sources: list[bytes | str]) -> list[bytes]:
    found: list[bytes] = []
    for each in read_all(sources, bytes):
        if isinstance(each, Exception):
            raise each
        found.append(each)
    return found


def _picture_chat(prompt: Any, sources: list[bytes | str]) -> list[dict[str, Any]]:
    """A chat whose images are data URIs."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    pictures = iter(_picture(data) for data in _read(sources))
    return [
        message
        if not isinstance(message["content"], list)
        else {
            **message,
            "content": [next(pictures) if part["type"] == "image" else part for part in message["content"]],
        }
        for message in prompt
    ]


def _picture(data: bytes) -> dict[str, Any]:
    url = f"data:{content_type(data)};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
