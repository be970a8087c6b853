"""The handler: one outcome for every element, whatever is wrong with some of them."""

from __future__ import annotations

import logging
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tiny_models as tiny
import torch
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.models import loaded_model
from transforms.models.batching import cut
from transforms.models.bisect import ForwardCounts
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.loaded_model import LoadedModel
from transforms.models.tasks import adapters
from transforms.records import Failure, Message, Prediction, Request


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield


def fresh(folder: str, task: str | None = None, **options: Any) -> LoadedModel:
    """A model of its own, not the resident one, so that a test may plant faults in it."""
    engine = HuggingFaceModelHandler(folder, task, **({"dtype": "float32"} | options))._load()
    torch.set_num_threads(1)
    return engine


def plant(engine: LoadedModel, fault: Callable[[Sequence[Any]], None]) -> None:
    """Calls ``fault`` with the asked inputs before every forward of ``engine``."""
    real = engine.task.forward

    def forward(batch: Sequence[Any]) -> Any:
        fault(batch)
        return real(batch)

    engine.task.forward = forward  # type: ignore[method-assign]


def request(inputs: Any, number: int = 0, **parameters: Any) -> Request:
    return Request(inputs, parameters, Message(message_id=str(number)))


def run(engine: LoadedModel, requests: Sequence[Request]) -> tuple[list[Prediction | Failure], ForwardCounts]:
    """The outcomes, checked to be one each and in order."""
    answers = engine.answer(requests)
    ids = [o.message.message_id if isinstance(o, Failure) else o.request.message.message_id for o in answers.outcomes]
    assert ids == [r.message.message_id for r in requests]
    return answers.outcomes, answers.counts


TEXT_CULPRITS: list[tuple[Callable[[int], Request], str, str]] = [
    (lambda i: request(17, i), "InvalidInput", "inputs=17: must be a string"),
    (lambda i: request(None, i), "InvalidInput", "inputs=None"),
    (lambda i: request(b"\x89PNG", i), "InvalidInput", "must be a string"),
    (lambda i: request("", i), "InvalidInput", "empty"),
    (lambda i: request("fine", i, topk=2), "InvalidParameter", "takes: function_to_apply, top_k"),
    (lambda i: request("fine", i, top_k="two"), "InvalidParameter", "must be an integer"),
    (lambda i: request("a lone surrogate \ud800", i), "InvalidInput", "half a surrogate pair"),
    (lambda i: request(f"poison number {i}", i), "ModelError", "ValueError: planted"),
]

IMAGE_CULPRITS: list[tuple[Callable[[int], Request], str, str]] = [
    (lambda i: request(b"not an image", i), "InvalidInput", "not an image that can be read"),
    (lambda i: request(tiny.png(tiny.picture(seed=i))[:-300], i), "InvalidInput", "not an image that can be read"),
    (lambda i: request("https://example.com/cat.png", i), "InvalidInput", "only gs:// URIs are read"),
    (lambda i: request("%%%", i), "InvalidInput", "not base64"),
    (lambda i: request({"image": 3}, i), "InvalidInput", "must be base64"),
    (lambda i: request(tiny.png(tiny.picture(31, 31, i)), i), "ModelError", "ValueError: planted"),
]


def _poisoned_text(batch: Sequence[Any]) -> None:
    if any("poison" in prepared.ask.inputs for prepared in batch):
        raise ValueError("planted")


def _poisoned_image(batch: Sequence[Any]) -> None:
    if any(prepared.rows[1] == (31, 31) for prepared in batch):
        raise ValueError("planted")


@pytest.mark.parametrize(
    ("folder", "good", "culprits", "fault"),
    [
        (tiny.sentiment, lambda i: tiny.text_of(1 + i % 40, seed=i), TEXT_CULPRITS, _poisoned_text),
        (tiny.animals, lambda i: tiny.png(tiny.picture(16, 16, i)), IMAGE_CULPRITS, _poisoned_image),
    ],
    ids=["text", "images"],
)
def test_37_culprits_among_1000_cost_only_themselves(
    folder: Any, good: Any, culprits: Any, fault: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """963 results, 37 failures that each name their own error, in O(k log n) forwards."""
    engine = fresh(folder())
    plant(engine, fault)
    # Every second one passes validation and pre-processing, and only makes the model raise.
    bad = {27 * i + 5: culprits[-1 if i % 2 else i // 2 % (len(culprits) - 1)] for i in range(37)}
    requests = [bad[i][0](i) if i in bad else request(good(i), i) for i in range(1000)]
    outcomes, counts = run(engine, requests)
    for i, outcome in enumerate(outcomes):
        if i in bad:
            assert isinstance(outcome, Failure) and outcome.stage == "predict"
            assert outcome.error_type == bad[i][1]
            assert bad[i][2] in outcome.error
        else:
            assert isinstance(outcome, Prediction), outcome
    planted = sum(kind == "ModelError" for _, kind, _ in bad.values())
    ready = [p for p in engine._prepare(requests) if not isinstance(p, Exception)]
    chunks = [ready[i : i + engine.task.chunk] for i in range(0, len(ready), engine.task.chunk)]
    batches = [b for c in chunks for b in cut([p.size for p in c], engine.budget.tokens, engine.max_batch_size)]
    largest = max(map(len, batches))
    bound = len(batches) + len(chunks) + 2 * planted * math.ceil(math.log2(largest))
    with capsys.disabled():
        print(
            f"\n1,000 messages, 37 culprits ({planted} seen only by the model): {counts.forwards} forwards;"
            f" bound {bound} = {len(batches)} micro-batches + {len(chunks)} + 2·{planted}·⌈log2 {largest}⌉"
        )
    assert counts.forwards <= bound


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_finds_a_budget_that_fits(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """All succeed, the budget found is logged once, and the next batch starts from it."""
    engine = fresh(tiny.sentiment())

    def starve(batch: Sequence[Any]) -> None:
        if len(batch) * max(prepared.size.length for prepared in batch) > 300:
            raise error

    plant(engine, starve)
    requests = [request(tiny.text_of(1 + i % 40, seed=i), i) for i in range(300)]
    with caplog.at_level(logging.WARNING, "transforms.models"):
        first, counts = run(engine, requests)
        again, later = run(engine, requests)
    assert all(isinstance(outcome, Prediction) for outcome in first + again)
    assert counts.out_of_memory > 0 and later.out_of_memory == 0
    assert 150 <= engine.budget.tokens <= 300
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 1 and str(engine.budget.tokens) in logged[0]


def test_a_message_that_never_fits_does_not_shrink_the_budget() -> None:
    """One message that always runs out of memory fails alone, and those after it run as before."""
    engine = fresh(tiny.sentiment())

    def starve(batch: Sequence[Any]) -> None:
        if any("poison" in prepared.ask.inputs for prepared in batch):
            raise MemoryError

    plant(engine, starve)
    outcomes, _ = run(engine, [request("poison" if i == 50 else tiny.text_of(4, i), i) for i in range(100)])
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Failure)] == [50]
    assert outcomes[50].error_type == "OutOfMemory"  # type: ignore[union-attr]
    assert engine.budget.tokens == 1024


def test_non_finite_output_is_that_elements_failure() -> None:
    """NaN in one message's output is its failure; the others in the micro-batch are answered, in one forward."""
    engine = fresh(tiny.sentiment())
    bad = engine.task.tokenizer.convert_tokens_to_ids("bad")  # type: ignore[attr-defined]
    with torch.no_grad():
        engine.task.model.module.bert.embeddings.word_embeddings.weight[bad] = float("nan")
    outcomes, counts = run(engine, [request("the order"), request("bad order"), request("my invoice")])
    assert [type(outcome) for outcome in outcomes] == [Prediction, Failure, Prediction]
    assert outcomes[1].error_type == "NonFinite"  # type: ignore[union-attr]
    assert counts.forwards == 1


def test_a_lost_device_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that no message can be blamed for ends the process, so that the next one gets a device that works."""
    engine = fresh(tiny.sentiment())
    ended: list[str] = []
    monkeypatch.setattr(loaded_model, "end_process", ended.append)

    def lose(batch: Sequence[Any]) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    plant(engine, lose)
    with pytest.raises(RuntimeError, match="CUDA error"):
        engine.answer([request("the order")])
    assert ended == ["the device is lost (RuntimeError)"]


@pytest.mark.parametrize("step", ["check", "prepare", "finish"])
def test_what_nobody_foresaw_is_one_failure(step: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bug around the model costs the message that meets it, and is told once with its traceback, without its text."""
    engine = fresh(tiny.sentiment())
    whole, hidden = getattr(engine.task, step), "my secret"

    def broken(*given: Any) -> Any:
        if any("bug" in str(one.ask.inputs if step == "finish" else one) for one in _elements(step, given)):
            raise KeyError(hidden)
        return whole(*given)

    setattr(engine.task, step, broken)
    outcomes, _ = run(engine, [request("a bug" if i == 7 else "the order", i) for i in range(40)])
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failure.error_type, failure.message.message_id) == ("Unexpected", "7")
    assert "KeyError at" in failure.error and hidden not in failure.error + caplog.text
    assert caplog.text.count("unexpected KeyError") == 1 and "test_handler.py" in caplog.text


def _elements(step: str, given: tuple[Any, ...]) -> Sequence[Any]:
    return given[1] if step == "finish" else given[0] if step == "prepare" else given


def test_a_task_that_answers_too_few_loses_nothing() -> None:
    """A bug in a task that drops answers ends as failures, one for each element, never as silence."""
    engine = fresh(tiny.sentiment())
    engine.task.finish = lambda outputs, batch: []  # type: ignore[method-assign]
    outcomes, _ = run(engine, [request("the order", i) for i in range(5)])
    assert [outcome.error_type for outcome in outcomes] == ["ModelError"] * 5  # type: ignore[union-attr]


def test_truncation_is_marked_or_refused() -> None:
    """An input over the model's 64 tokens is cut, marked and counted; with dead_letter it is a failure."""
    requests = [request(tiny.text_of(200), 0), request(tiny.text_of(62), 1), request("short", 2)]
    cut_, _ = run(fresh(tiny.sentiment()), requests)
    assert [(o.truncated, o.tokens) for o in cut_] == [(True, 64), (False, 64), (False, 7)]  # type: ignore[union-attr]
    refused, _ = run(fresh(tiny.sentiment(), on_too_long="dead_letter"), requests)
    assert [type(outcome) for outcome in refused] == [Failure, Prediction, Prediction]
    assert refused[0].error_type == "TooLong"  # type: ignore[union-attr]


def test_job_parameters_are_defaults_that_a_message_overrides() -> None:
    """``--inference_params`` applies to every message, and a message's own parameters go before it."""
    engine = fresh(tiny.sentiment(), parameters={"top_k": 2})
    outcomes, _ = run(engine, [request("the order"), request("the order", top_k=3)])
    assert [len(outcome.prediction) for outcome in outcomes] == [2, 3]  # type: ignore[union-attr]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SHAPED = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("text", "text_pair", "question", "context", "image", "role", "content", "type"), JSON)
)


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        (tiny.sentiment, None),
        (tiny.entities, None),
        (tiny.entailment, "zero-shot-classification"),
        (tiny.masked, None),
        (tiny.answering, None),
        (tiny.body, "feature-extraction"),
        (tiny.causal, None),
        (tiny.animals, None),
        (tiny.clip, None),
        (tiny.detector, None),
        (tiny.captioner, None),
        (tiny.sounds, None),
        (tiny.letters, None),
        (tiny.segmenter, None),
    ],
    ids=lambda value: getattr(value, "__name__", value) or "",
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_payload_gives_one_outcome(folder: Any, task: str | None, data: st.DataObject) -> None:
    """Whatever the bytes, the JSON and the parameters, each element has one outcome and nothing is raised."""
    handler = HuggingFaceModelHandler(folder(), task, dtype="float32", parameters=None)
    model = handler.load_model()
    names = st.sampled_from([*model.task.entry.parameters, "bogus"])
    requests = st.builds(
        Request,
        JSON | SHAPED | st.lists(SHAPED, max_size=3) | st.text(min_size=1, max_size=200),
        st.dictionaries(names, JSON, max_size=3) | JSON,
        st.builds(Message, st.binary(max_size=10), st.dictionaries(st.text(), st.text(), max_size=3)),
    )
    batch = data.draw(st.lists(requests, max_size=4))
    outcomes = handler.run_inference(batch, model)
    assert len(outcomes) == len(batch)
    for one, outcome in zip(batch, outcomes, strict=True):
        assert (outcome.message if isinstance(outcome, Failure) else outcome.request.message) is one.message
        assert not isinstance(outcome, Failure) or (outcome.error and outcome.error_type != "ModelError"), outcome


def test_one_model_a_configuration_however_many_handlers_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers of one configuration share one resident model, and eight threads at once load it once."""
    loads: list[Any] = []
    real = adapters.build_task
    monkeypatch.setattr(adapters, "build_task", lambda *given: loads.append(given) or real(*given))
    handlers = [HuggingFaceModelHandler(tiny.topics(), parameters={"top_k": 2}) for _ in range(8)]
    models: list[LoadedModel] = []
    threads = [threading.Thread(target=lambda h=h: models.append(h.load_model())) for h in handlers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and len(set(map(id, models))) == 1
    other = HuggingFaceModelHandler(tiny.topics(), parameters={"top_k": 1}).load_model()
    assert other is not models[0] and len(loads) == 2


def test_threads_share_one_model_without_mixing_answers() -> None:
    """Eight threads on one model get the predictions that each would get alone."""
    handler = HuggingFaceModelHandler(tiny.sentiment(), dtype="float32")
    model = handler.load_model()
    torch.set_num_threads(1)
    batches = [[request(tiny.text_of(3 + i, seed=10 * j + i), i) for i in range(20)] for j in range(8)]
    alone = [[o.prediction for o in handler.run_inference(batch, model)] for batch in batches]  # type: ignore[union-attr]
    together: dict[int, list[Any]] = {}

    def work(j: int) -> None:
        for _ in range(5):
            together[j] = [o.prediction for o in handler.run_inference(batches[j], model)]  # type: ignore[union-attr]

    threads = [threading.Thread(target=work, args=(j,)) for j in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for j in range(8):
        for mine, theirs in zip(together[j], alone[j], strict=True):
            assert mine[0]["label"] == theirs[0]["label"]
            assert mine[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-5)


def test_the_handler_pickles_without_its_model() -> None:
    """A worker gets a handler of a few hundred bytes, loaded or not, and it answers there."""
    handler = HuggingFaceModelHandler(tiny.sentiment(), "text-classification")
    handler.load_model()
    pickled = pickle.dumps(handler)
    assert len(pickled) < 2000
    there = pickle.loads(pickled)
    assert isinstance(there.run_inference([Request("the order")], there.load_model())[0], Prediction)


def _check_three(outcomes: list[Any]) -> None:
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Failure", "Prediction", "Prediction"]


def test_it_runs_alone_in_run_inference_and_counts() -> None:
    """The docstring's example: plain RunInference, an outcome each, and the metrics that docs/metrics.md names."""
    handler = HuggingFaceModelHandler(tiny.sentiment(), "text-classification")
    pipeline = TestPipeline()
    requests = [Request("I love it"), Request("Do you ship to Peru? " * 30), Request(17)]
    assert_that(pipeline | beam.Create(requests) | RunInference(handler), _check_three)
    result = pipeline.run()
    result.wait_until_finish()
    counters = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]}
    assert (counters["predictions"], counters["failures"], counters["truncated"]) == (2, 1, 1)
    assert counters["tokens"] > 64 and counters["forwards"] >= 1


def test_latency_loses_nothing_across_bundles() -> None:
    """With ``max_batch_latency_ms`` Beam keeps elements in state between bundles; each still has its outcome."""
    handler = HuggingFaceModelHandler(tiny.sentiment(), "text-classification", max_batch_latency_ms=100)
    stream = TestStream().advance_watermark_to(0)
    for inputs in ("I love it", "thank you so", 17):
        stream.add_elements([TimestampedValue(Request(inputs), 1)])
    stream.advance_processing_time(10).advance_watermark_to(30).advance_watermark_to_infinity()
    with TestPipeline(options=StandardOptions(streaming=True)) as pipeline:
        outcomes = pipeline | stream | beam.WindowInto(FixedWindows(20)) | RunInference(handler)
        assert_that(outcomes | "Global" >> beam.WindowInto(GlobalWindows()), _check_three)


def test_sdk_processes_of_a_worker_share_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker container the model is reached through Beam's own cross-process proxy, with the same outcomes."""
    monkeypatch.setenv("CONTROL_API_SERVICE_DESCRIPTOR", "url: 'localhost:1'")
    handler = HuggingFaceModelHandler(tiny.sentiment(), "text-classification", parameters={"top_k": 1})
    # Beam finds the process that has the model by its identifier: another run of this test must not be found.
    own = f"tiny-{os.getpid()}"
    with TestPipeline() as pipeline:
        requests = [Request("I love it"), Request("thank you"), Request(17)]
        assert_that(pipeline | beam.Create(requests) | RunInference(handler, model_identifier=own), _check_three)


def test_batching_gathers_more_than_a_micro_batch() -> None:
    """Beam gathers a large batch for the handler to plan; latency, where given, is in seconds."""
    kwargs = HuggingFaceModelHandler("m", "text-classification", max_batch_latency_ms=250).batch_elements_kwargs()
    assert kwargs == {"min_batch_size": 1024, "max_batch_size": 1024, "max_batch_duration_secs": 0.25}
    assert HuggingFaceModelHandler("m", "image-classification").batch_elements_kwargs()["max_batch_size"] == 128


def test_bytes_of_a_batch_are_those_of_its_messages() -> None:
    """The size metric costs a sum, not a pickle of the batch."""
    handler = HuggingFaceModelHandler("m")
    assert handler.get_num_bytes([Request("x", message=Message(b"1234")), Request("y", message=Message(b"56"))]) == 6


def test_predictions_are_ready_for_json() -> None:
    """Embeddings are contiguous float32 arrays, one micro-batch apart, that orjson writes as lists."""
    import orjson

    handler = HuggingFaceModelHandler(tiny.body(), "feature-extraction")
    outcome = handler.run_inference([Request("the order")], handler.load_model())[0]
    assert isinstance(outcome, Prediction)
    assert outcome.prediction.dtype == np.float32 and outcome.prediction.flags["C_CONTIGUOUS"]
    assert len(orjson.loads(orjson.dumps(outcome.prediction, option=orjson.OPT_SERIALIZE_NUMPY))) == 32


_MANY_SHAPES = """
import random, sys
from pathlib import Path
from transforms.models.handler import HuggingFaceModelHandler
from transforms.records import Request

engine = (handler := HuggingFaceModelHandler(sys.argv[1], "feature-extraction")).load_model()
random.seed(0)

def mib_after(messages: int) -> int:
    for _ in range(messages // 100):
        texts = ["word " * random.randint(1, 60) for _ in range(100)]
        list(handler.run_inference([Request(text) for text in texts], engine))
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256

warm = mib_after(2000)
print(mib_after(4000) - warm)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_memory_stays_flat_however_many_shapes_batches_have(minilm: str) -> None:
    """oneDNN keeps a kernel for every shape it has seen, 1,024 of each kind unless told otherwise."""
    command = [sys.executable, "-c", _MANY_SHAPES, minilm]
    # A handler loaded in this process has set the bounds in its environment: the new one has to set them itself.
    bounds = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    unset = {name: value for name, value in os.environ.items() if name not in bounds}
    root = Path(__file__).parents[2]
    grown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=unset)  # noqa: S603
    assert int(grown.stdout) < 110, "MiB; unbounded it is about 200"
