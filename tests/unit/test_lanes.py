"""Forwards side by side: each on a core of its own, every answer in its place, and none another than one at a time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tiny
import torch
from zoo.judge import unlike

from transforms.models.backends import Model, Place, Probe
from transforms.models.backends import lanes as lanes_
from transforms.models.backends import torch as torch_engine
from transforms.models.backends.convert import Converted
from transforms.models.backends.lanes import Lanes, on_lane
from transforms.models.batching import Size
from transforms.models.bisect import Budget, ForwardCounts, run_planned
from transforms.models.errors import ModelError, OutOfMemory
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.loaded_model import LoadedModel
from transforms.models.tasks import probes
from transforms.records import Failure, Prediction, Request


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Lanes(2)
    torch.set_num_threads(before)


def run(
    lanes: Lanes | None, forward: Callable[[list[int]], list[Any]], sizes: list[Size], tokens: int = 1024
) -> tuple[list[Any], ForwardCounts]:
    counts = ForwardCounts()
    return run_planned(forward, sizes, Budget(tokens, 64), 512, counts, lanes), counts


def test_a_lane_computes_on_one_core_and_nobody_else_does(lanes: Lanes) -> None:
    """What a thread sets, torch gives to those that come after it: they must not become lanes too."""
    found: list[tuple[int, bool]] = []
    lanes.run(lambda: found.append((torch.get_num_threads(), on_lane())))
    assert found == [(1, True)] * 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(lambda: (torch.get_num_threads(), on_lane())).result() == (2, False)
    assert (torch.get_num_threads(), on_lane()) == (2, False)


def test_micro_batches_run_at_once_and_come_back_in_order(lanes: Lanes) -> None:
    """Two forwards wait for each other here, so one at a time would never end."""
    both = threading.Barrier(2, timeout=20)
    sizes = [Size(length) for length in (300, 301, 290, 280)]

    def forward(indices: list[int]) -> list[Any]:
        both.wait()
        return [(i, threading.current_thread().name) for i in indices]

    results, counts = run(lanes, forward, sizes)
    assert [i for i, _ in results] == [0, 1, 2, 3] and counts.forwards == 4
    assert {name.partition("_")[0] for _, name in results} == {"lane"}


def test_uneven_work_is_one_forward_on_all_cores(lanes: Lanes) -> None:
    """One long text beside a short one would leave a core waiting: the cores share what there is."""
    forward = lambda indices: [on_lane()] * len(indices)  # noqa: E731
    assert run(lanes, forward, [Size(300)])[0] == [False]
    assert run(lanes, forward, [Size(500), Size(20)])[0] == [False] * 2
    assert run(lanes, forward, [Size(500), Size(480)])[0] == [True] * 2


@pytest.mark.parametrize(
    ("tokens", "most", "share"), [(600, 1024, 330), (1500, 1024, 413), (9000, 1024, 512), (9, 64, 64), (9, 32, 32)]
)
def test_each_round_has_a_micro_batch_for_every_lane(lanes: Lanes, tokens: int, most: int, share: int) -> None:
    """Together they hold no more than one at a time would."""
    assert lanes.share(tokens, most) == share


def test_what_fails_on_a_lane_costs_only_itself(lanes: Lanes) -> None:
    """A culprit is found by halving, memory that runs out makes smaller batches, and all others are answered."""
    sizes = [Size(100 + i) for i in range(20)]

    def forward(indices: list[int]) -> list[Any]:
        if 13 in indices:
            raise ValueError("no")
        if 7 in indices:
            raise MemoryError("none left")
        return list(indices)

    results, counts = run(lanes, forward, sizes)
    assert isinstance(results[13], ModelError) and isinstance(results[7], OutOfMemory)
    assert [each for i, each in enumerate(results) if i not in (7, 13)] == [i for i in range(20) if i not in (7, 13)]
    assert counts.bisections and counts.out_of_memory > 1


def test_a_lost_device_ends_all_lanes(lanes: Lanes) -> None:
    """The other lane begins nothing more, and the caller hears it."""
    begun: list[int] = []

    def forward(indices: list[int]) -> list[Any]:
        begun.extend(indices)
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        run(lanes, forward, [Size(500)] * 10)
    assert len(begun) <= 2


def test_nothing_to_run_is_no_error(lanes: Lanes) -> None:
    """All messages of a batch may be wrong before any forward."""
    assert run(lanes, lambda indices: list(indices), [])[0] == []


def test_memory_that_ran_out_beside_another_forward_is_no_element_s_fault(lanes: Lanes) -> None:
    """Each fits alone, and both together do not; one that never fits is blamed, and its budget given back."""
    both = threading.Barrier(2, timeout=20)

    def forward(indices: list[int]) -> list[Any]:
        if on_lane():
            both.wait()
            raise MemoryError("two at once")
        if indices == [0]:
            raise MemoryError("never")
        return list(indices)

    results, counts = run(lanes, forward, [Size(500), Size(480)])
    assert isinstance(results[0], OutOfMemory) and results[1] == 1 and counts.forwards == 4


def test_an_element_over_the_budget_has_all_cores(lanes: Lanes) -> None:
    """On one core its forward would take as many times as long as there are cores, and lanes hold a budget each."""
    forward = lambda indices: [on_lane()] * len(indices)  # noqa: E731
    assert run(lanes, forward, [Size(5000), Size(5000)])[0] == [False] * 2
    assert run(lanes, forward, [Size(5000), Size(500), Size(480)])[0] == [False, True, True]


def test_copies_of_a_model_have_lanes_of_their_own() -> None:
    """Beam holds all copies in one process, and each has its share of the cores: all four forwards run at once."""
    all_four = threading.Barrier(4, timeout=20)
    before = torch.get_num_threads()
    own = Lanes(2, copies=2)
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(2) as copies:
        for copy in [copies.submit(own.run, all_four.wait) for _ in range(2)]:
            copy.result()


class LastLength(torch.nn.Module):
    """Keeps what it made for the last length, as the rotary angles of Wav2Vec2-Conformer are kept."""

    length: int | None = None
    angles: torch.Tensor | None = None

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        if self.length != len(sound):
            self.length, self.angles = len(sound), torch.ones(len(sound))
        return sound * self.angles


@pytest.mark.parametrize(("lengths", "changes"), [((5, 9, 7), True), ((5, 5), False), ((5,), False)])
def test_what_is_kept_of_the_last_size_is_a_change(lengths: tuple[int, ...], changes: bool) -> None:
    """Two lanes would read each other's; of one size, as most pictures are, nothing is kept anew."""
    module = LastLength()
    forward = lambda batch: module(batch[0])  # noqa: E731
    task: Any = SimpleNamespace(model=SimpleNamespace(module=module), forward=forward)
    made: Any = [torch.ones(length) for length in lengths]
    assert probes._changes(task, made) is changes


class Trying(Model):
    """Fails on a lane; notes what it was readied for."""

    def __init__(self) -> None:
        self.module, self.readied = torch.nn.Linear(3000, 2000), []

    def forward(self, **inputs: torch.Tensor) -> Any:
        raise NotImplementedError

    def running(self) -> Any:
        return torch.inference_mode()

    def positions(self) -> int | None:
        return None

    def ready(self, lanes: int) -> None:
        self.readied.append(lanes)


def test_what_raises_on_a_lane_is_loaded_and_gives_up_what_lanes_took(
    lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that takes no second compilation, or a model that no second thread may run, still loads."""
    monkeypatch.setenv("BEAM_HF_CACHE", str(tmp_path))

    def turn() -> list[torch.Tensor]:
        if on_lane():
            raise RuntimeError("not from here")
        return [torch.ones(2)]

    model = Trying()
    assert lanes_.pick(model, Probe(list, turn, False), Place(torch.device("cpu"), torch.float32, 1), "a model") is None
    assert model.readied == [2, 1]


def test_a_load_does_not_wait_for_long_forwards(lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of billions would be tried for minutes, with nothing to gain."""
    monkeypatch.setenv("BEAM_HF_CACHE", str(tmp_path))
    monkeypatch.setattr(lanes_, "_LONGEST_S", 0)
    turns: list[bool] = []

    def turn() -> list[torch.Tensor]:
        turns.append(on_lane())
        return [torch.ones(2)]

    model = Trying()
    assert lanes_.pick(model, Probe(list, turn, False), Place(torch.device("cpu"), torch.float32, 1), "a model") is None
    assert turns == [False, False] and model.readied == [1]


def test_a_conversion_keeps_no_weights_but_the_compiled() -> None:
    """What was converted is as large as the model, and in float32."""
    made = Stretching(2, 2)
    kept, compiled = weakref.ref(made), lambda streams, made=made: streams  # noqa: E731
    converted = Converted(compiled, [({"inputs": torch.zeros(1, 2)}, None)], ["logits"])
    del made, compiled
    converted.ready(1)
    assert kept() is None


def ask(model: LoadedModel, texts: list[str]) -> list[Prediction]:
    outcomes = model.answer([Request(each) for each in texts]).outcomes
    assert not any(isinstance(each, Failure) for each in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_answers_are_those_of_one_forward_at_a_time(
    engine: str, minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real MiniLM, long and short texts, many micro-batches: the same numbers, whoever's forward was beside."""
    pytest.importorskip(engine)
    monkeypatch.setenv("BEAM_HF_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(lanes_, "_WORTH_IT", 0.0)
    before = torch.get_num_threads()
    words = {"device": "cpu", "dtype": "float32", "engine": engine}
    model = HuggingFaceModelHandler(minilm, "feature-extraction", **words)._load()
    torch.set_num_threads(before)
    assert model.task.lanes is not None
    texts = [tiny.text_of(1 + 37 * i % 41) for i in range(40)]
    where: list[bool] = []
    forward = model.task.forward
    monkeypatch.setattr(model.task, "forward", lambda batch: (where.append(on_lane()), forward(batch))[1])
    beside = ask(model, texts)
    assert {each.model.engine for each in beside} == {engine}
    assert len(where) > 2 and all(where)
    model.task.lanes = None
    whole = ask(model, texts)
    pairs = zip(beside, whole, strict=True)
    assert not [i for i, (one, other) in enumerate(pairs) if unlike(one.prediction, other.prediction)]


class Keeping(torch.nn.Module):
    """Keeps a number of its last forward."""

    kept = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.kept = self.kept + 1
        return inputs


class Stretching(torch.nn.Linear):
    """Turns its positions by other angles once a text is long, and keeps them."""

    rope_type: str | dict[str, str] = "dynamic"


class StretchingByKind(Stretching):
    """ModernBERT's and Gemma 3's have a way for each kind of layer."""

    rope_type = {"full_attention": "longrope", "sliding_attention": "default"}


@pytest.mark.parametrize("part", [Keeping(), Stretching(2, 2), StretchingByKind(2, 2)])
def test_a_model_that_keeps_something_has_no_lanes(
    part: torch.nn.Module, minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one forward leaves in the model, another one beside it would read."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    real = torch_engine.TorchModel.forward

    def keeping(self: Any, **inputs: Any) -> Any:
        self.module.part = part
        part(torch.zeros(2))
        return real(self, **inputs)

    monkeypatch.setattr(torch_engine.TorchModel, "forward", keeping)
    before = torch.get_num_threads()
    model = HuggingFaceModelHandler(minilm, "feature-extraction", device="cpu", dtype="float32", engine="torch")._load()
    torch.set_num_threads(before)
    assert model.task.lanes is None
