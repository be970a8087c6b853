"""docs/models.md against the code: every task, every parameter, and every example, run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny_models as tiny
import tiny_writers as writers

from transforms.models import errors
from transforms.models.handler import HuggingFaceModelHandler
from transforms.models.task_table import TASKS
from transforms.models.tasks import media
from transforms.models.tasks.adapters import ADAPTERS
from transforms.models.tasks.fallback import FALLBACKS
from transforms.records import Prediction, Request

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
SECTIONS = {part.split("\n", 1)[0].strip(): part for part in re.split(r"^###? ", PAGE, flags=re.M)[1:]}
OWN = [name for name, adapter in ADAPTERS.items() if adapter not in FALLBACKS]
MODELS = {
    "text-classification": tiny.sentiment,
    "token-classification": tiny.entities,
    "zero-shot-classification": tiny.entailment,
    "text2text-generation": writers.t5,
    "summarization": writers.bart,
    "translation": writers.nllb,
    "fill-mask": tiny.masked,
    "question-answering": tiny.answering,
    "feature-extraction": tiny.body,
    "sentence-similarity": tiny.body,
    "text-ranking": writers.ranker,
    "text-generation": tiny.causal,
    "image-classification": tiny.animals,
    "image-feature-extraction": tiny.vision_body,
    "zero-shot-image-classification": tiny.clip,
    "object-detection": tiny.detector,
    "image-text-to-text": tiny.captioner,
    "audio-classification": tiny.sounds,
    "automatic-speech-recognition": tiny.letters,
}


def shape(value: Any) -> Any:
    """What a value is made of: keys, and the kinds of its first items."""
    if isinstance(value, dict):
        return {key: shape(v) for key, v in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) else type(value).__name__


@pytest.mark.parametrize("task", OWN)
def test_the_example_of_every_task_runs(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented message gets a prediction of the documented shape."""
    stored = {".png": tiny.png(tiny.picture()), ".wav": tiny.wav(tiny.tone())}
    monkeypatch.setattr(media, "read_object", lambda uri: stored[uri[-4:]])
    message, documented = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", SECTIONS[task], re.S))
    model = HuggingFaceModelHandler(MODELS[task](), task)
    outcome = model.run_inference([Request(message["inputs"], message.get("parameters", {}))], model.load_model())[0]
    assert isinstance(outcome, Prediction), outcome
    prediction = orjson.loads(orjson.dumps(outcome.prediction, option=orjson.OPT_SERIALIZE_NUMPY))
    assert np.size(prediction) > 0
    assert shape(prediction) == shape(documented)


@pytest.mark.parametrize("task", OWN)
def test_every_parameter_is_documented(task: str) -> None:
    """A task's section names all of its parameters."""
    words = set(re.findall(r"`([a-z_]+)`", SECTIONS[task].split("```")[0]))
    assert TASKS[task].parameters.keys() <= words


@pytest.mark.parametrize("task", [adapter.entry.name for adapter in FALLBACKS])
def test_every_pipeline_task_is_documented(task: str) -> None:
    """The table of the remaining tasks has a row for each, with exactly its parameters."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {task} |"))
    assert set(re.findall(r"`([a-z_]+)`", row.split("|")[3])) == TASKS[task].parameters.keys()


def test_every_error_is_documented() -> None:
    """The page names all kinds of failure."""
    words = set(re.findall(r"`([A-Za-z_]+)`", PAGE))
    # An endpoint's own kinds are in docs/endpoints.md.
    kinds = [kind for kind in errors.ElementError.__subclasses__() if kind.__module__ == errors.__name__]
    assert {kind.__name__ for kind in kinds} <= words
