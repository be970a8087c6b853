"""The records that flow through the pipeline, and the BigQuery schema of the audit row.

All are frozen: a step makes a new record and never changes one. Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from transforms import excerpt
from transforms.travel import travels

#: Version of the result format, carried in every result and its attributes.
SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may hold, in bytes and attributes."""

    message_bytes: int
    attributes: int
    attribute_value_bytes: int


#: Longest error of a failure.
ERROR_CHARACTERS = 2_000

#: Where a message can fail, in flow order.
STAGES = ("decode", "predict", "encode", "audit")


@travels
@dataclass(frozen=True, slots=True)
class Message:
    """One Pub/Sub message, as it arrived."""

    data: bytes = b""
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_id: str = ""
    publish_time: float = 0.0
    event_time: float = 0.0
    ordering_key: str = ""
    #: Why the runner gives this message up: its bundle failed with it alone. It goes straight to the dead letters.
    given_up: str = ""
    #: When a worker began with it, and for how long sinks held it up before that (see transforms/timing.py).
    taken: float = field(default=0.0, compare=False)
    held: float = field(default=0.0, compare=False)


def identity(message: Message) -> str:
    """``message``'s id; where a source gave none, one made of its content and the time it was published."""
    if message.message_id:
        return message.message_id
    content = repr((message.publish_time, sorted(message.attributes.items()))).encode("utf-8", "replace")
    return f"content-{hashlib.sha256(content + message.data).hexdigest()[:32]}"


@travels
@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked: ``inputs`` and ``parameters`` as a Hugging Face inference endpoint takes them.

    ``inputs`` is any JSON value, or bytes for raw images and audio. ``message`` never enters the model.
    """

    inputs: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    message: Message = Message()

    def packed(self) -> tuple[Any, ...]:
        """How it travels: the payload once, in the message, and where in it the inputs are."""
        return excerpt.find(self.inputs, self.message.data), self.parameters, self.message

    @classmethod
    def unpacked(cls, place: excerpt.Place, parameters: Mapping[str, Any], message: Message) -> Request:
        """What ``packed`` wrote."""
        return cls(excerpt.read(place, message.data), parameters, message)


@travels
@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered, and how it ran; one shared object per loaded model."""

    task: str
    model: str
    revision: str
    device: str
    dtype: str
    engine: str | None = None
    #: Which of the job's models it is, where a file names several, and the version of that file and their revisions.
    variant: str | None = None
    models_version: str | None = None


@travels
@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer to one request.

    ``prediction`` has the shape that ``model.task`` has on a Hugging Face endpoint; NumPy arrays stand for lists.
    ``tokens`` counts what the model read after truncation (``None`` where the task has none), ``batch_size`` the
    elements in the micro-batch, ``inference_ms`` that micro-batch's forward time. ``cached`` says whether it is an
    earlier answer to the same question, None where none are kept.
    """

    request: Request
    prediction: Any
    model: ModelInfo
    tokens: int | None = None
    truncated: bool = False
    batch_size: int = 1
    inference_ms: float = 0.0
    time: float = 0.0
    #: Tokens that the model wrote, where it writes any.
    tokens_generated: int | None = None
    cached: bool | None = None
    #: What another model said, for the audit row alone: its ``prediction`` is JSON text.
    shadow: Mapping[str, Any] | None = None


@travels
@dataclass(frozen=True, slots=True)
class Result:
    """A prediction encoded for the output topic: ``data``, ``attributes`` and ``ordering_key`` are published."""

    prediction: Prediction
    prediction_json: bytes
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str

    def packed(self) -> tuple[Any, ...]:
        """How it travels: the prediction once, in ``data``, and without the inputs, which are answered."""
        made = self.prediction
        run = (made.tokens, made.truncated, made.batch_size, made.inference_ms, made.time)
        added = (made.tokens_generated, made.cached, made.shadow)
        place = excerpt.find(self.prediction_json, self.data)
        return made.request.message, made.model, run + added, place, self.data, self.attributes, self.ordering_key

    @classmethod
    def unpacked(
        cls, message: Message, model: ModelInfo, run: tuple[Any, ...], place: excerpt.Place, data: bytes, *rest: Any
    ) -> Result:
        """What ``packed`` wrote."""
        written = excerpt.read(place, data)
        return cls(Prediction(Request(None, {}, message), orjson.loads(written), model, *run), written, data, *rest)


@travels
@dataclass(frozen=True, slots=True)
class Failure:
    """A message that could not become a result: the stage, and an error fit for a person to read.

    ``redacted`` is the error without what it quotes of the message, where the two differ. Both are cut to
    :data:`ERROR_CHARACTERS`, whoever wrote them.
    """

    message: Message
    stage: str
    error_type: str
    error: str
    time: float
    model: ModelInfo | None = None
    redacted: str | None = None
    shadow: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", _cut(self.error))
        if self.redacted is not None:
            object.__setattr__(self, "redacted", None if self.redacted == self.error else _cut(self.redacted))


def _cut(text: str) -> str:
    return text if len(text) <= ERROR_CHARACTERS else text[: ERROR_CHARACTERS - 1] + "…"


def column(kind: str, description: str, required: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that carries its BigQuery column."""
    mode = "REQUIRED" if required else "NULLABLE"
    return field(metadata={"type": kind, "mode": mode, "description": description}, default=default)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row a message in the audit table; a field's metadata is its BigQuery column.

    Timestamps are RFC 3339 strings and JSON columns are JSON text, as ``tabledata.insertAll`` takes them.
    """

    message_id: str = column("STRING", "Pub/Sub message id of the input", required=True)
    publish_time: str | None = column("TIMESTAMP", "when the input was published")
    event_time: str | None = column("TIMESTAMP", "the input's own time, or when it was published")
    processed_time: str = column("TIMESTAMP", "when the pipeline finished with it", required=True)
    window_start: str | None = column("TIMESTAMP", "start of the event-time window it belongs to")
    window_end: str | None = column("TIMESTAMP", "end of that window, exclusive")
    status: str = column("STRING", "ok or dead_letter", required=True)
    stage: str | None = column("STRING", "where it failed: decode, predict, encode or audit")
    error_type: str | None = column("STRING", "kind of the failure")
    error: str | None = column("STRING", "the failure in words")
    task: str | None = column("STRING", "Hugging Face task")
    model: str | None = column("STRING", "model id or folder")
    model_revision: str | None = column("STRING", "commit hash, or hash of a local folder's weights")
    variant: str | None = column("STRING", "which of the job's models answered, by its name in the models file")
    models_version: str | None = column("STRING", "the models file and its models' revisions that were in force")
    device: str | None = column("STRING", "where the model ran")
    dtype: str | None = column("STRING", "number format it ran in")
    engine: str | None = column("STRING", "what computed the answer: torch or openvino; none for an endpoint's")
    prediction: str | None = column("JSON", "the model's answer")
    shadow: str | None = column("JSON", "another model's answer, which went nowhere else, and whether it agrees")
    input_sha256: str | None = column("STRING", "SHA-256 of the input's bytes, hex")
    input_bytes: int = column("INTEGER", "length of the input")
    input: str | None = column("STRING", "the input itself, with audit_input=full; base64 where it is not UTF-8")
    tokens: int | None = column("INTEGER", "tokens the model read")
    tokens_generated: int | None = column("INTEGER", "tokens the model wrote, where it writes any")
    truncated: bool | None = column("BOOLEAN", "whether the input was cut to the model's maximum")
    batch_size: int | None = column("INTEGER", "elements in the micro-batch it ran in")
    inference_ms: float | None = column("FLOAT", "forward time of that micro-batch")
    waiting_ms: float | None = column("FLOAT", "from publish until a worker began with it")
    batch_ms: float | None = column("FLOAT", "from then to its answer, less inference_ms")
    sink_ms: float | None = column(
        "FLOAT", "how long table and topics held it up, as far as known when this is written"
    )
    cached: bool | None = column("BOOLEAN", "whether it is an endpoint's earlier answer to the same question")
    total_ms: float | None = column("FLOAT", "from publish to processed")
    attributes: str | None = column("JSON", "the input's attributes")
    ordering_key: str | None = column("STRING", "the input's ordering key")
    trace_id: str | None = column("STRING", "trace id of the input's traceparent")
    job: str | None = column("STRING", "name of the job that handled it")
    worker: str | None = column("STRING", "host and process that handled it")
    pipeline_version: str | None = column("STRING", "version of this pipeline")


#: The audit table: its columns as the BigQuery API writes them, its partitioning and its clustering.
AUDIT_SCHEMA: list[dict[str, str]] = [{"name": f.name, **f.metadata} for f in dataclasses.fields(AuditRow)]
AUDIT_PARTITION_FIELD = "processed_time"
AUDIT_CLUSTERING = ["model", "status"]


if __name__ == "__main__":
    import json

    print(json.dumps(AUDIT_SCHEMA, indent=2))
