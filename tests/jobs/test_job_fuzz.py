"""Messages that nobody should send, through the whole job with a task's real tiny model and with every kind of flag."""

from __future__ import annotations

from pathlib import Path

import job_fuzz
import pytest

pytestmark = pytest.mark.usefixtures("servers")


@pytest.mark.parametrize("task", ["text-classification", "zero-shot-image-classification", "question-answering"])
def test_every_message_is_accounted_for(task: str, tmp_path: Path) -> None:
    """Of 150 messages each ends once, unchanged, with its row, and none as what nobody foresaw; the job lives on."""
    ended, causes = job_fuzz.run(job_fuzz.Lane.drawn(task, seed=3), 150, 3, tmp_path)
    assert not causes and sum(ended.values())
