"""Every import is of a declared dependency, where deptry cannot tell: Google's packages share one top-level name."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import declared
from packaging.utils import canonicalize_name
from streams import ROOT

DECLARED = {canonicalize_name(each.name) for each in declared.requirements()}


def google_modules(file: Path) -> Iterator[str]:
    """The modules below ``google`` that a source file imports."""
    with tokenize.open(file) as source:
        tree = ast.parse(source.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        yield from (name for name in names if name.startswith("google."))


def origin(module: str) -> str | None:
    """The file of a module, relative to where packages are; None for a namespace, or what is no module."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, AttributeError):
        return None
    if spec is None or not spec.origin or spec.origin == "namespace":
        return None
    return str(Path(spec.origin).relative_to(sysconfig.get_path("purelib")))


def test_google_imports_are_declared():
    """Each module of Google's that the product imports is a file of a distribution that the base install names."""
    owners = {
        str(file): canonicalize_name(each.metadata["Name"])
        for each in metadata.distributions()
        for file in each.files or []
        if file.parts[0] == "google"
    }
    files = [each for folder in ("pipeline", "transforms") for each in (ROOT / folder).rglob("*.py")]
    found = {(module, str(file.relative_to(ROOT))) for file in files for module in google_modules(file)}
    imported = {(owners[path], module, file) for module, file in found if (path := origin(module))}
    assert {owner for owner, _, _ in imported} >= {"google-cloud-bigquery", "google-cloud-pubsub", "google-api-core"}
    assert [each for each in imported if each[0] not in DECLARED] == []
