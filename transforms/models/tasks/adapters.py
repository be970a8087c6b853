"""The adapter of each task, and which one a model is for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import transformers

from transforms.models.backends import ONE_FORWARD, pick_engine
from transforms.models.backends.lanes import pick
from transforms.models.errors import ModelLoadError, foreign, reason
from transforms.models.sharing import measure
from transforms.models.spec import ModelSpec
from transforms.models.task_entry import TaskEntry
from transforms.models.task_table import TASKS, find
from transforms.models.tasks.audio import AudioClassification, AudioTask, SpeechRecognition
from transforms.models.tasks.base import Loading, Task
from transforms.models.tasks.classify import TextClassification, ZeroShotClassification
from transforms.models.tasks.embeddings import FeatureExtraction
from transforms.models.tasks.fallback import FALLBACKS
from transforms.models.tasks.multimodal import ImageTextToText
from transforms.models.tasks.probes import probe
from transforms.models.tasks.question import QuestionAnswering
from transforms.models.tasks.ranking import TextRanking
from transforms.models.tasks.rewriting import Summarization, Text2TextGeneration, Translation
from transforms.models.tasks.similarity import SentenceSimilarity
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.text_generation import TextGeneration
from transforms.models.tasks.together import measure_files
from transforms.models.tasks.tokens import FillMask, TokenClassification
from transforms.models.tasks.trial import try_out
from transforms.models.tasks.vision import (
    ImageClassification,
    ImageFeatureExtraction,
    ImageTask,
    ObjectDetection,
    ZeroShotImageClassification,
)

_ALL: tuple[type[Task], ...] = (
    TextClassification,
    TokenClassification,
    ZeroShotClassification,
    Text2TextGeneration,
    Summarization,
    Translation,
    FillMask,
    QuestionAnswering,
    FeatureExtraction,
    SentenceSimilarity,
    TextRanking,
    TextGeneration,
    ImageClassification,
    ImageFeatureExtraction,
    ZeroShotImageClassification,
    ObjectDetection,
    ImageTextToText,
    AudioClassification,
    SpeechRecognition,
    *FALLBACKS,
)

#: Every task that local weights can be loaded for, by name, in the table's order.
ADAPTERS: dict[str, type[Task]] = {
    adapter.entry.name: adapter for adapter in sorted(_ALL, key=lambda each: list(TASKS).index(each.entry.name))
}


def pick_task(asked: str | None, config: Mapping[str, Any], names: Collection[str], model: str) -> type[Task]:
    """The task for a model: the one ``asked`` for, or the one that its architecture stands for.

    Raises:
      ModelLoadError: there is no such task, the model was not made for it, or it must be named.
    """
    named = config.get("architectures")
    given = set(named) if isinstance(named, list) and all(isinstance(one, str) for one in named) else set()
    fitting = [task for task in ADAPTERS.values() if given & task.architectures()]
    if asked is None:
        if "modules.json" in names:
            # sentence-transformers' folders are for embeddings, but for those of a cross-encoder.
            pairs = given & TextRanking.architectures()
            return FeatureExtraction if not pairs else TextRanking if _scores(config) else TextClassification
        if fitting:
            return fitting[0]
        raise ModelLoadError(
            f"`model={model}`: its architecture ({', '.join(sorted(given)) or 'not named'}) does not tell the task;"
            f" give `task`, one of: {', '.join(sorted(ADAPTERS))}"
        )
    entry = find(asked)
    task = ADAPTERS.get(entry.name) if entry else None
    if task is None:
        raise ModelLoadError(f"`task={asked}`: no such task; there are: {', '.join(sorted(ADAPTERS))}")
    takes = task.architectures()
    if takes and given and not given & takes:
        others = ", ".join(other.entry.name for other in fitting) or "feature-extraction"
        raise ModelLoadError(
            f"`task={asked}`: `model={model}` is a {', '.join(sorted(given))}, which was not made for that;"
            f" it can do: {others}"
        )
    return task


def _scores(config: Mapping[str, Any]) -> bool:
    """Whether a classifier has one label, and so gives a score."""
    return len(config.get("id2label") or (0, 1)) == 1


def build_task(spec: ModelSpec, entry: TaskEntry, folder: Path) -> Task:
    """The task, with the model of ``folder`` loaded as ``spec`` says.

    Raises:
      ModelLoadError: it cannot be.
    """
    transformers.logging.disable_progress_bar()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        transformers.logging.set_verbosity_error()  # it would warn again at every forward
    engine = pick_engine(spec.engine, entry)
    place = engine.place(spec)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder / transformer_path(folder), trust_remote_code=False, local_files_only=True
        )
        config.return_dict = True  # a folder may ask for tuples, as of models exported by TorchScript
        _name_labels(config)
        task = ADAPTERS[entry.name](Loading(folder, config, spec, engine, place))
        with task.model.running():
            if isinstance(task, TextTask):
                measure(task)
            elif isinstance(task, ImageTask | AudioTask | ImageTextToText):
                measure_files(task)
            # What a probe runs takes long in a model that writes its answer, and there is nothing to choose for it.
            tried = probe(task) if entry.name in ONE_FORWARD else None
            if tried is not None:
                task.model = task.model.settle(tried, spec.engine != "auto")
                task.lanes = pick(task.model, tried, place, f"{entry.name} by {_shape(config)}")
        try_out(task, spec.defaults(entry))
        return task
    except ModelLoadError as error:
        raise ModelLoadError(f"`model={spec.model}`: {error}") from error
    except Exception as error:  # whatever the files of a folder make transformers raise is one line of a launch
        first = foreign(reason(error))
        if "ignore_mismatched_sizes" in first:
            first = "its weights have other sizes than its config.json says; fetch it again"
        raise ModelLoadError(
            f"`model={spec.model}`: cannot be loaded for {entry.name}: {type(error).__name__}: {first}"
        ) from error


def _shape(config: Any) -> str:
    """A name for all that a model's speed depends on, beside its engine."""
    return hashlib.sha256(config.to_json_string(use_diff=False).encode()).hexdigest()[:16]


def _name_labels(config: Any) -> None:
    """Makes every label a text: who numbers the outputs has numbers for labels."""
    labels: Mapping[int, Any] = getattr(config, "id2label", None) or {}
    if not all(isinstance(label, str) for label in labels.values()):
        config.id2label = {i: str(label) for i, label in labels.items()}
        config.label2id = {label: i for i, label in config.id2label.items()}


def transformer_path(folder: Path) -> str:
    """The sub-folder that holds the transformer: named by ``modules.json``, where there is one."""
    modules = folder / "modules.json"
    return json.loads(modules.read_text("utf-8"))[0].get("path", "") if modules.is_file() else ""
