"""A message's body as its attributes say it is written: opened if gzip packed it, read in its charset, or as JSON."""

from __future__ import annotations

import codecs
import encodings.aliases
import functools
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

#: Most bytes of a body once it is opened: what a message could hold unpacked. A small one can unpack to gigabytes.
MAX_BYTES = 10_000_000

#: Content types whose body is the model's input as raw bytes.
RAW_TYPES = ("image/", "audio/")

#: Nesting beyond this no model reads, and what recurses into it (pickle, to begin with) fails at some hundred levels.
MAX_DEPTH = 100

#: Digits that may be a whole number of over 64 bits, which is read to a float.
LONG = re.compile(rb"\d{19}")

#: Most gzip members, one after the other, in one body.
_MEMBERS = 100

#: Charsets by their usual names. Python knows more codecs: some are no charset (zip, base64, punycode), some are slow.
_CHARSETS = (
    frozenset(encodings.aliases.aliases) | frozenset(encodings.aliases.aliases.values()) | {"utf_8_sig", "koi8_t"}
) - {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"}

#: Marks at the beginning of a text, longest first: UTF-32's begins with UTF-16's.
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
#: A parameter of a media type: its name, and its value, in quotes or not.
_PARAMETER = re.compile(r';\s*([^=;"\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')

#: First bytes of a byte order mark.
_MARKED = (b"\xef", b"\xff", b"\xfe")


class Unreadable(ValueError):
    """The body is not what its attributes say; the text says why, and quotes none of the body."""


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type in lower case, and the charset it names, if any."""

    kind: str
    charset: str | None = None

    @classmethod
    @functools.lru_cache(maxsize=256)
    def parse(cls, text: str) -> ContentType:
        """Reads ``text/plain; charset="utf-8"``; of charsets that differ it makes one that nobody knows."""
        found: dict[str, str] = {}
        for name, value in _PARAMETER.findall(text):
            value = value.strip(" \t\"'")
            if name.lower() == "charset" and value:
                found.setdefault(value.lower(), value)
        return cls(text.partition(";")[0].strip().lower(), "; ".join(found.values()) or None)


def content_type(attributes: Mapping[str, str]) -> ContentType:
    """What ``attributes`` say of the body: ``content-type``, or a CloudEvent's ``ce-datacontenttype``.

    Raises:
        Unreadable: they contradict each other.
    """
    return ContentType.parse((find(attributes, "content-type") or find(attributes, "ce-datacontenttype"))[:1000])


def find(attributes: Mapping[str, str], name: str) -> str:
    """The attribute ``name`` in any capitals, "" if there is none; the spelling ``name`` itself goes first.

    Raises:
        Unreadable: it is there in several other spellings that differ.
    """
    exact = attributes.get(name)
    if exact is not None:
        return exact
    found = {value for key, value in attributes.items() if len(key) == len(name) and key.lower() == name}
    if len(found) > 1:
        raise Unreadable(f"the attribute {name!r} is there in several spellings that differ; send it once")
    return found.pop() if found else ""


def unpack(data: bytes, encoding: str) -> bytes:
    """``data`` opened as ``content-encoding`` says: ``gzip``, or nothing to open.

    Raises:
        Unreadable: it is another encoding, damaged, or too large once opened.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return data
    if name not in ("gzip", "x-gzip"):
        raise Unreadable(f"content-encoding {_named(encoding)} is not read; use gzip, or none")
    opened, start = bytearray(), 0
    for _ in range(_MEMBERS):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            opened += member.decompress(memoryview(data)[start:], MAX_BYTES + 1 - len(opened))
        except zlib.error:
            raise Unreadable("the body is not gzip, as its content-encoding says, or is damaged") from None
        if len(opened) > MAX_BYTES:
            raise Unreadable(f"the body is over {MAX_BYTES:,} bytes once opened")
        if not member.eof:
            raise Unreadable("the body is gzip that was cut off")
        start = len(data) - len(member.unused_data)
        if not member.unused_data.strip(b"\0"):  # padding, which gzip itself passes over
            return bytes(opened)
    raise Unreadable(f"the body is gzip of more than {_MEMBERS} members")


def text(data: bytes, charset: str | None) -> str:
    """``data`` as text in ``charset``; without one in UTF-8, or what the mark at its beginning says.

    Raises:
        Unreadable: it is not, or ``charset`` is none that is known, or leaves open which byte of a character is first.
    """
    mark = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if charset is None:
        charset = mark or "utf-8"
    else:
        _check_charset(charset, mark)
    try:
        read = data.decode(charset)
        if not read.isascii():
            read.encode()  # UTF-7 can hold half a character, which nothing later could write
    except UnicodeError as error:
        name = "UTF-8" if charset.lower() == "utf-8" else f"in charset {_named(charset)}"
        where = f": {error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise Unreadable(f"the body is not {name}{where}") from None
    if read[:1] == "\ufffe":  # the mark, of the other order
        raise Unreadable(f"the body begins with the mark of another charset than its own, {_named(charset)}")
    return read.removeprefix("\ufeff")


def json_text(data: bytes, charset: str | None) -> bytes:
    """``data``, JSON in ``charset`` or in what its first bytes tell, in UTF-8.

    Raises:
        Unreadable: it is no text of that charset.
    """
    # UTF-8 without a mark is what JSON is, and is read as it is. A NUL among its first bytes tells UTF-16 or UTF-32.
    other = charset is not None and charset.lower() not in ("utf-8", "utf8")
    if other or data[:1] in _MARKED or 0 in data[:4]:
        if charset is None and 0 in data[:4]:
            try:
                return data.decode(json.detect_encoding(data)).encode()
            except UnicodeError:
                raise Unreadable("the body is not JSON: it is no text") from None
        return text(data, charset).encode()
    return data


def json_value(data: bytes, charset: str | None) -> Any:
    """``data`` as JSON in ``charset``, or in what its first bytes tell.

    Raises:
        Unreadable: it is not, or is nested too deep.
    """
    data = json_text(data, charset)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # The parser's message may quote the input; its words and position are enough.
        raise Unreadable(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise Unreadable(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def depth(value: Any) -> int:
    """How deep arrays and objects are nested in ``value``."""
    found, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        found += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return found


def _check_charset(charset: str, mark: str | None) -> None:
    """Refuses a ``charset`` that is unknown, or does not go with the ``mark`` that the body begins with, or lacks."""
    codec = _codec(charset)
    if codec is None:
        raise Unreadable(f"charset {_named(charset)} is not known; use utf-8")
    if mark is not None and not codec.startswith(mark):
        raise Unreadable(f"the body begins with the mark of {mark}, and its charset is {_named(charset)}")
    if mark is None and codec in ("utf-16", "utf-32"):
        raise Unreadable(f"charset {_named(charset)} needs a mark where the body begins; use {codec}le or {codec}be")


@functools.lru_cache(maxsize=256)
def _codec(charset: str) -> str | None:
    """Python's name of ``charset``, None if it is none; a list is asked, as Python remembers every name it is asked."""
    if not re.fullmatch(r"[A-Za-z0-9._:+-]{1,40}", charset):
        return None
    name = encodings.normalize_encoding(charset).lower().replace(".", "_")
    if name not in _CHARSETS:
        return None
    name = encodings.aliases.aliases.get(name, name)
    try:
        "".encode(name)
    except LookupError:  # zip, base64 and their kind are codecs, but not of text
        return None
    return codecs.lookup(name).name


def _named(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:39] + "…")
