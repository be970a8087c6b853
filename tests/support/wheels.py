"""The built wheel in an environment of its own, without the checkout and without anything that it does not declare.

Nothing is downloaded: the packages that the wheel's metadata asks for, and those that these ask for, are linked in from
the environment that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from streams import ROOT

OURS = "beam-hf-inference"


def build(folder: Path, before: str | None = None) -> Path:
    """The wheel of this checkout, built in ``folder`` from a copy, so that nothing is left behind here.

    ``before`` is a file that the list of an earlier build, found in the copy, has.
    """
    source = copy(folder / "source")
    if before:
        (source / "beam_hf_inference.egg-info").mkdir()
        (source / "beam_hf_inference.egg-info" / "SOURCES.txt").write_text(f"{before}\n")
    return build_from(source, folder)


def copy(folder: Path) -> Path:
    """What of this checkout is built, in ``folder``."""
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("pipeline", "transforms"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build_from(source: Path, folder: Path) -> Path:
    """The wheel of ``source``, a folder or an archive, in ``folder``."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """An environment in ``folder`` with ``wheel`` and what it declares with ``extras``; returns its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    # A PYTHONPATH with the checkout in it would make pip take the wheel for installed.
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, timeout=300, env=environment())
    (site,) = (folder / "lib").glob("python*/site-packages")
    ours = metadata.Distribution.at(next(site.glob("beam_hf_inference-*.dist-info")))
    _link(_closure(ours.requires or [], extras), site)
    return python.parent


def environment(**more: str) -> dict[str, str]:
    """This process's variables without those that would lead to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONSAFEPATH": "1"} | more


def _closure(requirements: Iterable[str], extras: Iterable[str]) -> set[str]:
    """The distributions that ``requirements`` lead to here, by canonical name."""
    found: set[str] = set()
    done: set[tuple[str, str]] = set()
    asked = [(requirement, tuple(extras)) for requirement in requirements]
    own = list(requirements)
    while asked:
        text, wanted = asked.pop()
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": each}) for each in ("", *wanted)):
            continue
        name = canonicalize_name(requirement.name)
        if (name, key := ",".join(sorted(requirement.extras))) in done:
            continue
        done.add((name, key))
        if name == OURS:  # an extra that names others
            asked += [(each, tuple(requirement.extras)) for each in own]
            continue
        found.add(name)
        asked += [(each, tuple(requirement.extras)) for each in metadata.requires(name) or []]
    return found


def _link(names: set[str], site: Path) -> None:
    """Links the files of the distributions ``names`` into ``site``: whole folders where they are theirs alone."""
    wanted: set[tuple[str, ...]] = set()
    others: set[tuple[str, ...]] = set()
    for distribution in metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]):
        ours = canonicalize_name(distribution.metadata["Name"]) in names
        for file in distribution.files or []:
            if file.parts[0] == ".." or file.suffix == ".pth" or "__pycache__" in file.parts:
                continue
            if ours:
                wanted.add(file.parts)
            else:
                others.update(file.parts[:depth] for depth in range(1, len(file.parts)))
    root = Path(sysconfig.get_path("purelib"))
    for parts in {_top(parts, others) for parts in wanted}:
        link = site.joinpath(*parts)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(root.joinpath(*parts))


def _top(parts: tuple[str, ...], others: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The highest folder on the way to a file that is its distributions' alone, or the file."""
    return next((parts[:depth] for depth in range(1, len(parts)) if parts[:depth] not in others), parts)
