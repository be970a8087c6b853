"""Payloads that nobody should send, from a seeded source: bytes, near-JSON, odd JSON and odd attributes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from transforms.records import Message

_TYPES = (
    "",
    "application/json",
    "text/plain",
    "TEXT/PLAIN; charset=latin-1",
    "image/png",
    "audio/wav",
    "x" * 300,
    ";;",
    "\x00",
)
_TIMES = (
    "",
    "0",
    "-1",
    "99999999999999999999",
    "1e5",
    "2024-01-01T00:00:00Z",
    "2024-13-01T00:00:00Z",
    "now",
    "NaN",
    "𝟙",
)
_ODD = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b'""',
    b'{"inputs": null}',
    b'{"inputs": NaN}',
    b'{"inputs": 1e999}',
    b"\xef\xbb\xbf{}",
    b'{"inputs": "\\ud800"}',
    b'{"inputs": "a", "inputs": 2}',
    b'{"inputs": "x", "parameters": []}',
    b'{"inputs": "x", "parameters": {"\\u0000": 1}}',
    b"[" * 2_000,
    b'{"inputs":' * 900 + b"1" + b"}" * 900,
    b'{"inputs": ' + b"9" * 400 + b"}",
    b"\x00" * 50,
    b'{"inputs": "\xff\xfe"}',
    b"\x1f\x8b\x08\x00",
    b'"inputs"',
)


def payload(random: Random) -> Message:
    """One message; always something that Pub/Sub itself takes."""
    data = random.choice((_bytes, _text, _text, _mutated, _mutated, _structure, _odd))(random)
    attributes = _attributes(random)
    if not data and not attributes:
        attributes = {"empty": "1"}
    return Message(data, attributes, ordering_key=random.choice(("", "", "", "k1", "k2", "ключ")))


def _bytes(random: Random) -> bytes:
    return random.randbytes(random.randrange(300))


def _characters(random: Random, most: int) -> str:
    """Any characters but surrogates."""
    pools = ((32, 126), (0, 31), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
    return "".join(chr(random.randint(*random.choice(pools))) for _ in range(random.randrange(most)))


def _text(random: Random) -> bytes:
    return json.dumps({"inputs": _characters(random, 60)}, ensure_ascii=random.random() < 0.5).encode()


def _mutated(random: Random) -> bytes:
    data = bytearray(_text(random))
    for _ in range(random.randint(1, 4)):
        where = random.randrange(len(data) + 1)
        how = random.randrange(4)
        if how == 0:
            data[where:where] = random.randbytes(random.randint(1, 3))
        elif how == 1:
            del data[where : where + random.randint(1, 5)]
        elif how == 2:
            data[where : where + 1] = random.choice(b'{}[]",:\\0').to_bytes(1, "little")
        else:
            data = data[:where] or data
    return bytes(data)


def _structure(random: Random) -> bytes:
    return json.dumps({"inputs": _value(random, 4), "parameters": _value(random, 2)}).encode()


def _value(random: Random, depth: int) -> Any:
    kind = random.randrange(8 if depth else 5)
    if kind < 5:
        return (
            None,
            random.random() < 0.5,
            random.randint(-(2**70), 2**70),
            random.uniform(-1e308, 1e308),
            _characters(random, 20),
        )[kind]
    if kind < 7:
        return [_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {_characters(random, 8): _value(random, depth - 1) for _ in range(random.randrange(4))}


def _odd(random: Random) -> bytes:
    return random.choice(_ODD)


def _attributes(random: Random) -> dict[str, str]:
    found: dict[str, str] = {}
    if random.random() < 0.4:
        found["content-type"] = random.choice(_TYPES)
    if random.random() < 0.3:
        found["ts"] = random.choice(_TIMES)
    if random.random() < 0.1:
        found["traceparent"] = random.choice(("00-" + "a" * 32 + "-b-01", "---", "00-" + "é" * 32 + "-b-01"))
    if random.random() < 0.1:
        found["dead_letter_attempt"] = random.choice(("1", "-1", "x", "9" * 40, "²"))
    if random.random() < 0.05:
        # As many as leave room for our own.
        found |= {f"k{n}": _characters(random, 10) for n in range(random.choice((10, 80)))}
    if random.random() < 0.05:
        found[random.choice(("k" * 256, "é" * 128, "message_id", "task", " "))] = "v" * random.choice((0, 1, 1024))
    return found
