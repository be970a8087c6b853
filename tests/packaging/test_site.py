"""The site that is made of docs/: every page is in its menu, and every link of every page leads somewhere."""

from __future__ import annotations

import logging

import pytest
import yaml
from mkdocs.commands import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, PluginError
from streams import ROOT


def make(site, docs=ROOT / "docs", **more) -> list[str]:
    """Builds the pages of ``docs`` as `make docs` does; returns what was printed."""
    printed: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                printed.append(record.getMessage())

    lines = Lines()
    logging.getLogger("mkdocs").addHandler(lines)
    try:
        build.build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(site), **more))
    finally:
        logging.getLogger("mkdocs").removeHandler(lines)
    return printed


def test_the_site_is_built_and_every_link_leads_somewhere(tmp_path):
    """The build, which is strict, has nothing to say; files outside docs/ are linked to where the sources are."""
    assert make(tmp_path, repo_url="https://example.com/me/it") == []
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    made = {page.parent.relative_to(tmp_path).as_posix() for page in tmp_path.rglob("index.html")}
    assert {page.removesuffix("/README").replace("index", ".") for page in pages} == made
    audit = (tmp_path / "audit" / "index.html").read_text("utf-8")
    assert 'href="https://example.com/me/it/blob/main/transforms/records.py"' in audit


@pytest.mark.parametrize(
    "text", ["[x](models.md#no-such-heading)", "[x](gone.md)", "![x](images/gone.png)", "[x](../gone.py)"]
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, text):
    """Whatever it was to lead to: a heading, a page, a picture, a file of the sources."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# A page\n\n{text}\n", "utf-8")
    (docs / "models.md").write_text("# Models\n", "utf-8")
    nav = [{"a": "index.md"}, {"b": "models.md"}]
    with pytest.raises((Abort, PluginError)):
        make(tmp_path / "site", docs, nav=nav, theme={"name": "mkdocs"}, plugins=[])


def test_ci_builds_it():
    """As everybody does."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text("utf-8"))
    assert "make docs" in [step.get("run") for step in workflow["jobs"]["site"]["steps"]]
