"""The models file: read, held against its schema, and made into plain records; what is wrong is told by line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transforms.models.errors import ModelLoadError, foreign
from transforms.models.fleet import misfits, yaml_lines
from transforms.models.fleet.routes import Routes, Rule, Shadow
from transforms.models.spec import freeze

#: Longest file that is read.
_MOST_BYTES = 1 << 20


class FileErrors(ModelLoadError):
    """The file cannot be used; ``found`` has each fault with its line."""

    def __init__(self, where: str, found: Sequence[tuple[int, str]]) -> None:
        self.where = where
        self.found = sorted(found)
        super().__init__("; ".join(foreign(line) for line in self.lines()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FileErrors, (self.where, self.found)  # it may come from the process that holds the models

    def lines(self) -> list[str]:
        return [f"{self.where}:{line}: {words}" for line, words in self.found]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the file. ``more`` are its other keys, as name and value.

    ``follows`` says that its revision is asked for again and again, ``unload_first`` that it may be unloaded before
    the next one is loaded.
    """

    name: str
    model: str | None
    task: str | None = None
    revision: str | None = None
    parameters: str = "{}"
    endpoint: str | None = None
    follows: bool = False
    unload_first: bool = False
    more: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """Messages whose answers are known: ``file``, and the share of them that a model must give."""

    file: str
    at_least: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelsFile:
    """A models file that is sound, and the ``digest`` of its bytes."""

    models: Mapping[str, Entry]
    routes: Routes
    checks: Mapping[str, Check] = field(default_factory=dict)
    digest: str = ""


def parse(data: bytes, where: str) -> ModelsFile:
    """The file of which ``data`` are the bytes; ``where`` is its name in what is said.

    Raises:
      FileErrors: all that is wrong with it.
    """
    try:
        if len(data) > _MOST_BYTES:
            raise yaml_lines.Unreadable(1, f"the file has {len(data):,} bytes; it may have {_MOST_BYTES:,}")
        document = yaml_lines.read(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FileErrors(where, [(data.count(b"\n", 0, error.start) + 1, "is not UTF-8")]) from None
    except yaml_lines.Unreadable as error:
        raise FileErrors(where, [(error.line, str(error))]) from None
    found = list(misfits.find(document)) or list(misfits.between(document))
    if found:
        raise FileErrors(where, found)
    value = document.value
    models = {name: _entry(name, given) for name, given in value["models"].items()}
    routes = Routes(tuple(_rules(value, models)), tuple(_shadows(value)))
    checks = {name: Check(**given) for name, given in value.get("checks", {}).items()}
    return ModelsFile(models, routes, checks, hashlib.sha256(data).hexdigest())


def _entry(name: str, given: Mapping[str, Any]) -> Entry:
    more = dict(given)
    model, endpoint = more.pop("model", None), more.pop("endpoint", None)
    follows = more.pop("refresh", str(model).startswith("gs://")) and endpoint is None
    own = {key: more.pop(key) for key in ("task", "revision", "unload_first") if key in more}
    parameters = freeze(more.pop("parameters", None))
    return Entry(
        name, model, endpoint=endpoint, follows=follows, parameters=parameters, more=tuple(sorted(more.items())), **own
    )


def _rules(value: Mapping[str, Any], models: Mapping[str, Entry]) -> Iterator[Rule]:
    for given in value.get("serve") or [{"use": next(iter(models))}]:
        shares = given.get("split") or {given["use"]: 1}
        total = sum(shares.values())
        yield Rule(given.get("when"), tuple((name, share / total) for name, share in shares.items()), given.get("by"))


def _shadows(value: Mapping[str, Any]) -> Iterator[Shadow]:
    for given in value.get("shadow") or ():
        yield Shadow(given["model"], given["share"], given.get("when"))
