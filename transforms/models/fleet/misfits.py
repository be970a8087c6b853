"""What is wrong with a models file, each fault with its line, in words that say the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jmespath
import jsonschema

from transforms.models.fleet.schema import SCHEMA
from transforms.models.fleet.yaml_lines import Document
from transforms.models.task_table import ALIASES, TASKS
from transforms.models.task_table import find as find_task

_KINDS = {
    "object": "names with values",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def find(document: Document) -> Iterator[tuple[int, str]]:
    """The faults that the schema finds."""
    for error in _VALIDATOR.iter_errors(document.value):
        path = list(error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
            yield from _unknown(document, path, error)
            continue
        where = "the file" if not path else ".".join(str(each) for each in path)
        yield document.line(path), f"{where}: {_words(error)}"


def _unknown(document: Document, path: list[Any], error: Any) -> Iterator[tuple[int, str]]:
    known = list(error.schema.get("properties", {}))
    patterns = error.schema.get("patternProperties", {})
    for key in error.instance:
        if key in known or any(_fits(pattern, key) for pattern in patterns):
            continue
        line = document.line([*path, key])
        if patterns:
            yield line, f"{key!r}: not a model's name; use letters, digits, '.', '-' and '_', 63 at the most"
            continue
        near = difflib.get_close_matches(key, known, 1)
        yield line, f"{key!r}: no such key; " + (f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}")


def _fits(pattern: str, key: str) -> bool:
    return re.search(pattern, key) is not None


def _words(error: Any) -> str:
    given, limit = error.instance, error.validator_value
    shown = repr(given) if len(repr(given)) <= 80 else f"{repr(given)[:79]}…"
    if error.validator == "type":
        hint = "; put it in quotes" if limit == "string" and isinstance(given, int | float) else ""
        return f"{shown} must be {_KINDS[limit]}{hint}"
    if error.validator == "required":
        lacking = [name for name in limit if name not in given]
        return f"{', '.join(lacking)} is missing"
    if error.validator == "enum":
        return f"{shown}: use {', '.join(map(str, limit))}"
    if error.validator in ("minLength", "minProperties", "minItems"):
        return "is empty"
    bounds = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    return f"{shown} must be {bounds[error.validator]} {limit}" if error.validator in bounds else str(error.message)


def between(document: Document) -> Iterator[tuple[int, str]]:
    """The faults of a file that fits the schema: names that nothing has, shares that do not add up, rules unreached."""
    value = document.value
    models = value["models"]
    for name, given in models.items():
        yield from _model(document, name, given)
    if "serve" not in value and len(models) > 1:
        yield document.line(["models"]), "serve is missing: with several models it says which answers what"
    everything = None
    for i, rule in enumerate(value.get("serve") or ()):
        at: list[str | int] = ["serve", i]
        if everything is not None:
            yield document.line(at), f"serve.{i}: never reached, as the rule on line {everything} takes every message"
        if "when" not in rule:
            everything = everything or document.line(at)
        for name in rule.get("split") or [rule["use"]]:
            yield from _known(document, [*at, "split" if "split" in rule else "use"], name, models)
        if "split" in rule and not sum(rule["split"].values()):
            yield document.line([*at, "split"]), f"serve.{i}.split: the shares are all 0"
        for key in ("when", "by"):
            yield from _expression(document, [*at, key], rule.get(key))
    shadows = value.get("shadow") or ()
    for i, shadow in enumerate(shadows):
        yield from _known(document, ["shadow", i, "model"], shadow["model"], models)
        yield from _expression(document, ["shadow", i, "when"], shadow.get("when"))
    if sum(shadow["share"] for shadow in shadows) > 1 + 1e-9:
        yield document.line(["shadow"]), "shadow: the shares are over 1 together, and a message has one shadow at most"
    for name in value.get("checks") or ():
        yield from _known(document, ["checks", name], name, models)


def _model(document: Document, name: str, given: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    at = ["models", name]
    task = given.get("task")
    entry = find_task(task) if task else None
    if task and entry is None:
        near = difflib.get_close_matches(task, [*TASKS, *ALIASES], 1)
        way_out = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(TASKS))}"
        yield document.line([*at, "task"]), f"models.{name}.task: {task!r} is no task; {way_out}"
    if "endpoint" in given and entry is not None and entry.shape is None:
        yield document.line([*at, "task"]), f"models.{name}.task: no endpoint can be asked for {task}"
    hub = "endpoint" not in given and not given["model"].startswith(("gs://", "/", ".", "~"))
    if given.get("revision") and not hub:
        yield document.line([*at, "revision"]), f"models.{name}.revision: only a model of the hub has revisions"


def _known(document: Document, path: list[Any], name: str, models: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    if name not in models:
        near = difflib.get_close_matches(name, list(models), 1)
        way_out = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(models)}"
        line = document.line([*path, name])
        yield line, f"{'.'.join(str(each) for each in path)}: no model is named {name!r}; {way_out}"


def _expression(document: Document, path: list[Any], given: str | None) -> Iterator[tuple[int, str]]:
    if given is None:
        return
    try:
        jmespath.compile(given)
    except Exception as error:  # noqa: BLE001 (its parser lets through errors of other kinds than its own)
        words = " ".join(str(error).split()) or type(error).__name__
        where = ".".join(str(each) for each in path)
        yield document.line(path), f"{where}: {given!r} is not a JMESPath expression ({words[:200]})"
