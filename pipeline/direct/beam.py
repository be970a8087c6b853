"""The Beam whose internals this package leans on; looked at before any of them is imported."""

from __future__ import annotations

import apache_beam

from pipeline.flags import UsageError

#: pyproject.toml asks for the same.
WRITTEN_FOR = "2.77"


def require() -> None:
    """Lets a launch on this machine through with the Beam that the source here was written for.

    Beam's own source would run with any, but it acknowledges messages before they are processed: a crash loses them.

    Raises:
        UsageError: another Beam is installed.
    """
    found = apache_beam.__version__
    if not found.startswith(f"{WRITTEN_FOR}."):
        raise UsageError(
            f"apache-beam {found}: a job on this machine reads with a source written for {WRITTEN_FOR}, and Beam's own "
            f"would lose messages in a crash; pip install 'apache-beam[gcp]~={WRITTEN_FOR}.0'"
        )
