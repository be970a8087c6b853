"""The tasks that can be asked of an endpoint: what each takes, its parameters, and the shape of its prediction.

Parameters are those of the same task with local weights; a test holds the two tables together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transforms.models.errors import InvalidParameter, ModelLoadError
from transforms.models.parameters import Parameter, boolean, choice, integer, number, template, text, text_list, texts
from transforms.models.remote import inputs, shapes
from transforms.models.remote.inputs import Ask


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """A task by its Hugging Face name. ``media`` inputs are bytes; ``needed`` parameters have no default."""

    name: str
    check: Callable[[Any], Any]
    shape: Callable[[Any, Ask], Any]
    parameters: Mapping[str, Parameter]
    needed: tuple[str, ...] = ()
    media: bool = False

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raises ``InvalidParameter`` where one is missing."""
        for name in self.needed:
            if not parameters.get(name):
                raise InvalidParameter(f"parameters.{name}: needed by {self.name}")


_FUNCTION = choice("softmax", "sigmoid", "none")
_GENERATION = {
    "max_new_tokens": integer(1, 1_000_000),
    "do_sample": boolean(),
    "temperature": number(0, 100, open_start=True),
    "top_k": integer(1),
    "top_p": number(0, 1, open_start=True),
    "typical_p": number(0, 1, open_start=True),
    "repetition_penalty": number(0, 100, open_start=True),
    "num_beams": integer(1, 32),
    "num_return_sequences": integer(1, 32),
    "seed": integer(0, 2**63 - 1),
    "stop": text_list(most=16),
}

TASKS = {
    task.name: task
    for task in (
        RemoteTask(
            "text-classification",
            inputs.text_or_pair,
            shapes.labels(1),
            {"top_k": integer(1, nullable=True), "function_to_apply": _FUNCTION},
        ),
        RemoteTask(
            "token-classification",
            inputs.text,
            shapes.objects("score"),
            {
                "aggregation_strategy": choice("none", "simple", "first", "average", "max"),
                "ignore_labels": text_list(most=1000, least=0),
                "stride": integer(0),
            },
        ),
        RemoteTask(
            "zero-shot-classification",
            inputs.text,
            shapes.zero_shot,
            {"candidate_labels": texts(most=100), "hypothesis_template": template(), "multi_label": boolean()},
            needed=("candidate_labels",),
        ),
        RemoteTask("fill-mask", inputs.text, shapes.fills, {"top_k": integer(1, 1000), "targets": texts(most=1000)}),
        RemoteTask(
            "question-answering",
            inputs.question,
            shapes.spans,
            {
                "top_k": integer(1, 100),
                "doc_stride": integer(0),
                "max_answer_len": integer(1, 512),
                "max_seq_len": integer(8),
                "max_question_len": integer(1),
                "handle_impossible_answer": boolean(),
                "align_to_words": boolean(),
            },
        ),
        RemoteTask(
            "feature-extraction",
            inputs.text_or_texts,
            shapes.embedding,
            {"normalize": boolean(), "truncate": boolean(), "prompt_name": text(), "pooling": choice("none")},
        ),
        RemoteTask(
            "text-generation",
            inputs.prompt_or_chat,
            shapes.generated,
            {**_GENERATION, "return_full_text": boolean(), "truncate": integer(1)},
        ),
        RemoteTask("image-text-to-text", inputs.picture_and_text, shapes.generated, _GENERATION),
        RemoteTask(
            "image-classification",
            inputs.media,
            shapes.labels(5),
            {"top_k": integer(1), "function_to_apply": _FUNCTION},
            media=True,
        ),
        RemoteTask("image-feature-extraction", inputs.media, shapes.anything, {"pool": boolean()}, media=True),
        RemoteTask(
            "zero-shot-image-classification",
            inputs.media,
            shapes.labels(None),
            {"candidate_labels": text_list(most=1000), "hypothesis_template": template()},
            needed=("candidate_labels",),
            media=True,
        ),
        RemoteTask(
            "object-detection",
            inputs.media,
            shapes.objects("score", "label", "box"),
            {"threshold": number(0, 1)},
            media=True,
        ),
        RemoteTask(
            "image-segmentation",
            inputs.media,
            shapes.objects("label", "mask"),
            {
                "threshold": number(0, 1),
                "mask_threshold": number(0, 1),
                "overlap_mask_area_threshold": number(0, 1),
                "subtask": choice("semantic", "instance", "panoptic"),
            },
            media=True,
        ),
        RemoteTask(
            "document-question-answering",
            inputs.document,
            shapes.objects("score", "answer"),
            {
                "top_k": integer(1, 100),
                "max_answer_len": integer(1),
                "lang": choice("eng", "deu", "fra", "spa"),
            },
        ),
        RemoteTask(
            "audio-classification",
            inputs.media,
            shapes.labels(5),
            {"top_k": integer(1), "function_to_apply": _FUNCTION},
            media=True,
        ),
        RemoteTask(
            "automatic-speech-recognition",
            inputs.media,
            shapes.transcript,
            {
                "return_timestamps": choice(True, False, "word", "char"),
                "chunk_length_s": number(0, 600, open_start=True),
                "stride_length_s": number(0, 600),
                "max_new_tokens": integer(1, 4096),
                "num_beams": integer(1, 16),
                "language": text(),
                "task": choice("transcribe", "translate"),
            },
            media=True,
        ),
    )
}

ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


def pick_task(asked: str | None) -> RemoteTask:
    """The task named ``asked``.

    Raises:
      ModelLoadError: there is none of that name for endpoints.
    """
    task = TASKS.get(ALIASES.get(asked or "", asked or ""))
    if task is None:
        raise ModelLoadError(f"--task={asked}: not a task for an endpoint; there are: {', '.join(sorted(TASKS))}")
    return task
