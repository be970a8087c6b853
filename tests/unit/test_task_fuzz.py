"""Messages that nobody should send, against the real tiny model of every task, through the job's own steps."""

from __future__ import annotations

import pytest
import task_fuzz


@pytest.mark.parametrize("audit_input", ["full", "hash"])
@pytest.mark.parametrize("task", list(task_fuzz.MODELS))
def test_every_message_ends_once_with_its_row(task: str, audit_input: str) -> None:
    """Sixty messages: each one outcome, one row, nothing that a topic refuses, and no error that nobody foresaw."""
    ended, causes = task_fuzz.run(task, 60, seed=11, audit_input=audit_input)
    assert sum(ended.values()) == 60
    assert not causes
