"""The ``parameters`` of a message: which a task declares, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transforms.errors import quoted
from transforms.models.errors import InvalidParameter, brief, cut


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter: what it must be, in words and as a test, and whether ``null`` means something.

    ``check`` says of a value that is accepted what else is wrong with it: it raises ``InvalidParameter``.
    """

    must_be: str
    accepts: Callable[[Any], bool]
    nullable: bool = False
    check: Callable[[Any], None] | None = None


def integer(least: int, most: int | None = None, *, nullable: bool = False) -> Parameter:
    """An integer of at least ``least`` and, where given, at most ``most``."""
    words = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    return Parameter(words, lambda v: _is_int(v) and v >= least and (most is None or v <= most), nullable)


def number(least: float, most: float = float("inf"), *, open_start: bool = False) -> Parameter:
    """A finite number from ``least`` (exclusive with ``open_start``) to ``most``."""
    start = f"over {least:g}" if open_start else f"of at least {least:g}"
    words = f"a number {start}" + ("" if most == float("inf") else f" and at most {most:g}")
    return Parameter(
        words,
        lambda v: (
            (_is_int(v) or isinstance(v, float))
            and (v > least if open_start else v >= least)
            and v <= most
            and v != float("inf")
        ),
    )


def boolean() -> Parameter:
    """``true`` or ``false``."""
    return Parameter("true or false", lambda v: isinstance(v, bool))


def choice(*allowed: Any) -> Parameter:
    """One of ``allowed``."""
    words = "one of " + ", ".join(str(a).lower() if isinstance(a, bool) else str(a) for a in allowed)
    return Parameter(words, lambda v: any(type(v) is type(a) and v == a for a in allowed))


def text() -> Parameter:
    """A string that is not empty."""
    return Parameter("a string that is not empty", lambda v: isinstance(v, str) and v != "")


#: Longest template, in characters: what is made of one for each of a thousand labels stays small.
MAX_TEMPLATE = 1000


def template() -> Parameter:
    """A string with one ``{}`` in it, and no other brace: a server would format it, and so run what stands there."""
    return Parameter(
        f"a string of at most {MAX_TEMPLATE} characters with one {{}} where the label goes, and no other brace",
        lambda v: isinstance(v, str) and len(v) <= MAX_TEMPLATE and _has_one_place(v),
    )


def fill(template: str, label: str) -> str:
    """``template`` with ``label`` in its place; both come from a message, and neither is ever formatted."""
    return template.replace("{}", label, 1)


def texts(most: int) -> Parameter:
    """A string, which may hold up to ``most`` between commas, or a list of 1 to ``most`` strings."""
    return Parameter(
        f"a string with under {most} commas, or a list of 1 to {most} strings",
        lambda v: (isinstance(v, str) and v != "" and v.count(",") < most) or _is_texts(v, most),
    )


def text_list(most: int, least: int = 1, longest: int | None = None) -> Parameter:
    """A list of ``least`` to ``most`` strings, of up to ``longest`` characters each."""
    words = f"a list of {least} to {most} strings" + (f" of at most {longest} characters" if longest else "")
    return Parameter(
        words,
        lambda v: (
            (least == 0 and v == [])
            or (_is_texts(v, most) and (longest is None or all(len(one) <= longest for one in v)))
        ),
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: Any, most: int) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= most and all(isinstance(v, str) and v for v in value)


def is_written(value: Any) -> bool:
    """Whether all text in ``value``, a string or a list, is of whole characters; a tokenizer takes no other."""
    if isinstance(value, list):
        return all(map(is_written, value))
    if not isinstance(value, str) or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_one_place(value: str) -> bool:
    return "{}" in value and value.count("{") == value.count("}") == 1


def validate(given: Any, declared: Mapping[str, Parameter], task: str) -> dict[str, Any]:
    """``given`` without the nulls that only mean "the default".

    Raises:
      InvalidParameter: naming the parameter, what it must be, or which there are.
    """
    if not isinstance(given, Mapping):
        raise InvalidParameter(f"parameters={brief(given)}: must be an object of names and values")
    valid: dict[str, Any] = {}
    for name, value in given.items():
        parameter = declared.get(name) if isinstance(name, str) else None
        if parameter is None:
            allowed = ", ".join(sorted(declared)) or "none"
            raise InvalidParameter(
                f"parameters.{quoted(cut(str(name)))}: {task} has no such parameter; it takes: {allowed}"
            )
        if value is None:
            if parameter.nullable:
                valid[name] = None
        elif not is_written(value):
            raise InvalidParameter(f"parameters.{name}: holds half a surrogate pair, which is no character")
        elif parameter.accepts(value):
            if parameter.check is not None:
                parameter.check(value)
            valid[name] = value
        else:
            raise InvalidParameter(f"parameters.{name}={brief(value)}: must be {parameter.must_be}")
    return valid
