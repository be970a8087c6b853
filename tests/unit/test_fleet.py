"""Several models in one step: who answers what, what changes while it runs, and what never serves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
from models_desk import TEXT, WEIGHTS, Desk, ask, checks, file, retrain, said, variants

from transforms.models.errors import ModelLoadError
from transforms.models.fleet.handler import ModelsHandler
from transforms.models.fleet.options import Options
from transforms.records import Failure, Message, Prediction, Request


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is packed: whether it pays is timed, and a model's size would be a matter of the moment."""
    monkeypatch.setattr("transforms.models.backends.torch.pack", lambda module, *_: 0)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_one_batch_holds_messages_of_many_models(desk: Desk) -> None:
    """Each is answered by the model of its rule, in its place, as that model alone answers; a message of none fails."""
    desk.write(file({"a": tiny.sentiment(), "b": tiny.topics()}))
    fleet = desk.start()
    outcomes = ask(fleet, {"use": "b"}, {"use": "a"}, {}, {"use": "b"}, {"use": "a"})
    assert variants(outcomes) == ["b", "a", None, "b", "a"]
    assert isinstance(outcomes[2], Failure) and outcomes[2].error_type == "NoRoute"
    labels = [[each["label"] for each in o.prediction] for o in outcomes if isinstance(o, Prediction)]
    assert {"billing", "delivery", "praise"} >= set(labels[0]) and {"negative", "neutral", "positive"} >= set(labels[1])
    assert {o.model.models_version for o in outcomes if o.model} == {fleet.plan.version}
    assert said(ask(fleet, {"use": "a"})[0]) == said(outcomes[1])
    told = fleet.told()
    assert told["models"]["a"]["messages"] == 3 and told["models_version"] == fleet.plan.version


def test_a_rule_that_raises_is_counted_and_said_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """By expression, with why, and not what the message holds; the message goes by the rules after it."""
    rules = "serve:\n  - {when: 'ceil(attributes.price)', use: a}\n  - {use: a}\n"
    desk.write(f"models: {{a: {{model: {json.dumps(tiny.sentiment())}}}}}\n{rules}")
    fleet = desk.start()
    assert variants(ask(fleet, {"price": "a secret"}, {"price": "another"}, {})) == ["a", "a", "a"]
    ask(fleet, {"price": "a secret"})
    why = "ceil() takes number, and got "
    (found,) = fleet.told()["rule_errors"].items()
    assert found == ("ceil(attributes.price)", {"errors": 4, "error": f"{why}string"})
    lines = [record.message for record in caplog.records if "ceil" in record.message]
    assert len(lines) == 1 and why in lines[0] and "secret" not in lines[0]
    assert fleet.answer([]).told["rule_errors"] == 0


def test_the_version_begins_as_the_files_own_hash(desk: Desk) -> None:
    """An auditor finds the file by ``sha256sum``; another revision in the same folder is another version."""
    import hashlib

    folder = desk.model("a")
    desk.write(file({"a": folder}, last="a"))
    first = desk.start().plan.version
    assert first.partition("-")[0] == hashlib.sha256(desk.file.read_bytes()).hexdigest()[:8]
    retrain(folder)
    second = desk.start().plan.version
    assert first != second and first.partition("-")[0] == second.partition("-")[0]


def test_what_no_rule_needs_is_loaded_at_its_first_use(desk: Desk) -> None:
    """What any message may get is in memory at the start; a model behind a condition, once it is asked."""
    desk.write(file({"a": tiny.sentiment(), "b": tiny.topics()}, last="a"))
    fleet = desk.start()
    assert len(fleet.store.sizes()) == 1
    assert variants(ask(fleet, {"use": "b"})) == ["b"] and len(fleet.store.sizes()) == 2


def test_three_models_under_a_bound_for_two(desk: Desk) -> None:
    """The one unused for longest goes; all answer, never more than the bound is held, and the loads are counted."""
    models = {name: desk.model(name) for name in "abc"}
    for seed, folder in enumerate(models.values()):
        retrain(folder, seed)
    desk.write(file(models))
    alone = desk.start()
    expected = {name: said(ask(alone, {"use": name})[0]) for name in "abc"}
    size = max(alone.store.sizes().values())
    fleet = desk.start(memory=int(2.5 * size))
    told: dict[str, int] = {}
    for name in "abacabcb":
        answers = fleet.answer([Request(TEXT, {}, Message(b"{}", {"use": name}, "m"))])
        assert said(answers.outcomes[0]) == expected[name]
        assert answers.loaded <= 2 and answers.loaded_bytes <= 2.5 * size
        for key, number in answers.told.items():
            told[key] = told.get(key, 0) + number
    # a, b, a; c for b; a; b for c; c for a; b.
    assert told == {"model_loads": 5, "model_unloads": 3}


def test_a_model_that_does_not_fit_alone_says_both_figures(desk: Desk) -> None:
    """At the start it is refused; behind a condition its messages are dead letters, and all others are answered."""
    desk.write(file({"a": tiny.sentiment()}, last="a"))
    with pytest.raises(ModelLoadError, match=r"model 'a'.*[\d,]+ bytes.*models may take 1,000 \(models_memory\)"):
        desk.start(memory=1000)
    desk.write(file({"a": tiny.sentiment()}))
    (outcome,) = ask(desk.start(memory=1000), {"use": "a"})
    assert isinstance(outcome, Failure) and outcome.error_type == "ModelUnavailable"
    assert "models may take 1,000" in outcome.error and outcome.model and outcome.model.variant == "a"


def test_a_new_file_takes_effect_between_two_batches(desk: Desk) -> None:
    """A model that is new is loaded and serves; one that is gone is given up, and its memory with it."""
    models = {"a": tiny.sentiment(), "b": tiny.topics()}
    desk.write(file({"a": models["a"]}, last="a"))
    fleet = desk.start()
    assert variants(ask(fleet, {"use": "b"})) == ["a"]
    desk.write(file(models, last="b"))
    fleet.refresher.look()
    assert variants(ask(fleet, {}, {"use": "a"})) == ["b", "a"]
    desk.write(file({"b": models["b"]}, last="b"))
    fleet.refresher.look()
    assert variants(ask(fleet, {"use": "a"})) == ["b"] and len(fleet.store.sizes()) == 1
    assert fleet.told()["refused"] is None


def test_a_model_goes_with_its_last_batch(desk: Desk) -> None:
    """A batch that is under way when its model is removed is answered by it, under the version that it began with."""
    desk.write(file({"a": tiny.sentiment(), "b": tiny.topics()}, last="a"))
    fleet = desk.start()
    began, go = threading.Event(), threading.Event()
    with fleet.using(fleet.plan.variants["a"]) as model:
        real = model.answer

        def slow(requests: Any) -> Any:
            began.set()
            assert go.wait(60)
            return real(requests)

        model.answer = slow
    before, found = fleet.plan.version, []
    batch = threading.Thread(target=lambda: found.extend(ask(fleet, {})))
    batch.start()
    assert began.wait(60)
    desk.write(file({"b": tiny.topics()}, last="b"))
    fleet.refresher.look()
    after = ask(fleet, {})
    assert variants(after) == ["b"] and len(fleet.store.sizes()) == 2
    go.set()
    batch.join(60)
    assert variants(found) == ["a"] and found[0].model.models_version == before != fleet.plan.version
    assert len(fleet.store.sizes()) == 1


def test_what_is_not_sound_never_serves(desk: Desk) -> None:
    """The whole file has no effect: the old models answer as before, the reason is told once, and mended it serves."""
    good, next_one = file({"a": tiny.sentiment()}, last="a"), desk.model("next")
    cut_off = desk.model("cut off")
    weights = Path(cut_off, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    desk.write(good)
    fleet = desk.start(memory=100_000_000)
    before, version = ask(fleet, {}), fleet.plan.version
    check = checks(desk, fleet, "a", wrong=True)
    models = {"a": tiny.sentiment(), "b": next_one}
    faults = {
        "models.yaml:1": "models: [",
        "nowhere": file({**models, "b": str(desk.folder / "nowhere")}, last="b"),
        "model.safetensors was cut off": file({**models, "b": cut_off}, last="b"),
        "0 of 3 checks hold": file(models, f"checks: {{b: {{file: {check}}}}}\n", "b"),
        "none.ndjson": file(models, "checks: {b: {file: none.ndjson}}\n", "b"),
        "does not fit beside": file(models, last="b"),
    }
    for words, bad in faults.items():
        fleet.store.most = 100_000_000
        if words == "does not fit beside":
            fleet.store.most = max(fleet.store.sizes().values()) + 1000
            ask(fleet, {})
        fleet.ledger.take()
        desk.write(bad)
        fleet.refresher.look()
        fleet.refresher.look()
        assert words in fleet.told()["refused"]["why"]
        assert fleet.ledger.take()["refused"] == 1
        assert fleet.plan.version == version and said(ask(fleet, {})[0]) == said(before[0])
    fleet.store.most = 100_000_000
    fleet.refresher.look()
    assert variants(ask(fleet, {})) == ["b"] and fleet.told()["refused"] is None


def test_a_check_that_fails_on_what_serves_leaves_it_serving(desk: Desk) -> None:
    """A stricter check of the model in force refuses the file, and not the model's messages."""
    good = file({"a": tiny.sentiment()}, last="a")
    desk.write(good)
    fleet = desk.start()
    desk.write(good + f"checks: {{a: {{file: {checks(desk, fleet, 'a', wrong=True)}}}}}\n")
    fleet.refresher.look()
    assert "0 of 3 checks hold" in fleet.told()["refused"]["why"]
    assert isinstance(ask(fleet, {})[0], Prediction)
    desk.write(good.replace("models:", "models:  # mended"))
    fleet.refresher.look()
    assert fleet.told()["refused"] is None and isinstance(ask(fleet, {})[0], Prediction)


def test_a_check_that_holds_lets_a_model_serve(desk: Desk) -> None:
    """Its share is told; a bound below what holds is enough."""
    folder = tiny.sentiment()
    desk.write(file({"a": folder}, last="a"))
    fleet = desk.start()
    check = checks(desk, fleet, "a")
    desk.write(file({"a": folder, "b": desk.model("b")}, f"checks: {{b: {{file: {check}, at_least: 1}}}}\n", "b"))
    fleet.refresher.look()
    assert variants(ask(fleet, {})) == ["b"] and fleet.told()["models"]["b"]["checks"] == 1.0


def test_a_folder_that_is_followed_serves_once_it_stands_still(desk: Desk) -> None:
    """Other weights in place are taken up at the second look that finds them, and checked first."""
    folder = desk.model("a")
    desk.write(f"models: {{a: {{model: {folder}, refresh: true}}}}\n")
    fleet = desk.start()
    before, version = ask(fleet, {}), fleet.plan.version
    retrain(folder)
    fleet.refresher.look()
    assert fleet.plan.version == version
    fleet.refresher.look()
    after = ask(fleet, {})
    assert fleet.plan.version != version and after[0].prediction != before[0].prediction  # type: ignore[union-attr]
    assert after[0].model.revision != before[0].model.revision and len(fleet.store.sizes()) == 1  # type: ignore[union-attr]


def test_a_folder_that_changed_under_a_model_given_up_is_looked_at_again(desk: Desk) -> None:
    """It is not followed, and no longer what was asked for: what is there now serves, under a version of its own."""
    models = {name: desk.model(name) for name in "ab"}
    desk.write(file(models))
    size = max(desk.start().store.sizes().values(), default=0)
    fleet = desk.start(memory=250_000)
    ask(fleet, {"use": "a"})
    size = max(fleet.store.sizes().values())
    fleet.store.most = int(1.5 * size)
    ask(fleet, {"use": "b"})
    version = fleet.plan.version
    retrain(models["a"])
    (outcome,) = ask(fleet, {"use": "a"})
    assert isinstance(outcome, Prediction) and fleet.plan.version != version
    assert outcome.model.revision == fleet.plan.variants["a"].revision


def test_a_model_without_room_beside_the_old_may_take_its_place(desk: Desk) -> None:
    """Where the file says ``unload_first`` the old one goes first; what comes meanwhile waits, and nothing is lost."""
    folder = tiny.sentiment()
    desk.write(file({"a": folder}, last="a"))
    fleet = desk.start(memory=1_000_000)
    ask(fleet, {})
    fleet.store.most = int(1.5 * max(fleet.store.sizes().values()))
    desk.write(file({"a": desk.model("next")}, last="a"))
    fleet.refresher.look()
    assert "does not fit beside" in fleet.told()["refused"]["why"]
    desk.write(desk.file.read_text().replace('"}', '", unload_first: true}', 1))
    fleet.refresher.look()
    assert fleet.told()["refused"] is None and variants(ask(fleet, {})) == ["a"]
    assert len(fleet.store.sizes()) == 1


def test_a_shadow_answers_for_the_row_alone(desk: Desk) -> None:
    """Its answer stands beside the served one with whether it agrees; what it cannot answer fails nothing."""
    twin = desk.model("twin")
    desk.write(file({"a": tiny.sentiment(), "s": twin}, "shadow:\n  - {model: s, share: 1}\n", "a"))
    fleet = desk.start()
    served, own = ask(fleet, {}, {"use": "s"})
    assert served.shadow is not None and own.shadow is None
    assert (served.shadow["variant"], served.shadow["agrees"]) == ("s", True)
    assert json.loads(served.shadow["prediction"])[0]["label"] == served.prediction[0]["label"]  # type: ignore[union-attr]
    with fleet.using(fleet.plan.variants["s"]) as model:

        def broken(requests: Any) -> Any:
            raise RuntimeError("the shadow is broken")

        model.answer = broken
    (after,) = ask(fleet, {})
    assert isinstance(after, Prediction) and after.shadow is None
    assert fleet.told()["models"]["s"]["agreed"] == 1


def test_a_worker_that_starts_while_the_file_is_broken_begins_with_the_launchs(desk: Desk) -> None:
    """A process that comes anew serves what the job was launched with, and what is sound as soon as it is."""
    desk.write(file({"a": tiny.sentiment()}, last="a"))
    handler = ModelsHandler(Options(str(desk.file), refresh_s=3600.0, weights=WEIGHTS))
    handler.check()
    desk.write("models: [")
    fleet = handler.load_model()
    desk._fleets.append(fleet)
    assert variants(ask(fleet, {})) == ["a"] and "models.yaml:1" in fleet.told()["refused"]["why"]
    desk.write(file({"b": tiny.topics()}, last="b"))
    fleet.refresher.look()
    assert variants(ask(fleet, {})) == ["b"] and fleet.told()["refused"] is None


def test_it_looks_by_itself(desk: Desk) -> None:
    """The thread of its own takes up a new file without being told."""
    desk.write(file({"a": tiny.sentiment()}, last="a"))
    fleet = desk.start(refresh_s=0.05)
    version = fleet.plan.version
    desk.write(file({"b": tiny.topics()}, last="b"))
    waited = threading.Event()
    for _ in range(1200):
        if fleet.plan.version != version:
            break
        waited.wait(0.1)
    assert variants(ask(fleet, {})) == ["b"]
