"""The one flag engine of every command: what a flag is, how it is read, and how help and errors look.

Wrong usage is one line, ``error: --flag 'value': cause; way out``, on standard error, with exit code 2. Exit codes are
alike everywhere: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.matchers import text

#: How much of a wrong value is shown.
_SHOWN = 200


class UsageError(ValueError):
    """Something about the flags or what they name is wrong; its text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``parse`` turns its text into its value, or raises ValueError with the cause and the way out.

    Of a flag given more than once the last one counts, unless it is ``repeated``: then its value is the list of all. A
    ``switch`` takes no value and is True where it is given. ``hidden`` ones are for our own processes.

    A wrong value is not repeated in the error where it may be a ``secret`` pasted by mistake. ``regex`` is for the
    template's form, where it differs from what ``parse`` knows of itself.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = text
    default: str | None = None
    required: bool = False
    choices: tuple[str, ...] = ()
    group: str = "Flags"
    secret: bool = False
    regex: str | None = None
    repeated: bool = False
    switch: bool = False
    hidden: bool = False

    def default_value(self) -> Any:
        """What the flag is where it is not given: the one place where a default stands."""
        return None if self.default is None else self.parse(self.default)


def read(flags: Sequence[Flag], argv: Sequence[str]) -> dict[str, Any]:
    """The value of every one of ``flags`` by name, None where it has none.

    Raises:
        UsageError: a flag is unknown, misspelt, missing, or its value wrong.
    """
    texts, rest = split(flags, argv)
    if rest:
        raise unknown(rest[0], (f"--{flag.name}" for flag in flags if not flag.hidden))
    return values(flags, texts)


def read_with_words(flags: Sequence[Flag], argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """As :func:`read`, and the words that are no flags.

    Raises:
        UsageError: a flag is unknown, misspelt, missing, or its value wrong.
    """
    texts, words = split(flags, argv)
    for word in words:
        if word.startswith("-"):
            raise unknown(word, (f"--{flag.name}" for flag in flags if not flag.hidden))
    return values(flags, texts), words


def split(flags: Iterable[Flag], argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The texts given for each of ``flags``, as ``--name=TEXT`` or ``--name TEXT``, and all other arguments.

    Raises:
        UsageError: a value is missing, or given to a switch.
    """
    known = {f"--{flag.name}": flag for flag in flags}
    texts: dict[str, list[str]] = {}
    rest = []
    words = deque(argv)
    while words:
        word = words.popleft()
        name, equals, given = word.partition("=")
        flag = known.get(name)
        if flag is None:
            rest.append(word)
            continue
        if flag.switch and equals:
            raise UsageError(f"{name} {_short(given)}: takes no value; give {name} alone, or leave it out")
        if not flag.switch and not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(f"{name}: its value is missing; use {name}=VALUE")
            given = words.popleft()
        texts.setdefault(flag.name, []).append(given)
    return texts, rest


def values(flags: Iterable[Flag], texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Parses the ``texts`` given for ``flags``; those not given have their default, or None.

    Raises:
        UsageError: a value is wrong, or a required flag is missing.
    """
    found: dict[str, Any] = {}
    for flag in flags:
        given = texts.get(flag.name, ())
        if flag.switch:
            found[flag.name] = bool(given)
        elif flag.repeated:
            found[flag.name] = [value(flag, each) for each in given]
        elif given:
            found[flag.name] = value(flag, given[-1])
        elif flag.required:
            raise UsageError(f"--{flag.name} is missing: {flag.help}")
        else:
            found[flag.name] = flag.default_value()
    return found


def value(flag: Flag, given: str) -> Any:
    """``given`` as the value of ``flag``.

    Raises:
        UsageError: it is none.
    """
    shown = f"--{flag.name}" if flag.secret and given else f"--{flag.name} {_short(given)}"
    if not given:
        raise UsageError(f"{shown}: is empty; give a value, or leave the flag out")
    if flag.choices and given not in flag.choices:
        raise UsageError(f"{shown}: use {' or '.join(flag.choices)}")
    try:
        return flag.parse(given)
    except ValueError as error:
        raise UsageError(f"{shown}: {error}") from None


def unknown(word: str, names: Iterable[str]) -> UsageError:
    """The error for ``word``, which is none of the flags ``names``; its value may be a secret, and is not shown."""
    if not word.startswith("-"):
        return UsageError(f"{_short(word)}: not a flag; flags are given as --name=VALUE, see --help")
    name = word.partition("=")[0]
    near = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), list(names), 1)
    return UsageError(f"{name}: no such flag; " + (f"did you mean {near[0]}?" if near else "see --help"))


#: A URL's user and password, and the values in its query, of which any may be a key.
_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"]+@|(?<=[?&])([\w.-]+=)[^&\s'\"#]+")
#: A key of Google's where its file's name belongs, whole or cut off: no value of it is anybody's business.
_KEY = re.compile(r"\{[^{}]*\"(?:private_key|private_key_id|client_secret|refresh_token)\".*", re.S)


def without_passwords(text: str) -> str:
    """``text`` whose URLs show neither user, password nor the values of their query; and without a key in JSON."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***" if found[1] else "***@", _KEY.sub("{***", text))


def _short(given: str) -> str:
    given = without_passwords(given)
    return repr(given if len(given) <= _SHOWN else given[:_SHOWN] + "…")


def wrong_usage(error: Exception) -> int:
    """Says on one line of standard error what is wrong, and returns the exit code of wrong usage."""
    say_error(str(error))
    return 2


def say_error(words: str) -> None:
    """Says ``words`` as an error, on one line of standard error and without a password."""
    print("error:", without_passwords(" ".join(words.splitlines())), file=sys.stderr)


def wants_help(argv: Sequence[str]) -> bool:
    """Whether ``argv`` asks for help, whatever else is in it."""
    return bool({"-h", "--help"} & set(argv))


def help_text(flag: Flag) -> str:
    """``flag``'s help with its choices and default."""
    notes = [
        *([" | ".join(flag.choices)] if flag.choices else []),
        *([f"default {flag.default}"] if flag.default else []),
    ]
    return f"{flag.help} ({'; '.join(notes)})" if notes else flag.help


def placeholder(flag: Flag) -> str:
    """What stands for ``flag``'s value in help."""
    if flag.switch:
        return ""
    shown = "|".join(flag.choices) if 0 < len("|".join(flag.choices)) < 20 else getattr(flag.parse, "shown", "VALUE")
    return f"={shown}"


def print_help(command: str, module: str, about: str, flags: Sequence[Flag], operands: str = "") -> int:
    """Prints the help of ``beam-hf-inference command``, if there is one, and ``python -m module``; returns 0.

    ``operands`` are the words that it takes besides ``flags``.
    """
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    shown = [flag for flag in flags if not flag.hidden]
    column = min(34, max(len(flag.name + placeholder(flag)) for flag in shown) + 6)
    names = [*([f"beam-hf-inference {command}"] if command else []), f"python -m {module}"]
    lines = [
        f"{word:>6} {name} [--FLAG=VALUE ...]{operands and f' {operands}'}"
        for word, name in zip(("usage:", "or:"), names, strict=False)
    ]
    lines.append("")
    lines += textwrap.wrap(about, width)
    for group in dict.fromkeys(flag.group for flag in shown):
        lines += ["", f"{group}:"]
        for flag in (each for each in shown if each.group == group):
            marks = "(required) " if flag.required else "(may be given again) " if flag.repeated else ""
            said = textwrap.wrap(marks + help_text(flag), max(30, width - column), break_on_hyphens=False)
            name = f"  --{flag.name}{placeholder(flag)}"
            if len(name) + 2 > column:
                said, name = ["", *said], name + " " * column
            lines.append(f"{name:<{column}}{said[0]}".rstrip())
            lines += [" " * column + line for line in said[1:]]
    lines += ["", "Of a flag given twice the last one counts. Exit codes: 0 done, 1 failed, 2 wrong usage."]
    print("\n".join(lines))
    return 0
