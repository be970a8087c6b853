"""The tasks: what each takes, its parameters, and the shape of its prediction. Read by all that knows tasks.

To add one: its line here, an adapter in ``tasks/`` (or a shape of an endpoint's answer), a test, its section in
docs/models.md. Imports neither torch nor transformers: a job that only calls an endpoint needs none.
"""

from __future__ import annotations

from transforms.models import inputs, pair_shapes, shapes, structured
from transforms.models.errors import ModelLoadError
from transforms.models.parameters import boolean, choice, integer, number, template, text, text_list, texts
from transforms.models.task_entry import TaskEntry
from transforms.models.task_parameters import DIMENSIONS, FUNCTION, GENERATION, LABELS, LANGUAGES, REWRITING, chunk

#: Where a model's architecture fits several tasks, the first one is what it stands for.
_ALL = (
    TaskEntry(
        "text-classification",
        "text",
        inputs.text_or_pair,
        {"top_k": integer(1, nullable=True), "function_to_apply": FUNCTION},
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
    # Before fill-mask: BART and mBART are listed for both, and nobody trains them to fill masks.
    TaskEntry(
        "text2text-generation",
        "text",
        inputs.text,
        {**REWRITING, **LANGUAGES},
        shape=shapes.texts("generated_text"),
        small="Hello",
        stops=True,
    ),
    TaskEntry(
        "summarization",
        "text",
        inputs.text,
        REWRITING,
        shape=shapes.texts("summary_text"),
        small="Hello, who are you?",
        stops=True,
    ),
    TaskEntry(
        "translation",
        "text",
        inputs.text,
        {**REWRITING, **LANGUAGES},
        shape=shapes.texts("translation_text"),
        small="Hello",
        stops=True,
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
        {
            "normalize": boolean(),
            "truncate": boolean(),
            "prompt_name": text(),
            "pooling": choice("none"),
            "chunk": chunk(),
            **DIMENSIONS,
        },
        shape=shapes.embedding,
        small="Hello",
    ),
    TaskEntry(
        "sentence-similarity",
        "text",
        inputs.sentences,
        {"truncate": boolean(), "prompt_name": text(), **DIMENSIONS},
        shape=pair_shapes.similarities,
        small={"source_sentence": "Hello", "sentences": ["Hi"]},
    ),
    TaskEntry(
        "text-ranking",
        "text",
        inputs.query,
        {"raw_scores": boolean(), "return_text": boolean(), "top_k": integer(1), "truncate": boolean()},
        shape=pair_shapes.ranks,
        small={"query": "Hello", "texts": ["Hi"]},
        aliases=("rerank",),
    ),
    TaskEntry(
        "text-generation",
        "text",
        inputs.prompt_or_chat,
        {
            **GENERATION,
            "return_full_text": boolean(),
            "truncate": integer(1),
            "response_format": structured.response_format(),
            "grammar": structured.grammar(),
        },
        shape=shapes.generated,
        small="Hello",
        stops=True,
    ),
    TaskEntry("image-classification", "image", inputs.media, LABELS, shape=shapes.labels(5)),
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
    TaskEntry("image-text-to-text", "image", inputs.picture_and_text, GENERATION, shape=shapes.generated, stops=True),
    TaskEntry("audio-classification", "audio", inputs.media, LABELS, shape=shapes.labels(5)),
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
