"""What stands around the code agrees with it: versions, Pythons, the pages of decisions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from streams import ROOT

from pipeline import __version__

PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_workflow_runs_what_everybody_runs_on_every_python():
    """CI's matrix is the Pythons that pyproject.toml names, each runs .ci/run, and that checks before it tests."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT)
    assert job["strategy"]["matrix"]["python"] == named
    assert f'requires-python = ">={named[0]}"' in PYPROJECT
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.findall(r"^make (\w+)$", script, re.M) == ["check", "test"]


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", "mypy", "lint-imports", "deptry"])
def test_make_check_runs_every_gate(tool):
    """A gate that the recipe loses is missed here."""
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\ncheck:")[1].split("\n\n")[0]
    assert f"$(BIN)/{tool}" in recipe


def test_the_demo_installs_what_it_needs_and_shows_it(tmp_path):
    """Not everything; pip says how far it is; and where everything is there already, nothing is installed again."""

    def planned(folder: Path) -> str:
        command = ["make", "--dry-run", "demo", f"VENV={folder}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    first = planned(tmp_path / "first")
    assert '--editable ".[demo]"' in first and ".[dev]" not in first and "--quiet" not in first
    (tmp_path / ".ready-dev").touch()
    assert "pip install" not in planned(tmp_path)


def test_no_file_of_the_product_is_over_250_lines():
    """But the table of flags, which is a table."""
    files = [file for folder in ("pipeline", "transforms") for file in (ROOT / folder).rglob("*.py")]
    lines = {str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > 250}.keys() <= {"pipeline/options.py"}
    assert len(lines) > 150


def test_the_version_stands_once():
    """pyproject.toml takes it from the package, and the newest dated section of the changelog is not ahead of it."""
    assert 'version = { attr = "pipeline.__version__" }' in PYPROJECT
    assert __version__ not in PYPROJECT.split("[project.optional-dependencies]")[0]
    dated = re.findall(r"^## (\d+\.\d+\.\d+) – \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert dated[0] == __version__


def test_every_decision_is_listed_and_says_what_would_overturn_it():
    """The list has each page under its title, in order; each page has its decision and what would end it."""
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("0*.md"))
    listed = re.findall(r"\| \[(\d{4})\]\(([^)]+)\) \| (.*) \|", (folder / "README.md").read_text("utf-8"))
    titles = [page.read_text("utf-8").splitlines()[0] for page in pages]
    assert [(number, name, f"# {number}: {title}") for number, name, title in listed] == [
        (page.name[:4], page.name, title) for page, title in zip(pages, titles, strict=True)
    ]
    for page in pages:
        text = page.read_text("utf-8")
        assert "**Decided" in text and "**What would overturn it.**" in text, page.name


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md", "docs/decisions"])
def test_what_pages_name_is_there(page):
    """Files and folders in backquotes that begin at a top-level folder, and links, exist."""
    path = ROOT / page
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        text = file.read_text("utf-8")
        names = re.findall(r"`((?:pipeline|transforms|tests|templates|docs)/[\w./-]+)`", text)
        links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
        missing = [name for name in names if not (ROOT / name).exists()]
        missing += [link for link in links if not (file.parent / link).exists()]
        assert missing == [], file.name
