"""Beam's own ways to several models and to another one: a path that changes, side inputs, a handler by key."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tiny_models as tiny
import torch
from apache_beam.ml.inference.base import KeyedModelHandler, KeyModelMapping, ModelMetadata, RunInference
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from transforms.models.errors import ModelLoadError
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.resident import at_path
from transforms.models.spec import ModelSpec
from transforms.records import Prediction, Request

OPTIONS = {"device": "cpu", "dtype": "float32", "engine": "torch"}


def handler(folder: str, **options: Any) -> HuggingFaceModelHandler:
    return HuggingFaceModelHandler(folder, "text-classification", **OPTIONS | options)


def labels_of(handler: HuggingFaceModelHandler) -> set[str]:
    """The labels that the model has which the handler loads now."""
    model = handler.load_model()
    torch.set_num_threads(1)
    (outcome,) = handler.run_inference([Request("my order", {"top_k": 3})], model)
    assert isinstance(outcome, Prediction)
    return {each["label"] for each in outcome.prediction}


SENTIMENT, TOPICS = {"negative", "neutral", "positive"}, {"billing", "delivery", "praise"}


def test_a_path_changes_the_model(tmp_path: Path) -> None:
    """The next load is of the other model, which takes its place in memory; a copy of the handler sees it too."""
    folder = shutil.copytree(tiny.sentiment(), tmp_path / "one")
    made = handler(str(folder))
    first = made.load_model()
    assert labels_of(made) == SENTIMENT
    made.update_model_path(tiny.topics())
    assert labels_of(made) == TOPICS and made.load_model() is not first
    made.update_model_path(None)
    assert labels_of(made) == TOPICS
    copy = handler(str(folder))
    copy.update_model_path(tiny.topics())
    assert copy.load_model() is made.load_model()


def test_a_path_that_does_not_load_leaves_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one before goes on answering, and one line says why; without one before, it is an error."""
    folder = shutil.copytree(tiny.sentiment(), tmp_path / "one")
    broken = Path(shutil.copytree(tiny.topics(), tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    made = handler(str(folder))
    first = made.load_model()
    made.update_model_path(str(broken))
    with caplog.at_level(logging.ERROR):
        assert made.load_model() is first and made.load_model() is first
    assert len(caplog.records) == 1 and "was cut off" in caplog.text
    fresh = handler(str(broken))
    with pytest.raises(ModelLoadError, match="was cut off"):
        fresh.load_model()


def test_a_path_may_name_a_revision() -> None:
    """Of the hub, by ``@``; a folder's name may have one of its own."""
    spec = ModelSpec("org/one", revision="v1")
    assert (at_path(spec, "org/two@v2").model, at_path(spec, "org/two@v2").revision) == ("org/two", "v2")
    assert (at_path(spec, "org/two").revision, at_path(spec, "/models/a@b").model) == (None, "/models/a@b")


def test_a_side_input_changes_the_model() -> None:
    """``model_metadata_pcoll`` of a plain RunInference: what it names answers."""
    with TestPipeline() as pipeline:
        metadata = pipeline | "Metadata" >> beam.Create([ModelMetadata(tiny.topics(), "topics")])
        requests = pipeline | "Requests" >> beam.Create([Request("my order", {"top_k": 1}) for _ in range(3)])
        answers = requests | RunInference(handler(tiny.sentiment()), model_metadata_pcoll=metadata)
        assert_that(answers | beam.Map(lambda each: each.prediction[0]["label"] in TOPICS), equal_to([True] * 3))


class Batching(KeyedModelHandler):
    """Beam's handler by key, which asks none of several handlers how to batch; this one says it itself."""

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": 64, "max_batch_size": 64}


def test_several_handlers_by_key_batch_where_it_is_said() -> None:
    """Each key is answered by its own model, and the batches are as large as the subclass says."""
    mappings = [KeyModelMapping(["s"], handler(tiny.sentiment())), KeyModelMapping(["t"], handler(tiny.topics()))]
    elements = [("st"[n % 2], Request("my order", {"top_k": 1})) for n in range(64)]
    with TestPipeline() as pipeline:
        answers = pipeline | beam.Create(elements, reshuffle=False) | RunInference(Batching(mappings))
        right = answers | beam.Map(
            lambda each: each[1].prediction[0]["label"] in {"s": SENTIMENT, "t": TOPICS}[each[0]]
        )
        assert_that(right, equal_to([True] * 64))
        sizes = answers | "Sizes" >> beam.Map(lambda each: each[1].batch_size)
        assert_that(sizes, equal_to([32] * 64), "in batches")
