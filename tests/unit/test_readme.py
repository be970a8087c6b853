"""The README says what is true: its flags, its commands, its links, its messages."""

from __future__ import annotations

import dataclasses
import functools
import json
import re

import pytest
from streams import ROOT

from pipeline import metadata
from pipeline.emulators.setup import Resources
from transforms.decode import decode
from transforms.records import Message

README = (ROOT / "README.md").read_text("utf-8")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_flags_table_is_the_options():
    """Every flag is in the README as it is in pipeline/options.py: what the command would write is there."""
    assert metadata.written()[ROOT / "README.md"] == README, "run: python -m pipeline.metadata --write"


def test_one_command_writes_both(tmp_path, monkeypatch, capsys):
    """--write renews README's table and the template's metadata in place, and nothing around them."""
    (tmp_path / "templates" / "flex").mkdir(parents=True)
    start, end = README.index("| Messages | default"), README.index("<!-- end of flags -->")
    (tmp_path / "README.md").write_text(README[:start] + "| stale |\n" + README[end:], "utf-8")
    write = functools.partial(metadata.written, tmp_path)
    monkeypatch.setattr(metadata, "written", write)
    assert metadata.main(["--write"]) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == README
    made = (tmp_path / "templates" / "flex" / "metadata.json").read_text("utf-8")
    assert made == (ROOT / "templates" / "flex" / "metadata.json").read_text("utf-8")
    (tmp_path / "README.md").write_text("no markers", "utf-8")
    assert metadata.main(["--write"]) == 2
    assert "has no table of flags" in capsys.readouterr().err


def test_the_commands_exist():
    """Every make target and module that the README or a page of docs/ names is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in DOCS:
        text = page.read_text("utf-8")
        assert set(re.findall(r"`?make ([a-z-]+)[ `\n]", text)) - {"it", "sure"} <= targets, page
        for module in re.findall(r"python -m ((?:pipeline|transforms|benchmarks)[\w.]*)", text):
            path = ROOT / module.rstrip(".").replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), (page, module)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every relative link is a file or folder of the project."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_example_message_decodes():
    """The body shown for JSON is one that the pipeline reads."""
    body = re.search(r'`(\{"inputs".*?\}\})`', README).group(1)
    assert decode(Message(body.encode())).parameters == {"top_k": 3}


def test_the_example_result_is_json():
    """The result shown parses and has the documented fields."""
    example = re.search(r"```json\n(.*?)```", README, re.S).group(1)
    assert list(json.loads(example))[0] == "schema_version"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_examples_are_whole_and_of_one_set_of_names(page):
    """None leaves a part to be guessed; topics, subscriptions and tables have the names that Terraform gives them."""
    text = page.read_text("utf-8")
    for block in re.findall(r"^```\w+\n(.*?)^```", text, re.M | re.S):
        assert "…" not in block, block
    table = Resources.named("my-project").audit_table
    names = {name.rpartition("/")[2] for name in dataclasses.astuple(Resources.named("my-project"))[:-1]}
    for name in re.findall(r"projects/my-project/(?:topics|subscriptions)/([\w-]+)", text):
        assert any(name == ours or name.startswith(f"{ours}-") for ours in names), name
    for dataset in re.findall(r"my-project[:.](\w+)\.(?:audit|inputs|summary)\b", text):
        assert dataset == table.dataset


def test_no_page_names_a_machine():
    """No path of somebody's machine is in the docs."""
    for page in DOCS:
        assert not re.search(r"/(home|root|Users|work|tmp)/", page.read_text("utf-8")), page
