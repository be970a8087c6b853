"""Resources as the API has them: what of one is shown, how one is changed, and which version it is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pipeline.emulators.bigquery.errors import BigQueryError
from pipeline.emulators.bigquery.methods import Request


def selected(fields: Sequence[Mapping[str, Any]], wanted: set[str]) -> list[Mapping[str, Any]]:
    """The columns named, ``a.b`` being the field b of the record a."""
    found = []
    for field in fields:
        name = field["name"].lower()
        inner = {path[len(name) + 1 :] for path in wanted if path.startswith(f"{name}.")}
        if name in wanted:
            found.append(field)
        elif inner:
            found.append({**field, "fields": selected(field.get("fields") or (), inner)})
    return found


def only(keys: tuple[str, ...], resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key in keys}


def merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with ``changes``, objects within objects too: labels not named stay. A null removes."""
    result = dict(old)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return {key: value for key, value in result.items() if value is not None}


def replacing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that make ``new`` of ``old``: what it does not name goes, labels one by one."""
    kept = ("schema", "view", "creationTime")
    gone = {key: None for key in old if key not in new and key not in kept}
    labels = dict.fromkeys(set(old.get("labels") or {}) - set(new.get("labels") or {}))
    return {**gone, **new, **({"labels": {**labels, **new["labels"]}} if new.get("labels") else {})}


def stamped(resource: Mapping[str, Any], created: bool = False) -> dict[str, Any]:
    now = str(time.time_ns() // 1_000_000)
    return {**resource, **({"creationTime": now} if created else {}), "lastModifiedTime": now}


def etag(resource: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)).hexdigest()[:22]


def check_etag(resource: Mapping[str, Any], request: Request) -> None:
    if request.if_match not in (None, "*", etag(resource)):
        raise BigQueryError("conditionNotMet", "Precondition check failed.")
