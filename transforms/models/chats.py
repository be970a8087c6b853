"""Chats as transformers takes them, checked message by message: what is in one is in it, and nothing is fetched for it.

A server that is given a link would fetch it, from wherever it stands: its own network, its own disk. So a picture, a
recording or a video goes along as a ``data:`` URI or in base64, and a link is refused in whatever form it is written.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from transforms.errors import quoted
from transforms.models.errors import InvalidInput, brief, cut
from transforms.models.magic import UNKNOWN, content_type

Messages = list[dict[str, Any]]

#: Types of content parts that are texts, and where their text stands.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}

#: Keys of a part, or of what is in it, that hold a short word and never a link that is followed.
_WORDS = frozenset({"type", "detail", "format", "mime_type", "media_type", "id", "name", "filename"})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*(/[A-Za-z0-9_+.-]+)?")

#: Keys of a message, beside its content, that some servers read pictures and the like from.
_CARRIERS = re.compile("image|audio|video|media|file|picture|document|attachment", re.IGNORECASE)

#: Base64, in any of its alphabets. A path can be written in it too, as long as one likes ("/proc/self/root/proc/…").
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]{64,}[=\s]{0,8}")
_BLANKS = re.compile(r"\s")
_URL_SAFE = str.maketrans("-_", "+/")


def check_chat(value: Any) -> Messages:
    """``value``, if it is a chat: a list of ``{"role", "content"}``; the content a text, a list of parts, or null.

    Null goes beside the calls of tools only, and an empty text beside others that are not.

    Raises:
      InvalidInput: it is none, or holds a link.
    """
    if not isinstance(value, list) or not value:
        raise InvalidInput(f'inputs={brief(value)}: must be a string, or a list of {{"role": …, "content": …}}')
    chat = [_message(message, f"inputs[{i}]") for i, message in enumerate(value)]
    if not any(message["content"] for message in chat):
        raise InvalidInput("inputs is a chat without any content; there is nothing to run the model on")
    return chat


def _message(message: Any, what: str) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message["role"]:
        raise InvalidInput(f'{what}={brief(message)}: must be {{"role": …, "content": …}}')
    content = message.get("content")
    if content is None and not (message.get("tool_calls") or message.get("function_call")):
        raise InvalidInput(f"{what}={brief(message)}: has no content, and no tool_calls in place of it")
    if content is not None and not isinstance(content, (str, list)):
        raise InvalidInput(f"{what}.content={brief(content)}: must be a string, or a list of parts")
    for i, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidInput(f'{what}.content[{i}]={brief(part)}: must be {{"type": …, …}}')
        if is_text(part) and not isinstance(part.get(_TEXTS[part["type"]]), str):
            raise InvalidInput(f"{what}.content[{i}]={brief(part)}: its text must be a string")
    for key, carried in message.items():
        if key != "content" and _CARRIERS.search(key):
            _check_links(carried, key, f"{what}.{brief(key)}")
    return {**message, "content": content}


def is_text(part: Any) -> bool:
    """Whether a part of a message's content is a text."""
    return part["type"] in _TEXTS


def check_links(chat: Messages) -> Messages:
    """``chat``, whose parts a server will read as they are.

    Raises:
      InvalidInput: one that is no text holds something else than its own content.
    """
    for i, message in enumerate(chat):
        for j, part in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            own = _TEXTS.get(part["type"])
            for key, value in part.items():
                if key != own:
                    _check_links(value, key, f"inputs[{i}].content[{j}].{brief(key)}")
    return chat


def _check_links(value: Any, key: str, what: str) -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            _check_links(each, name, what)
    elif isinstance(value, list):
        for each in value:
            _check_links(each, key, what)
    elif isinstance(value, str) and not (_is_content(value) or (key in _WORDS and _WORD.fullmatch(value))):
        raise InvalidInput(
            f"{what}={brief(value)}: must be a data: URI, or base64 of a picture, a recording or a video;"
            " nothing is fetched for a message"
        )


def _is_content(value: str) -> bool:
    """Whether ``value`` is content, and no name of any: a data URI, or base64 of what is known by its first bytes."""
    if value[:5].lower() == "data:":
        return True
    if not _BASE64.fullmatch(value):
        return False
    head = _BLANKS.sub("", value[:64])[:16].translate(_URL_SAFE)
    return content_type(base64.b64decode(head[: len(head) // 4 * 4])) != UNKNOWN


def rendered(chat: Messages, writer: Any) -> str:
    """``chat`` up to the model's answer, as the template of ``writer``, a tokenizer or a processor, writes it.

    Raises:
      InvalidInput: the template does not take it, or makes no text of it.
    """
    goes_on = begun(chat)
    how = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on}
    try:
        text = str(writer.apply_chat_template(chat, tokenize=False, **how))
        text.encode()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (a template is a program of the model's, and refuses in its own way)
        why = quoted(cut(" ".join(str(error).split()), 200))
        raise InvalidInput(
            f"inputs is a chat that this model's template does not take: {type(error).__name__}: {why}"
        ) from None
    return text


def begun(chat: Messages) -> bool:
    """Whether ``chat`` ends in the beginning of the model's own answer, which is then gone on with."""
    return bool(chat[-1]["role"] == "assistant")


def continued(content: Any, words: str) -> Any:
    """A message's ``content`` with ``words`` at the end of its last text."""
    if not isinstance(content, list):
        return (content or "") + words
    last = max((i for i, part in enumerate(content) if part["type"] == "text"), default=None)
    if last is None:
        return [*content, {"type": "text", "text": words}]
    return [*content[:last], {**content[last], "text": content[last]["text"] + words}, *content[last + 1 :]]
