"""What is written from the flags: README's table, and the flex template's metadata. ``--write`` renews both in place.

``python -m pipeline.metadata`` alone prints the metadata.

Format: https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates#metadata
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import flags
from pipeline.flags import Flag, UsageError, help_text
from pipeline.options import FLAGS

ROOT = Path(__file__).resolve().parents[1]
_BEGIN = "<!-- flags: written by python -m pipeline.metadata --write, checked by tests/unit/test_readme.py -->\n"
_END = "<!-- end of flags -->"
_ABOUT = "Prints the flex template's metadata, made from the flags of the job."
_FLAGS = (Flag("write", "write it to templates/flex/metadata.json, and the table of flags to README.md", switch=True),)

#: The kinds of field that the console's form knows better than text.
_KINDS = {
    "input_subscription": "PUBSUB_SUBSCRIPTION",
    "output_topic": "PUBSUB_TOPIC",
    "dead_letter_topic": "PUBSUB_TOPIC",
    "audit_table": "BIGQUERY_TABLE",
    "summary_table": "BIGQUERY_TABLE",
    "summary_topic": "PUBSUB_TOPIC",
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


def table() -> str:
    """The flags as the README shows them."""
    lines = []
    for group in dict.fromkeys(flag.group for flag in FLAGS):
        lines += [f"| {group} | default | |", "|---|---|---|"]
        for flag in (each for each in FLAGS if each.group == group):
            default = "required" if flag.required else f"`{flag.default}`" if flag.default else ""
            choices = f" (`{'`, `'.join(flag.choices)}`)" if flag.choices else ""
            lines.append(f"| `--{flag.name}` | {default} | {flag.help}{choices} |")
        lines.append("")
    return "\n".join(lines)


def written(root: Path = ROOT) -> dict[Path, str]:
    """The files of the checkout ``root`` that are made from the flags, as they should be.

    Raises:
        UsageError: ``root`` is no checkout.
    """
    readme = root / "README.md"
    before, begin, rest = readme.read_text("utf-8").partition(_BEGIN) if readme.is_file() else ("", "", "")
    _, end, after = rest.partition(_END)
    if not end:
        raise UsageError(f"--write: {readme} has no table of flags; run it in a checkout, whose README has its markers")
    return {
        readme: before + begin + table() + end + after,
        root / "templates" / "flex" / "metadata.json": json.dumps(metadata(), indent=2, ensure_ascii=False) + "\n",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes; returns the exit code: 0 done, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if flags.wants_help(argv):
        return flags.print_help("", "pipeline.metadata", _ABOUT, _FLAGS)
    try:
        if not flags.read(_FLAGS, argv)["write"]:
            print(json.dumps(metadata(), indent=2, ensure_ascii=False))
            return 0
        for file, text in written().items():
            file.write_text(text, "utf-8")
    except UsageError as error:
        return flags.wrong_usage(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
