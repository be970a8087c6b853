"""The flex template's metadata, made from the flags: ``python -m pipeline.metadata > templates/flex/metadata.json``.

Format: https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates#metadata
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.options import FLAGS, Flag, help_text

#: The kinds of field that the console's form knows better than text.
_KINDS = {
    "input_subscription": "PUBSUB_SUBSCRIPTION",
    "output_topic": "PUBSUB_TOPIC",
    "dead_letter_topic": "PUBSUB_TOPIC",
    "audit_table": "BIGQUERY_TABLE",
    "summary_table": "BIGQUERY_TABLE",
}


def metadata() -> dict[str, Any]:
    """The template's metadata with one parameter a flag, in the order of the flags."""
    return {
        "name": "Streaming Hugging Face inference",
        "description": "Pub/Sub messages through a Hugging Face model to a result topic, with dead letters and one "
        "BigQuery audit row a message.",
        "streaming": True,
        "supportsAtLeastOnce": True,
        "supportsExactlyOnce": True,
        "defaultStreamingMode": "EXACTLY_ONCE",
        "parameters": [parameter(flag) for flag in FLAGS],
    }


def parameter(flag: Flag) -> dict[str, Any]:
    """``flag`` as a template parameter."""
    about: dict[str, Any] = {
        "name": flag.name,
        "label": flag.name.replace("_", " ").capitalize(),
        "helpText": help_text(flag),
        "groupName": flag.group,
        "isOptional": not flag.required,
        "paramType": _KINDS.get(flag.name, "ENUM" if flag.choices else "TEXT"),
    }
    if flag.choices:
        about["enumOptions"] = [{"value": choice, "label": choice} for choice in flag.choices]
    if flag.default is not None:
        about["defaultValue"] = flag.default
    pattern = flag.regex or getattr(flag.parse, "pattern", None)
    if pattern:
        # The service's regular expressions know no look-ahead; the job itself still refuses what it would have.
        about["regexes"] = [f"^({pattern.replace('(?!goog)', '')})$"]
    return about


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2, ensure_ascii=False))
