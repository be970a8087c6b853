"""What a library's user imports: five names, each at its first use, typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import transforms

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    """What a fresh interpreter prints for ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_costs_nothing() -> None:
    """Neither torch nor Beam is loaded with the package, and torch not with the records either."""
    code = (
        "import sys, transforms; print(*({'torch', 'transformers', 'apache_beam'} & sys.modules.keys()));"
        "transforms.Request, transforms.Prediction, transforms.Failure; print('torch' in sys.modules)"
    )
    assert run(code) == "False"


def test_every_name_is_what_its_module_has() -> None:
    """Each exported name is the class of that name, in ``dir`` too, and another is an ordinary AttributeError."""
    for name in transforms.__all__:
        assert getattr(transforms, name).__name__ == name and name in dir(transforms)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        transforms.Nothing  # noqa: B018


def test_an_endpoint_is_asked_without_transformers() -> None:
    """The handler for endpoints comes without the library for weights."""
    assert (
        run("import sys; from transforms import EndpointModelHandler; print('transformers' in sys.modules)") == "False"
    )


def test_the_package_says_that_it_is_typed() -> None:
    """PEP 561's marker is there, so that a user's type checker reads the annotations."""
    assert (Path(transforms.__file__).parent / "py.typed").is_file()
