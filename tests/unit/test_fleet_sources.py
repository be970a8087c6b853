"""Where models come from, followed: a branch of the hub that moves, a bucket's folder that is exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import tiny_models as tiny
from model_stores import COMMIT, Hub, Storage, Store, serving
from models_desk import Desk, ask, retrain, said, variants

from transforms.records import Prediction

NEXT = "f" * 40


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A hub on loopback, online, with an empty cache."""
    with serving(Hub, tiny.sentiment()) as store:
        template = store.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": store.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A Cloud Storage on loopback, and an empty cache."""
    with serving(Storage, tiny.sentiment()) as store:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield store


def test_a_branch_that_moves_is_followed_where_the_file_says_so(desk: Desk, hub: Store) -> None:
    """The commit that the branch has now serves; another entry stays; a hub that is away changes nothing."""
    desk.write(
        "models:\n  follows: {model: acme/tiny, revision: main, refresh: true}\n  stays: {model: acme/tiny}\n"
        "serve:\n  - {when: \"attributes.use == 'stays'\", use: stays}\n  - {use: follows}\n"
    )
    fleet = desk.start()
    before = ask(fleet, {"use": "stays"}, {})
    retrain(desk.model("next"))
    hub.hold(str(desk.folder / "next"), NEXT)
    fleet.refresher.look()
    after = ask(fleet, {"use": "stays"}, {})
    assert [o.model.revision for o in after if o.model] == [COMMIT, NEXT]
    assert said(after[0]) == said(before[0]) and said(after[1]) != said(before[1])
    version = fleet.plan.version
    hub.close()
    fleet.refresher.look()
    assert fleet.plan.version == version and variants(ask(fleet, {})) == ["follows"]


def test_a_buckets_folder_is_followed_once_it_stands_still(desk: Desk, bucket: Store) -> None:
    """What is new there serves at the second look that finds it; loaded again it is the version before."""
    desk.write("models: {a: {model: 'gs://models/tiny'}}\n")
    fleet = desk.start()
    before = ask(fleet, {})
    retrain(desk.model("next"))
    bucket.hold(str(desk.folder / "next"))
    fleet.refresher.look()
    assert said(ask(fleet, {})[0]) == said(before[0])
    fleet.store.drop(fleet.plan.keys())
    (again,) = ask(fleet, {})
    assert isinstance(again, Prediction) and said(again) == said(before[0])
    fleet.refresher.look()
    (after,) = ask(fleet, {})
    assert said(after) != said(before[0]) and after.model and after.model.revision.startswith("gcs:")
