"""Each of tests/cases that concerns a whole job: it is refused in one line, or lives on and ends every message."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from failing_messages import case, message
from fake_job import fake_job
from streams import CASES, collect, fresh, text_message

from pipeline.publish import publish_all
from transforms.records import Message

pytestmark = pytest.mark.usefixtures("servers")

#: What fits an expression of a case, so that its neighbours have an answer.
_NEIGHBOURS = {
    "jmespath-ceil": {"n": "1.5"},
    "jmespath-compares-text-and-number": {"items": [{"score": 9, "text": "a"}]},
    "jmespath-contains": {"text": "abc", "code": "a"},
    "jmespath-max_by": {"items": [{"s": 1}, {"s": 2}]},
    "jmespath-merge": {"a": {}},
}


def _flags(name: str) -> list[str]:
    """The case's flags, without what is only noted beside them."""
    return [flag.split(" ")[0] if "input_path" not in flag else flag for flag in case(name)["flags"] if "…" not in flag]


def _named(with_flags: bool) -> list[str]:
    files = sorted(path.stem for path in CASES.glob("*.json"))
    return [name for name in files if ("flags" in case(name)) == with_flags and "data_base64" in case(name)]


def _neighbours(name: str) -> list[Message]:
    if name not in _NEIGHBOURS:
        return [text_message(f"neighbour {n}") for n in range(3)]
    return [Message(json.dumps(_NEIGHBOURS[name]).encode())] * 3


@pytest.mark.parametrize("name", _named(with_flags=True))
def test_with_its_flags(name: str, tmp_path: Path) -> None:
    """A launch that is refused takes no message; otherwise the message ends alone, its neighbours reach the model."""
    resources = fresh("case")
    ids = publish_all(resources.input_topic, [*_neighbours(name), message(name), *_neighbours(name)])
    flags = [*resources.flags(), *_flags(name)]
    with fake_job(flags, tmp_path / "log") as job:
        if "window=fixed:9999" in " ".join(flags):
            assert job.wait(60) == 2
            assert [line for line in job.words().splitlines() if "error" in line] == [job.words().strip()]
            return
        ledger = collect(resources, len(ids), 120)
        assert job.drain() == 0, job.words()
    assert ledger.ended() == ledger.audited() == Counter(ids)
    stages = {
        each.attributes["dead_letter_message_id"]: each.attributes["dead_letter_stage"] for each in ledger.dead_letters
    }
    # What some of these expressions pick is a number, which the fake model refuses: all but the case gets so far.
    assert [key for key, stage in stages.items() if stage == "decode"] == ids[3:4] * name.startswith("jmespath")
    assert name.startswith("jmespath") or not stages


def test_those_without_flags_together(tmp_path: Path) -> None:
    """One job takes them all, between healthy messages."""
    resources = fresh("cases")
    names = _named(with_flags=False)
    ids = publish_all(
        resources.input_topic, [one for name in names for one in (message(name), text_message(f"after {name}"))]
    )
    with fake_job([*resources.flags(), "--audit_input=full"], tmp_path / "log") as job:
        ledger = collect(resources, len(ids), 120)
        assert job.drain() == 0, job.words()
    assert ledger.ended() == ledger.audited() == Counter(ids)
    assert set(ids[1::2]) <= {each.attributes["message_id"] for each in ledger.results}
