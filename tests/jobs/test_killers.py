"""One message among a thousand that ends the process which answers it: the whole job, started again as by systemd."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from restarts import Restarted, restarted
from streams import collect, fresh, text_message

from pipeline.publish import publish_all

pytestmark = pytest.mark.usefixtures("servers")

CGROUP = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def small_memory(megabytes: int) -> Iterator[Path]:
    """A control group whose processes the kernel's out-of-memory killer ends above ``megabytes``."""
    group = CGROUP / f"test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
    except OSError:
        pytest.skip("a memory limit needs root and control groups")
    try:
        yield group
    finally:
        group.rmdir()


def check(killer: str, lives: Restarted, resources, ids: list[str]) -> None:
    """Of ``ids`` the killer at 617 is a dead letter after two deaths, and all others are results, each with its row."""
    ledger = collect(resources, len(ids), 900)
    assert set(ledger.ended()) == set(ids), (lives.codes, lives.words()[-3_000:])
    letters = {each.attributes["dead_letter_message_id"]: each.attributes for each in ledger.dead_letters}
    assert set(letters) == {ids[617]}
    notes = letters[ids[617]]
    assert (notes["dead_letter_stage"], notes["dead_letter_error_type"]) == ("predict", "KilledWorker")
    statuses = {row["message_id"]: (row["status"], row["error_type"]) for row in ledger.rows}
    assert Counter(statuses.values()) == {("ok", None): len(ids) - 1, ("dead_letter", "KilledWorker"): 1}
    assert statuses[ids[617]] == ("dead_letter", "KilledWorker")
    assert len(lives.codes) == 2, (lives.codes, lives.words()[-3_000:])
    assert lives.drain() == 0, lives.words()[-3_000:]


@pytest.mark.parametrize(
    "killer",
    [
        "segfault",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("kill", "abort", "exit", "hang", "spin", "memory")),
    ],
)
def test_one_killer_among_a_thousand(killer: str, tmp_path: Path) -> None:
    """The job dies twice of it, and then there are 999 results, one KilledWorker, and a row for each."""
    resources = fresh("killer")
    texts = [f"order number {n}" for n in range(1_000)]
    texts[617] = f"killer: {killer}"
    ids = publish_all(resources.input_topic, [text_message(text) for text in texts])
    flags = [*resources.flags(), f"--model={tiny_models.sentiment()}", "--task=text-classification"]
    if killer in ("hang", "spin"):
        flags.append("--max_forward_s=10")
    with contextlib.ExitStack() as stack:
        limited = None
        if killer == "memory":
            group = stack.enter_context(small_memory(3_000))
            limited = (group / "cgroup.procs").write_text
        lives = stack.enter_context(
            restarted(flags, tmp_path / "log", tmp_path / "journal", started=lambda pid: limited and limited(str(pid)))
        )
        check(killer, lives, resources, ids)
