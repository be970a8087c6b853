"""What the models file may hold, as a JSON schema: https://json-schema.org/draft/2020-12/schema"""

from __future__ import annotations

from typing import Any

from transforms.models.backends import ENGINES
from transforms.models.spec import DEVICES, DTYPES, ON_TOO_LONG

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_SECONDS: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}
_SHARE: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}

#: A model's name is a value of an attribute, of a column, and part of a metric's name.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"


def _object(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


#: Weights on the worker; what stands beyond the first line has the flag of its name as its default.
_WEIGHTS = _object(
    {
        **{"model": _TEXT, "revision": _TEXT, "task": _TEXT, "parameters": {"type": "object"}},
        "refresh": {"type": "boolean"},
        "unload_first": {"type": "boolean"},
        "engine": {"enum": ["auto", *ENGINES]},
        "device": {"enum": list(DEVICES)},
        "dtype": {"enum": list(DTYPES)},
        "on_too_long": {"enum": list(ON_TOO_LONG)},
        "max_batch_size": _COUNT,
        "max_batch_tokens": _COUNT,
        "time_limit_s": _SECONDS,
        "max_forward_s": _SECONDS,
    },
    ("model",),
)

#: A remote endpoint; beyond the first line its keys are the settings of an endpoint.
_ENDPOINT = _object(
    {
        **{"endpoint": _TEXT, "model": _TEXT, "task": _TEXT, "parameters": {"type": "object"}},
        "on_too_long": {"enum": list(ON_TOO_LONG)},
        "auth": {"enum": ["hf", "google", "google-id", "none"]},
        "impersonate": _TEXT,
        "timeout_s": _SECONDS,
        "max_wait_s": _SECONDS,
        "concurrency": {**_COUNT, "maximum": 1024},
        "requests_per_s": {"type": "number", "exclusiveMinimum": 0},
        "tokens_per_min": _COUNT,
        "hedge_after_s": _SECONDS,
        "cache_mib": _COUNT,
    },
    ("endpoint", "task"),
)

_RULE = {
    "if": {"type": "object", "required": ["split"]},
    "then": _object(
        {
            "when": _TEXT,
            "split": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "number", "minimum": 0}},
            "by": _TEXT,
        }
    ),
    "else": _object({"when": _TEXT, "use": _TEXT}, ("use",)),
}

SCHEMA: dict[str, Any] = _object(
    {
        "models": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {
                NAME: {
                    "if": {"type": "object", "required": ["endpoint"]},
                    "then": _ENDPOINT,
                    "else": _WEIGHTS,
                }
            },
            "additionalProperties": False,
        },
        "serve": {"type": "array", "minItems": 1, "items": _RULE},
        "shadow": {
            "type": "array",
            "items": _object({"model": _TEXT, "share": _SHARE, "when": _TEXT}, ("model", "share")),
        },
        "checks": {
            "type": "object",
            "additionalProperties": _object({"file": _TEXT, "at_least": _SHARE}, ("file",)),
        },
    },
    ("models",),
)
