"""The tasks for texts through the whole job, and a chain whose second job reads what the first one's answer holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import streams
import tiny_models as tiny
import tiny_writers as writers
from streams import collect, drain, fresh, job

from pipeline.publish import publish_all as publish
from transforms.records import Message

SCHEMA = {
    "type": "object",
    "properties": {"text": {"enum": ["good order", "bad order"]}},
    "required": ["text"],
    "additionalProperties": False,
}
RANK = {"query": "where is my order", "texts": ["the order was late", "thank you"]}


def body(inputs: Any, **parameters: Any) -> Message:
    return Message(json.dumps({"inputs": inputs, "parameters": parameters}).encode(), {"kind": str(type(inputs))})


@pytest.mark.parametrize(
    ("make", "task", "good", "bad", "key"),
    [
        pytest.param(
            *(writers.t5, "summarization", body("the order was late"), body(""), "summary_text"), marks=pytest.mark.slow
        ),
        pytest.param(
            *(writers.bart, "text2text-generation", body("my order"), body("x", tgt_lang="de"), "generated_text"),
            marks=pytest.mark.slow,
        ),
        (writers.marian, "translation", body("my order", max_new_tokens=5), body(["a"]), "translation_text"),
        (writers.ranker, "text-ranking", body(RANK), body({"query": "x", "texts": []}), "score"),
    ],
    ids=["T5", "BART", "Marian", "cross-encoder"],
)
def test_a_task_through_the_whole_job(
    servers: Any, tmp_path: Any, make: Callable[[], str], task: str, good: Message, bad: Message, key: str
) -> None:
    """Each good message is a result of its task, each bad one a dead letter with its reason, and each has its row."""
    resources = fresh("tasks")
    publish(resources.input_topic, [good, bad, good])
    flags = (f"--model={make()}", f"--task={task}", "--result_input=inputs", "--dtype=float32")
    with job(resources, *flags, log=tmp_path / "log") as process:
        ledger = collect(resources, 3, timeout=400)
        assert drain(process, timeout=400) == 0, (tmp_path / "log").read_text()[-2000:]
    assert len(ledger.results) == 2 and len(ledger.dead_letters) == 1
    for result in ledger.results:
        found = json.loads(result.data)
        assert found["task"] == task and key in found["prediction"][0], found
        assert found["inputs"] == json.loads(good.data)["inputs"]
    reason = ledger.dead_letters[0].attributes["dead_letter_error_type"]
    assert reason in ("InvalidInput", "InvalidParameter") and ledger.audited() == ledger.ended()


def test_a_chain_reads_the_parsed_field(servers: Any, tmp_path: Any) -> None:
    """The first job writes an object by a schema; the second classifies a field of it, and keeps the whole of it."""
    first, second = fresh("writes"), fresh("reads")
    subscription = second.input_subscription + "-chained"
    streams.setup.create_topic(first.output_topic, subscription)
    given = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "max_new_tokens": 60}
    publish(first.input_topic, [body(tiny.text_of(3, seed), do_sample=False, **given) for seed in range(4)])
    writing = (f"--model={tiny.causal()}", "--task=text-generation", "--dtype=float32")
    reading = (f"--model={tiny.sentiment()}", "--input_path=prediction[0].parsed.text", "--result_input=body")
    others = [flag for flag in second.flags() if not flag.startswith("--input_subscription")]
    with (
        job(first, *writing, log=tmp_path / "first") as one,
        job(
            second,
            *others,
            f"--input_subscription={subscription}",
            *reading,
            "--dtype=float32",
            log=tmp_path / "second",
            resource_flags=False,
        ) as other,
    ):
        ledger = collect(second, 4, timeout=500)
        assert drain(one, timeout=400) == 0 and drain(other, timeout=400) == 0
    assert len(ledger.results) == 4, (tmp_path / "second").read_text()[-2000:]
    for result in ledger.results:
        found = json.loads(result.data)
        parsed = found["body"]["prediction"][0]["parsed"]
        assert parsed["text"] in ("good order", "bad order") and found["prediction"][0]["label"]
        assert result.attributes["origin_message_id"] == found["body"]["message_id"]
