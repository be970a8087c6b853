"""Messages that nobody should send to a job, made by Hypothesis: any body, any attributes that Pub/Sub takes."""

from __future__ import annotations

import datetime
import functools
import gzip
import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import hypothesis
import task_fuzz
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from transforms.models.task_table import TASKS
from transforms.records import Message

#: What the service takes (https://cloud.google.com/pubsub/quotas#resource_limits), with room for a result's own.
_ATTRIBUTES, _KEY_BYTES, _VALUE_BYTES = 90, 256, 1024

_NUMBERS = (
    *(0, -0.0, 1, -1, 0.1, 1e-5, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 2**70, 10**400),
    *(1e308, -1e308, 5e-324, 1e-400, float("nan"), float("inf"), float("-inf"), True, False),
)
_FORMATS = (
    *("{}", "{0}", "{1}", "{[x]}", "{:>99999999999}", "{!r:{}}", "{", "}", "}{", "{{}}", "{:{}}", "{0.__class__}"),
    *("%s", "%(x)s", "%n", "%99999999999d", "${x}", "{{7*7}}", "{% raw %}", "This is {}.", "{}\0", "\\{\\}", "{:c}"),
)
_WORDS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "\u200b",
        "\u202e",
        "\ufeff",
        "\ufdd0",
        "\ufdd1",
        "\uffff",
        "\U0010ffff",
        "e\u0301",
        "ﬀ",
        "İ",
    ),
    *("[MASK]", "[MASK][MASK]", "[PAD]", "[CLS]", "<|endoftext|>", "<image>", "<s>", "a" * 20_000, "á " * 900),
    *("http://127.0.0.1:1/x.png", "file:///etc/passwd", "gs://bucket", "gs://b/\n", "data:;base64,", "NaN", "null"),
)
_TIMES = (
    *(
        "0",
        "-0",
        "+1",
        "1e3",
        "0x10",
        " 1",
        "1 ",
        "1_000",
        "١٢٣",
        "99999999999999999",
        "-62135596800001",
        "253402300800000",
    ),
    *("0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "10000-01-01T00:00:00Z"),
    *("2026-02-29T00:00:00Z", "2026-02-28T24:00:00Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00", "2026-01-01"),
    *("2026-01-01T00:00:00z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00+23:59", "2026-01-01T00:00:00-99:99"),
    *(
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-01-01T00:00:00.1234567890123456789Z",
        "now",
        "NaN",
    ),
    *(
        "2026-W01-1",
        "20260101T000000Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00.Z",
        "-2026-01-01T00:00:00Z",
        "1e309",
    ),
)
_TYPES = (
    *(
        "application/json",
        "text/plain",
        "text/plain; charset=utf-16",
        "text/plain;charset=latin-1",
        "image/png",
        "image/",
    ),
    *(
        "audio/wav",
        "audio/mpeg",
        "TEXT/PLAIN",
        "text/plain; charset=",
        "text/plain; charset=utf-7",
        "text/html",
        ";",
        "/",
    ),
    *(
        "application/json; charset=utf-32",
        "application/x-ndjson",
        "application/json; charset=zip",
        "multipart/form-data",
    ),
    *("text/plain; charset=idna", "text/plain; charset=unicode_escape", "text/plain;charset=cp037;charset=utf-8"),
)
_CODECS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "utf-7",
    "cp037",
    "shift_jis",
)
_NAMES = (
    *(
        "content-type",
        "content-type",
        "content-encoding",
        "ce-datacontenttype",
        "ce-id",
        "ce-time",
        "ts",
        "ts",
        "id",
        "id",
    ),
    *("message_id", "task", "model", "origin_message_id", "schema_version", "traceparent", "dead_letter_attempt"),
    *("dead_letter_stage", "dead_letter_error", "dead_letter_first_message_id", "dead_letter_message_id", "variant"),
    *("CloudPubSubDeadLetterSourceSubscription", "googclient_schemaencoding", "__proto__", ".", " ", "\0", "é", "k"),
)

_text = st.sampled_from(_WORDS + _FORMATS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_number = st.sampled_from(_NUMBERS) | st.integers() | st.floats()
_value = st.recursive(
    st.none() | _number | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_time = (
    st.sampled_from(_TIMES)
    | st.datetimes(timezones=st.timezones() | st.none(), allow_imaginary=False).map(datetime.datetime.isoformat)
    | st.integers(-(10**19), 10**19).map(str)
    | st.floats().map(str)
    | _text
)


def made(task: str, count: int, seed: int) -> list[Message]:
    """``count`` messages to ``task``.

    One in four is Hypothesis's own. The others are shapes that the task takes, filled with what does not fit, and half
    of them have a fourth one's attributes: Hypothesis takes too long to make them all.
    """
    random = Random(f"{seed}/{task}")
    wild = _drawn(_wild(task), -(-count // 4), seed)
    found: list[Message] = []
    for number in range(count):
        message = random.choice(wild) if number % 4 else wild[number // 4]
        if number % 4:
            shaped = task_fuzz.message(random, task, number)
            more = message.attributes if random.random() < 0.5 else {}
            message = Message(shaped.data, {**more, **shaped.attributes}, ordering_key=shaped.ordering_key)
        found.append(_publishable(message))
    return found


def _wild(task: str) -> st.SearchStrategy[Message]:
    names = sorted(TASKS[task].parameters)
    parameters = st.dictionaries(st.sampled_from(names or ["x"]) | _text, _value, max_size=3) | _value
    objects = st.fixed_dictionaries({"inputs": _value}, optional={"parameters": parameters}) | _value
    written = st.builds(_message, objects, st.sampled_from(_CODECS), st.booleans(), _packed, _attributes(), _key)
    return st.one_of(written, written, written, st.builds(Message, st.binary(max_size=200), _attributes()))


def _drawn(strategy: st.SearchStrategy[Message], count: int, seed: int) -> list[Message]:
    found: list[Message] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(message: Message) -> None:
        found.append(message)

    while len(found) < count:
        draw()
        seed += 1
    return found[:count]


def _plain(data: bytes) -> bytes:
    return data


_packed: st.SearchStrategy[Callable[[bytes], bytes]] = st.sampled_from(
    [_plain] * 6
    + [gzip.compress, zlib.compress, lambda data: gzip.compress(data)[:-3], lambda data: data[: len(data) // 2]]
)
_key = st.sampled_from(["", "", "", "", "k1", "ключ"])


def _attributes() -> st.SearchStrategy[dict[str, str]]:
    values: dict[str, st.SearchStrategy[str]] = {
        "content-type": st.sampled_from(_TYPES) | _text,
        "ce-datacontenttype": st.sampled_from(_TYPES),
        "content-encoding": st.sampled_from(["gzip", "GZIP", "x-gzip", "identity", "br", "gzip, gzip", ""]),
        "ts": _time,
        "ce-time": _time,
        "id": st.sampled_from(["a", "b", ""]) | _text,
        "dead_letter_attempt": st.sampled_from(["1", "-1", "²", "9" * 50, "x"]),
        "traceparent": st.sampled_from(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-b-01", "--"])
        | _text,
    }
    capitals = st.sampled_from([str, str, str.upper, str.title, str.swapcase])
    pair = st.sampled_from(_NAMES).flatmap(
        lambda name: st.tuples(capitals.map(lambda change: change(name)), values.get(name, _text))
    )
    many = st.integers(60, 89).map(lambda count: {f"k{n}": "v" * n for n in range(count)})
    pairs = st.lists(pair | st.tuples(_text, _text), max_size=5).map(dict)
    return st.builds(lambda some, more: {**more, **some}, pairs, st.just({}) | st.just({}) | many)


def _message(
    value: Any, codec: str, ascii_only: bool, pack: Callable[[bytes], bytes], attributes: dict[str, str], key: str
) -> Message:
    text = json.dumps(value, ensure_ascii=ascii_only)
    return Message(pack(text.encode(codec, "replace")), attributes, ordering_key=key)


def _publishable(message: Message) -> Message:
    """``message`` with no more than Pub/Sub takes."""
    cut = functools.partial(_cut, most=_VALUE_BYTES)
    own = {_cut(key, _KEY_BYTES): cut(value) for key, value in message.attributes.items() if _may_be_sent(key)}
    own = dict(list(own.items())[:_ATTRIBUTES])
    return Message(message.data, own if own or message.data else {"empty": "1"}, ordering_key=message.ordering_key)


def _may_be_sent(key: str) -> bool:
    return bool(key) and not key.lower().startswith("goog")


def _cut(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
