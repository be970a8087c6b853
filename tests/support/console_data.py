"""What the console's tests put on the topics: results and dead letters as a job publishes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from streams import text_message

from pipeline import clients, publish
from transforms.dead_letter import restore
from transforms.records import Message

#: Gives a test the console as a process of its own, to halt or to end.
OWN_PROCESS = pytest.mark.parametrize("console", ["process"], indirect=True)


def flags_of(resources: Any) -> list[str]:
    """The console's flags that name the topics and the table of ``resources``."""
    table = resources.audit_table
    return [
        f"--input_topic={resources.input_topic}",
        f"--output_topic={resources.output_topic}",
        f"--dead_letter_topic={resources.dead_letter_topic}",
        f"--audit_table={table.project}:{table.dataset}.{table.table}",
    ]


def view(page: Any, name: str) -> None:
    page.click(f"nav a[data-view='{name}']")


def go(page: Any, address: str) -> None:
    """As if the address had been typed behind the page's #."""
    page.evaluate("to => { location.hash = to; }", address)


def result(message_id: str, prediction: Any, **attributes: str) -> Message:
    body = {"message_id": message_id, "prediction": prediction, "processed_time": "2026-01-31T12:00:00.000000Z"}
    return Message(json.dumps(body).encode(), {"message_id": message_id, "task": "text-classification", **attributes})


def publish_results(resources: Any, texts: Sequence[str], start: int = 0) -> list[str]:
    """Inputs and their results, as a job would publish them; each is labelled with itself."""
    inputs = [text_message(text, number=str(start + n)) for n, text in enumerate(texts)]
    ids = publish.publish_all(resources.input_topic, inputs)
    results = [result(each, [{"label": text[:40], "score": 0.5}]) for each, text in zip(ids, texts, strict=True)]
    publish.publish_all(resources.output_topic, results)
    return ids


def letter(message_id: str, body: bytes = b'{"inputs": 7}', own: dict[str, str] | None = None, **notes: str) -> Message:
    """A dead letter as the job publishes it; ``notes`` are without their prefix."""
    told = {"stage": "predict", "error_type": "Odd", "error": "because", "attempt": "1", **notes}
    told["message_id"] = message_id
    return Message(body, {**(own or {}), **{f"dead_letter_{key}": value for key, value in told.items()}})


def fail(resources: Any, *letters: Message) -> None:
    publish.publish_all(resources.dead_letter_topic, list(letters))


def fail_again(letter: Message, new_id: str) -> Message:
    """The dead letter of a replay of ``letter``, which was published as ``new_id``."""
    again = restore(letter, clients.LIMITS)
    notes = {key.removeprefix("dead_letter_"): value for key, value in letter.attributes.items()}
    own = {key: value for key, value in again.attributes.items() if not key.startswith("dead_letter_")}
    first = again.attributes["dead_letter_first_message_id"]
    told = {key: notes[key] for key in ("stage", "error_type", "error")}
    made = {**told, "attempt": str(int(notes["attempt"]) + 1), "first_message_id": first, "message_id": new_id}
    return Message(letter.data, {**own, **{f"dead_letter_{key}": value for key, value in made.items()}})
