"""The tasks: what each takes, its parameters, and the shape of its prediction. Read by all that knows tasks.

To add one: its line here, an adapter in ``tasks/`` (or a shape of an endpoint's answer), a test, its section in
docs/models.md. Imports neither torch nor transformers: a job that only calls an endpoint needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.models import inputs, shapes
from transforms.models.errors import InvalidParameter, ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.parameters import Parameter, boolean, choice, integer, number, template, text, text_list, texts


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task.

    ``check`` tests a message's inputs; ``needed`` parameters have no default. ``shape`` brings an endpoint's answer
    into the prediction that local weights give; without one, no endpoint can be asked. ``small`` is an input to try an
    endpoint with. ``weights`` says whether local weights can be loaded, ``stops`` whether a time limit can be kept.
    """

    name: str
    modality: str
    check: Callable[[Any], Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    shape: Callable[[Any, Ask], Any] | None = None
    small: Any = None
    weights: bool = True
    stops: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether the inputs are one file's bytes: an image or a recording."""
        return self.check is inputs.media

    def require(self, parameters: Mapping[str, Any]) -> None:
        """Raises ``InvalidParameter`` where one that has no default is missing."""
        for name in self.needed:
            if not parameters.get(name):
                raise InvalidParameter(f"parameters.{name}: needed by {self.name}")

    def read(self, answer: Any, ask: Ask) -> Any:
        """An endpoint's ``answer`` to ``ask`` as the task's prediction.

        Raises:
          Misfit: it is not one of this task.
          NonFinite: it has no number where one belongs.
        """
        assert self.shape is not None, f"no endpoint can be asked for {self.name}"
        shapes.check_depth(answer)
        return self.shape(answer, ask)


_FUNCTION = choice("softmax", "sigmoid", "none")
_LABELS = {"top_k": integer(1), "function_to_apply": _FUNCTION}
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
    "stop": text_list(most=16, longest=256),
}

#: Where a model's architecture fits several tasks, the first one is what it stands for.
_ALL = (
    TaskEntry(
        "text-classification",
        "text",
        inputs.text_or_pair,
        {"top_k": integer(1, nullable=True), "function_to_apply": _FUNCTION},
        shape=shapes.labels(1),
        small="Hello",
        aliases=("sentiment-analysis",),
    ),
    TaskEntry(
        "token-classification",
        "text",
        inputs.text,
        {
            "aggregation_strategy": choice("none", "simple", "first", "average", "max"),
            "ignore_labels": text_list(most=1000, least=0),
            "stride": integer(0),
        },
        shape=shapes.objects("score"),
        small="Hello",
        aliases=("ner",),
    ),
    TaskEntry(
        "zero-shot-classification",
        "text",
        inputs.text,
        {"candidate_labels": texts(most=100), "hypothesis_template": template(), "multi_label": boolean()},
        needed=("candidate_labels",),
        shape=shapes.zero_shot,
        small="Hello",
    ),
    TaskEntry(
        "fill-mask",
        "text",
        inputs.text,
        {"top_k": integer(1, 1000), "targets": texts(most=1000)},
        shape=shapes.fills,
        small="Hello [MASK]",
    ),
    TaskEntry(
        "question-answering",
        "text",
        inputs.question,
        {
            "top_k": integer(1, 100),
            "doc_stride": integer(0),
            "max_answer_len": integer(1, 512),
            "max_seq_len": integer(8),
            "max_question_len": integer(1),
            "handle_impossible_answer": boolean(),
            "align_to_words": boolean(),
        },
        shape=shapes.spans,
        small={"question": "Who?", "context": "You."},
    ),
    TaskEntry(
        "feature-extraction",
        "text",
        inputs.text_or_texts,
        {"normalize": boolean(), "truncate": boolean(), "prompt_name": text(), "pooling": choice("none")},
        shape=shapes.embedding,
        small="Hello",
    ),
    TaskEntry(
        "text-generation",
        "text",
        inputs.prompt_or_chat,
        {**_GENERATION, "return_full_text": boolean(), "truncate": integer(1)},
        shape=shapes.generated,
        small="Hello",
        stops=True,
    ),
    TaskEntry("image-classification", "image", inputs.media, _LABELS, shape=shapes.labels(5)),
    TaskEntry("image-feature-extraction", "image", inputs.media, {"pool": boolean()}, shape=shapes.features),
    TaskEntry(
        "zero-shot-image-classification",
        "image",
        inputs.media,
        {"candidate_labels": text_list(most=1000), "hypothesis_template": template()},
        needed=("candidate_labels",),
        shape=shapes.labels(None),
    ),
    TaskEntry(
        "object-detection",
        "image",
        inputs.media,
        {"threshold": number(0, 1)},
        shape=shapes.objects("score", "label", "box"),
    ),
    TaskEntry("image-text-to-text", "image", inputs.picture_and_text, _GENERATION, shape=shapes.generated, stops=True),
    TaskEntry("audio-classification", "audio", inputs.media, _LABELS, shape=shapes.labels(5)),
    TaskEntry(
        "automatic-speech-recognition",
        "audio",
        inputs.media,
        {
            "return_timestamps": choice(True, False, "word", "char"),
            "chunk_length_s": number(0, 600, open_start=True),
            "stride_length_s": number(0, 600),
            "max_new_tokens": integer(1, 4096),
            "num_beams": integer(1, 16),
            "language": text(),
            "task": choice("transcribe", "translate"),
        },
        shape=shapes.transcript,
    ),
    TaskEntry(
        "image-segmentation",
        "image",
        inputs.media,
        {
            "threshold": number(0, 1),
            "mask_threshold": number(0, 1),
            "overlap_mask_area_threshold": number(0, 1),
            "subtask": choice("semantic", "instance", "panoptic"),
        },
        shape=shapes.objects("label", "mask"),
    ),
    TaskEntry("depth-estimation", "image", inputs.media),
    TaskEntry(
        "zero-shot-object-detection",
        "image",
        inputs.media,
        {"candidate_labels": text_list(most=1000), "threshold": number(0, 1), "top_k": integer(1)},
        needed=("candidate_labels",),
    ),
    TaskEntry(
        "zero-shot-audio-classification",
        "audio",
        inputs.media,
        {"candidate_labels": text_list(most=1000), "hypothesis_template": template()},
        needed=("candidate_labels",),
    ),
    TaskEntry("text-to-audio", "text", inputs.text),
    TaskEntry(
        "document-question-answering",
        "image",
        inputs.document,
        {"top_k": integer(1, 100), "max_answer_len": integer(1), "lang": choice("eng", "deu", "fra", "spa")},
        shape=shapes.objects("score", "answer"),
    ),
)

#: Every task by name.
TASKS: dict[str, TaskEntry] = {entry.name: entry for entry in _ALL}

#: Other names for the same.
ALIASES: dict[str, str] = {alias: entry.name for entry in _ALL for alias in entry.aliases}


def find(asked: str | None) -> TaskEntry | None:
    """The task of that name or alias, if there is one."""
    return TASKS.get(ALIASES.get(asked or "", asked or ""))


def endpoint_task(asked: str | None) -> TaskEntry:
    """The task named ``asked``, if an endpoint can be asked for it.

    Raises:
      ModelLoadError: there is none of that name for endpoints.
    """
    entry = find(asked)
    if entry is None or entry.shape is None:
        known = ", ".join(sorted(name for name, each in TASKS.items() if each.shape is not None))
        raise ModelLoadError(f"`task={asked}`: not a task for an endpoint; there are: {known}")
    return entry
