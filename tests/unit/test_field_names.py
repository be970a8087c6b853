"""Errors name what their reader can set: a library's user reads fields, a user of the program flags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import transforms
from pipeline.handlers import as_flags
from pipeline.main import main
from transforms.models.errors import ModelLoadError, foreign

FLAGS = [
    "--input_subscription=projects/my-project/subscriptions/input",
    "--output_topic=projects/my-project/topics/out",
]


def test_no_flag_is_named_in_transforms() -> None:
    """The package knows no flags: not in a message, not in a comment, not in a column's description."""
    for path in Path(transforms.__file__).parent.rglob("*.py"):
        found = re.findall(r"(?<![-\w])--[a-z]\w*", path.read_text("utf-8"))
        assert not found, f"{path}: {found}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`device=tpu`: must be auto", "--device=tpu: must be auto"),
        ("`model=a b`: give `task`", "--model=a b: give --task"),
        ("`parameters`: parameters.top_k: no", "--inference_params: parameters.top_k: no"),
        ("`token=env:X`: empty", "--hf_token_source=env:X: empty"),
        ("fetch it with `hf download`, `motor=x`", "fetch it with `hf download`, `motor=x`"),
    ],
)
def test_fields_become_flags(text: str, shown: str) -> None:
    """What stands in backquotes and is a flag's field becomes the flag, value and all; nothing else changes."""
    assert as_flags(ModelLoadError(text)) == shown


def test_a_servers_words_are_never_taken_for_a_field() -> None:
    """A server that quotes `model` in backquotes is shown as it spoke, and not as a flag of ours."""
    assert as_flags(ModelLoadError(f"`endpoint=u`: {foreign('422: `model` is missing')}")) == (
        "--endpoint=u: 422: 'model' is missing"
    )


def test_the_program_names_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A wrong model ends a launch with one line that names the flag to change."""
    code = main([*FLAGS, "--dead_letter_topic=projects/my-project/topics/dead", f"--model={tmp_path / 'nowhere'}"])
    assert code == 2
    assert f"error: --model={tmp_path}/nowhere: no such folder" in capsys.readouterr().err
