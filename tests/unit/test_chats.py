"""Chats: the forms that transformers takes, and that no link in one is ever followed, here or by a server."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import tiny_models as tiny
import torch
import transformers
from failing_messages import message

from transforms.models import inputs
from transforms.models.chats import check_chat, continued, rendered
from transforms.models.errors import InvalidInput
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.task_table import TASKS
from transforms.records import Prediction, Request

GREEDY = {"max_new_tokens": 6, "do_sample": False}
PICTURE = tiny.b64(tiny.png(tiny.picture()))
CALLS = [{"type": "function", "function": {"name": "f", "arguments": {"url": "http://example.com/"}}}]
FORMS = [
    orjson.loads(message("chat-forms").data)["inputs"],
    [{"role": "system", "content": ""}, {"role": "user", "content": "hi"}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": ""}], "name": "ann"}],
    [{"role": "user", "content": "see http://example.com/a.png"}],
    [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": CALLS}, {"role": "tool", "content": "42"}],
]


@pytest.mark.parametrize("chat", FORMS)
def test_chats_are_answered_as_transformers_answers_them(chat: list[dict[str, Any]]) -> None:
    """Null content beside tool calls, empty system text and content parts give what the pipeline gives."""
    torch.set_num_threads(1)
    handler = HuggingFaceModelHandler(tiny.causal(), "text-generation", dtype="float32")
    (outcome,) = handler.run_inference([Request(chat, GREEDY)], handler.load_model())
    assert isinstance(outcome, Prediction), outcome
    whole = [{"content": None, **each} for each in chat]  # transformers wants the key to be there
    pipeline: Any = transformers.pipeline("text-generation", tiny.causal(), dtype=torch.float32)
    expected = pipeline(whole, max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert outcome.prediction[0]["generated_text"][-1] == expected[-1]


@pytest.mark.parametrize(
    ("template", "chat", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", FORMS[1], "TemplateError: roles must alternate"),
        ("{% for m in messages %}{{ 'x' + m.content }}{% endfor %}", FORMS[2], "TypeError"),
        ("{{ messages[0].content }}", [FORMS[5][0], {**FORMS[5][1], "content": None}], 'no "content" to continue'),
        ("{{ messages[0].content }}", [{"role": "user", "content": "\ud800"}], "surrogates not allowed"),
    ],
)
def test_a_chat_that_the_template_refuses(template: str, chat: Any, words: str) -> None:
    """The message is at fault, and is told in the template's words."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InvalidInput, match="this model's template does not take") as caught:
        rendered(chat, tokenizer)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "chat",
    [
        [],
        "",
        {},
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ""}],
        [{"role": "", "content": "x"}],
        [{"role": 5, "content": "x"}],
        [{"role": "user", "content": {"type": "text", "text": "x"}}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"text": "x"}]}],
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}],
        ["x"],
    ],
)
def test_what_is_no_chat_is_refused(chat: object) -> None:
    """No role, no content, or content of no known form."""
    with pytest.raises(InvalidInput):
        check_chat(chat)


LINKS = [
    "http://169.254.169.254/computeMetadata/v1/",
    "HTTP://169.254.169.254/",
    " http://169.254.169.254/",
    "\thttp:169.254.169.254",
    "http:\\\\169.254.169.254\\",
    "//169.254.169.254/latest",
    "file:///etc/passwd",
    "/etc/passwd",
    "/proc/self/root" * 8 + "/etc/passwd",
    "/" * 90 + "etc/passwd",
    "ftp://host/x",
    "gs://bucket/x.png",
    "s3://bucket/x.png",
    "169.254.169.254",
    "localhost",
]
PARTS = [
    lambda link: {"type": "image_url", "image_url": {"url": link}},
    lambda link: {"type": "image_url", "image_url": link},
    lambda link: {"type": "image", "image": link},
    lambda link: {"type": "image", "url": link},
    lambda link: {"type": "image", "source": {"type": "url", "url": link}},
    lambda link: {"type": "input_image", "image_url": link},
    lambda link: {"type": "audio_url", "audio_url": {"url": link}},
    lambda link: {"type": "audio", "audio": link},
    lambda link: {"type": "audio", "path": link},
    lambda link: {"type": "input_audio", "input_audio": {"data": link, "format": "wav"}},
    lambda link: {"type": "video_url", "video_url": {"url": link}},
    lambda link: {"type": "video", "video": [link, link]},
    lambda link: {"type": "file", "file": {"file_data": link}},
    lambda link: {"type": "whatever", "deep": [{"er": {"est": link}}]},
    lambda link: {"type": "text", "text": "x", "image_url": {"url": link}},
]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("part", PARTS)
def test_no_link_reaches_a_server(part: Any, link: str) -> None:
    """In a picture, a recording or a video, however the part or the link is spelt, for every task that takes chats."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part(link)]}]
    for task in ("text-generation", "image-text-to-text"):
        try:
            checked = TASKS[task].check(chat)
        except InvalidInput:
            continue
        # image-text-to-text reads gs:// itself, and anything else as base64; what it passes on holds no link.
        assert task == "image-text-to-text"
        messages, images = checked
        assert link not in orjson.dumps(messages).decode()
        assert not images or link.startswith("gs://") or ":" not in link


@pytest.mark.parametrize("key", ["images", "audio", "video_url", "attachments", "Image"])
def test_no_link_beside_the_content_reaches_a_server(key: str) -> None:
    """Some servers take pictures in keys of their own."""
    for task in ("text-generation", "image-text-to-text"):
        with pytest.raises(InvalidInput, match="nothing is fetched"):
            TASKS[task].check([{"role": "user", "content": "x", key: ["http://169.254.169.254/"]}])
        TASKS[task].check([{"role": "user", "content": "x", key: [PICTURE]}])


@pytest.mark.parametrize("part", PARTS[:13])
@pytest.mark.parametrize("uri", [f"data:image/png;base64,{PICTURE}", f"DATA:image/png;base64,{PICTURE}", PICTURE])
def test_content_goes_along(part: Any, uri: str) -> None:
    """A data URI, and base64, are their own content."""
    chat = [{"role": "user", "content": [part(uri)]}]
    assert inputs.prompt_or_chat(chat) == chat


def test_an_endless_part_is_checked_in_no_time() -> None:
    """Ten megabytes of blanks behind something like base64 do not stop the worker."""
    with pytest.raises(InvalidInput):
        inputs.prompt_or_chat([{"role": "user", "content": [{"type": "image", "image": "A" * 64 + " " * 10**7 + "!"}]}])


def test_a_begun_answer_is_continued_in_any_form() -> None:
    """In the last text of a list of parts, in a text, and where there was none."""
    parts = [{"type": "text", "text": "a"}, {"type": "image"}]
    assert continued(parts, "b") == [{"type": "text", "text": "ab"}, {"type": "image"}]
    assert continued([{"type": "image"}], "b") == [{"type": "image"}, {"type": "text", "text": "b"}]
    assert (continued("a", "b"), continued(None, "b")) == ("ab", "b")


@pytest.mark.parametrize(
    ("value", "checked"),
    [
        ("a", "a"),
        ({"text": "a"}, "a"),
        ({"text": "a", "text_pair": None}, "a"),
        (["a"], "a"),
        ([["a"]], "a"),
        ({"text": "a", "text_pair": "b"}, {"text": "a", "text_pair": "b"}),
        ([["a", "b"]], {"text": "a", "text_pair": "b"}),
    ],
)
def test_text_classification_takes_what_endpoints_take(value: object, checked: object) -> None:
    """One text or a pair, in each form that means the same to every server and to transformers' pipeline."""
    assert TASKS["text-classification"].check(value) == checked


@pytest.mark.parametrize(
    "value", [["a", "b"], [], [[]], [["a", "b", "c"]], {"text_pair": "b"}, {"text": 1}, [1], [None]]
)
def test_forms_that_mean_different_things_are_refused(value: object) -> None:
    """Two texts in a list are a pair to one server, and two inputs to another."""
    with pytest.raises(InvalidInput):
        TASKS["text-classification"].check(value)
