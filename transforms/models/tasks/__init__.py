"""The tasks, one small adapter each, by their Hugging Face names."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from transforms.models.errors import ModelLoadError
from transforms.models.sharing import measure
from transforms.models.tasks.audio import AudioClassification, SpeechRecognition
from transforms.models.tasks.base import Loading, Task
from transforms.models.tasks.chat import TextGeneration
from transforms.models.tasks.classify import TextClassification, ZeroShotClassification
from transforms.models.tasks.embeddings import FeatureExtraction
from transforms.models.tasks.fallback import FALLBACKS
from transforms.models.tasks.multimodal import ImageTextToText
from transforms.models.tasks.question import QuestionAnswering
from transforms.models.tasks.text import TextTask
from transforms.models.tasks.tokens import FillMask, TokenClassification
from transforms.models.tasks.vision import (
    ImageClassification,
    ImageFeatureExtraction,
    ObjectDetection,
    ZeroShotImageClassification,
)

_ALL: tuple[type[Task], ...] = (
    TextClassification,
    TokenClassification,
    ZeroShotClassification,
    FillMask,
    QuestionAnswering,
    FeatureExtraction,
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

#: Every task by name. Where an architecture fits several, the first one is what it stands for.
TASKS: dict[str, type[Task]] = {task.name: task for task in _ALL}

#: Other names for the same.
ALIASES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
}


def pick_task(asked: str | None, config: Mapping[str, Any], names: Collection[str], model: str) -> type[Task]:
    """The task for a model: the one ``asked`` for, or the one that its architecture stands for.

    Raises:
      ModelLoadError: there is no such task, the model was not made for it, or it must be named.
    """
    name = ALIASES.get(asked or "", asked)
    given = set(config.get("architectures") or ())
    fitting = [task for task in TASKS.values() if given & task.architectures()]
    if name is None:
        if "modules.json" in names:
            return FeatureExtraction
        if fitting:
            return fitting[0]
        raise ModelLoadError(
            f"--model={model}: its architecture ({', '.join(sorted(given)) or 'not named'}) does not tell the task;"
            f" give --task, one of: {', '.join(sorted(TASKS))}"
        )
    task = TASKS.get(name)
    if task is None:
        raise ModelLoadError(f"--task={asked}: no such task; there are: {', '.join(sorted(TASKS))}")
    takes = task.architectures()
    if takes and given and not given & takes:
        others = ", ".join(other.name for other in fitting) or "feature-extraction"
        raise ModelLoadError(
            f"--task={asked}: --model={model} is a {', '.join(sorted(given))}, which was not made for that;"
            f" it can do: {others}"
        )
    return task


def build_task(
    name: str,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    refuse_too_long: bool,
    time_limit_s: float | None,
    model: str,
) -> Task:
    """The task, with the model of ``folder`` loaded.

    Raises:
      ModelLoadError: transformers cannot load it.
    """
    task = TASKS[name]
    transformers.logging.disable_progress_bar()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        transformers.logging.set_verbosity_error()  # it would warn again at every forward
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder / transformer_path(folder), trust_remote_code=False, local_files_only=True
        )
        built = task(Loading(folder, device, dtype, config, refuse_too_long, time_limit_s))
        if isinstance(built, TextTask):
            with torch.inference_mode():
                measure(built)
        return built
    except ModelLoadError as error:
        raise ModelLoadError(f"--model={model}: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelLoadError(
            f"--model={model}: cannot be loaded for {name}: {type(error).__name__}: {first}"
        ) from error


def transformer_path(folder: Path) -> str:
    """The sub-folder that holds the transformer: named by ``modules.json``, where there is one."""
    modules = folder / "modules.json"
    return json.loads(modules.read_text("utf-8"))[0].get("path", "") if modules.is_file() else ""
