"""A fuzz of the whole job with a task's tiny model: messages in, and the account of each."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import real_job
import task_fuzz
from fake_job import Behaviour, fake_job
from job_messages import made
from streams import Ledger, collect, fresh

from pipeline.options import FLAGS
from pipeline.publish import publish_all
from transforms.dead_letter import ATTEMPT, PREFIX
from transforms.models.task_table import TASKS
from transforms.records import Message

#: Values of the flags that touch a message, beside those that have choices; None leaves the flag out.
_VALUES: dict[str, tuple[str | None, ...]] = {
    "input_path": (
        *(None,) * 20,
        *("inputs", "inputs || @", "to_string(@)", "keys(@)[0]", "inputs[?score > `5`].text | [0]"),
        *("max_by(inputs, &s).s", "ceil(to_number(inputs))", "merge(@, inputs)", "contains(inputs, parameters)"),
        *("inputs[::0]", "join(`,`, inputs)", "sum(inputs[*])", "&inputs", "map(&abs(@), inputs)", "sort_by(@, &n)"),
    ),
    # The others are of topics with a schema.
    "input_format": ("auto", "auto", "auto", "json", "cloudevents"),
    "id_attribute": (None, "id", "ID"),
    "timestamp_attribute": (None, "ts", "ts", "ce-time"),
    "allowed_lateness": (None, "0", "60"),
    "window_early_s": (None, None, "1"),
    "window": ("fixed:60", "fixed:0.001", "fixed:316224000", "sliding:600:7", "session:3600", "global"),
    "max_batch_size": (None, "1", "7"),
    "max_batch_tokens": (None, "16", "64"),
    "max_batch_latency_ms": (None, "20"),
    "model_copies": ("1", "2"),
}
_TABLES = {"summary_table"}
#: Flags with choices that are about the machine.
_NOT_DRAWN = {"device", "dtype", "engine"}
#: Defaults for a task's messages, of those parameters that it has.
_PARAMETERS: dict[str, Any] = {
    "candidate_labels": ["good", "bad"],
    "hypothesis_template": "{} it is",
    "top_k": 2,
    "max_new_tokens": 2,
    "normalize": True,
    "aggregation_strategy": "simple",
    "threshold": 0.1,
    "function_to_apply": "none",
    "handle_impossible_answer": True,
    "return_timestamps": "char",
    "num_return_sequences": 1,
    "return_full_text": False,
}


@dataclasses.dataclass(frozen=True)
class Lane:
    """One job: a task's tiny model, and the flags that it runs with."""

    task: str
    flags: dict[str, str]

    @classmethod
    def drawn(cls, task: str, seed: int) -> Lane:
        """A lane of ``task``, the same one for a ``seed``."""
        random = Random(f"{seed}/{task}")
        choices = {flag.name: flag.choices for flag in FLAGS if flag.choices and flag.name not in _NOT_DRAWN}
        drawn = {name: random.choice(values) for name, values in {**choices, **_VALUES}.items()}
        if drawn["on_too_long"] == "chunk" and "chunk" not in TASKS[task].parameters:
            drawn["on_too_long"] = "truncate"
        known = {name: value for name, value in _PARAMETERS.items() if name in TASKS[task].parameters}
        # Generations are to be short in any case.
        kept = {name: known[name] for name in known if random.random() < 0.5 or name == "max_new_tokens"}
        if kept:
            drawn["inference_params"] = json.dumps(kept)
        if drawn["window"] != "global" and random.random() < 0.5:
            drawn["summary_table"] = "summary"
        return cls(task, {name: value for name, value in drawn.items() if value is not None})

    def arguments(self, dataset: str) -> list[str]:
        """The lane's flags as a command has them; its tables are in ``dataset``."""
        tables = [f"--{name}={dataset}.{value}" for name, value in self.flags.items() if name in _TABLES]
        model = [f"--model={task_fuzz.MODELS[self.task]()}", f"--task={self.task}", "--device=cpu", "--dtype=float32"]
        return model + tables + [f"--{name}={value}" for name, value in self.flags.items() if name not in _TABLES]


def run(lane: Lane, count: int, seed: int, folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Sends ``count`` messages through a job of ``lane``; returns how many ended how, and the causes of ``Unexpected``.

    Raises:
        AssertionError: a message ended not at all or twice, or without a row, or changed; or the job did not live on.
    """
    resources = fresh("fuzz")
    sent = made(lane.task, count, seed)
    table = resources.audit_table
    arguments = lane.arguments(f"{table.project}:{table.dataset}")
    environment = {"OMP_NUM_THREADS": "1", "BEAM_HF_JOURNAL": str(folder / "journal")}
    with fake_job([*resources.flags(), *arguments], folder / "log", Behaviour(), environment, real_job.run) as job:
        job.until_running()
        ids = publish_all(resources.input_topic, sent)
        groups = _groups(dict(zip(ids, sent, strict=True)), lane.flags.get("id_attribute"))
        ledger = collect(resources, len(groups), 600)
        assert job.alive, (lane, job.words()[-3_000:])
        ended, rows = ledger.ended(), ledger.audited()
        missing = [group for group in groups if not group & ended.keys()]
        assert not missing, (lane, len(missing), [sent[ids.index(next(iter(group)))] for group in missing[:3]])
        assert job.drain() == 0, (lane, job.words()[-3_000:])
    assert task_fuzz.MARK not in job.words(), (lane, "the log quotes a message")
    assert set(ended.values()) == {1}, "each message ends once"
    assert all(len(group & ended.keys()) == 1 for group in groups), "what is identified alike goes once"
    _check_rows(lane, ledger, rows, ended)
    _check_results(lane, ledger, dict(zip(ids, sent, strict=True)))
    letters = [letter.attributes for letter in ledger.dead_letters]
    types = Counter(each.get(f"{PREFIX}error_type", "?") for each in letters)
    causes = Counter(
        each.get(f"{PREFIX}error", "?") for each in letters if each.get(f"{PREFIX}error_type") == "Unexpected"
    )
    if "by halves" in job.words():
        causes["a step's own barrier did not hold: see halving.py"] += 1
    return types + Counter({"ok": len(ledger.results)}), causes


def _groups(sent: dict[str, Message], id_attribute: str | None) -> list[set[str]]:
    """The ids of ``sent``, with those together of which one is a repeat of the other."""
    found: dict[Any, set[str]] = {}
    for message_id, message in sent.items():
        own = message.attributes.get(id_attribute) if id_attribute else None
        key = message_id if not own else (message.attributes.get(ATTEMPT, ""), own)
        found.setdefault(key, set()).add(message_id)
    return list(found.values())


def _check_rows(lane: Lane, ledger: Ledger, rows: Counter[str], ended: Counter[str]) -> None:
    # A message whose result or row was refused has a second row that says so.
    assert rows.keys() == ended.keys(), (lane, "each has its row, and nothing else has")
    for row in ledger.rows:
        assert row["job"] and row["processed_time"] and row["status"] in ("ok", "dead_letter")
        assert len(row["error"] or "") <= 2_000
        assert lane.flags["audit_input"] == "full" or task_fuzz.MARK not in f"{row['error']} {row['input']}", row
        assert isinstance(row["attributes"] or {}, dict)


def _check_results(lane: Lane, ledger: Ledger, sent: dict[str, Message]) -> None:
    for result in ledger.results:
        body = json.loads(result.data, parse_constant=_no_number)
        assert body["message_id"] == result.attributes["message_id"]
        assert sent[body["message_id"]].ordering_key == result.ordering_key
    for letter in ledger.dead_letters:
        original = sent[letter.attributes["dead_letter_message_id"]]
        assert letter.data == original.data and letter.ordering_key == original.ordering_key
        own = {key: value for key, value in letter.attributes.items() if not key.startswith(PREFIX)}
        assert own == {key: value for key, value in original.attributes.items() if not key.startswith(PREFIX)}, lane


def _no_number(name: str) -> None:
    raise AssertionError(f"{name} in a result")


def lanes(seed: int, tasks: Sequence[str] = tuple(task_fuzz.MODELS)) -> list[Lane]:
    """A lane of each task."""
    return [Lane.drawn(task, seed) for task in tasks]
