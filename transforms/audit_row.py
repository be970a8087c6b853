"""The audit row of a message: its columns, its identity, and the bare one that no table can refuse."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import operator
from dataclasses import dataclass
from typing import Any

import orjson

from transforms import timing, tracing
from transforms.encode import rfc3339
from transforms.records import AuditRow, Failure, Message, ModelInfo, Result, identity
from transforms.windowing import Windowing

_COLUMNS = tuple(field.name for field in dataclasses.fields(AuditRow))
_values = operator.attrgetter(*_COLUMNS)


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What every row has in common, and what it may hold of a message.

    Of the input: none, hash or full. Of the prediction: none or full. Of the attributes, those named, or all for None.
    """

    windowing: Windowing
    job: str
    pipeline_version: str
    audit_input: str = "hash"
    audit_prediction: str = "full"
    audit_attributes: frozenset[str] | None = None


_NO_MODEL = ModelInfo("", "", "", "", "")


def row(record: Result | Failure, context: AuditContext, now: float) -> AuditRow:
    """The audit row of one message, which ended as ``record`` at ``now`` (seconds since the epoch)."""
    if isinstance(record, Failure):
        failure, message, model, prediction = record, record.message, record.model, None
    else:
        failure, prediction = None, record.prediction
        message, model = prediction.request.message, prediction.model
    model = model or _NO_MODEL
    window = context.windowing.bounds(message.event_time)
    kept = context.audit_attributes
    attributes = message.attributes if kept is None else {k: v for k, v in message.attributes.items() if k in kept}
    return AuditRow(
        message_id=identity(message),
        publish_time=rfc3339(message.publish_time),
        event_time=rfc3339(message.event_time),
        processed_time=rfc3339(now),
        window_start=rfc3339(window[0]) if window else None,
        window_end=rfc3339(window[1]) if window else None,
        status="dead_letter" if failure else "ok",
        stage=failure.stage if failure else None,
        error_type=failure.error_type if failure else None,
        error=_error(failure, context) if failure else None,
        task=model.task or None,
        model=model.model or None,
        model_revision=model.revision or None,
        variant=model.variant,
        models_version=model.models_version,
        device=model.device or None,
        dtype=model.dtype or None,
        engine=model.engine,
        prediction=_prediction(record, context),
        shadow=_shadow(record, context),
        input_sha256=None if context.audit_input == "none" else hashlib.sha256(message.data).hexdigest(),
        input_bytes=len(message.data),
        input=_readable(message.data) if context.audit_input == "full" else None,
        tokens=prediction.tokens if prediction else None,
        tokens_generated=prediction.tokens_generated if prediction else None,
        truncated=prediction.truncated if prediction else None,
        batch_size=prediction.batch_size if prediction else None,
        inference_ms=round(prediction.inference_ms, 3) if prediction else None,
        waiting_ms=timing.waiting_ms(message),
        batch_ms=timing.batch_ms(prediction) if prediction else None,
        sink_ms=timing.sink_ms(prediction, now) if prediction else None,
        cached=prediction.cached if prediction else None,
        total_ms=round((now - message.publish_time) * 1000, 3),
        attributes=orjson.dumps(dict(attributes)).decode() if attributes else "{}",
        ordering_key=message.ordering_key or None,
        trace_id=tracing.trace_id(message.attributes),
        job=context.job,
        worker=timing.worker(),
        pipeline_version=context.pipeline_version,
    )


def _prediction(record: Result | Failure, context: AuditContext) -> str | None:
    if isinstance(record, Failure) or context.audit_prediction == "none":
        return None
    return record.prediction_json.decode()


#: Longest prediction of a shadow beside the prediction that was served: a row over 10 MB is refused, and no message is
#: to suffer for its shadow.
_SHADOW_BYTES = 1_000_000


def _shadow(record: Result | Failure, context: AuditContext) -> str | None:
    found = record.shadow if isinstance(record, Failure) else record.prediction.shadow
    if found is None:
        return None
    note = {name: value for name, value in found.items() if name != "prediction"}
    prediction = found.get("prediction")
    if prediction is not None and context.audit_prediction == "full":
        short = len(prediction) <= _SHADOW_BYTES
        note |= {"prediction": orjson.Fragment(prediction)} if short else {"prediction": None, "cut": True}
    return orjson.dumps(note).decode()


def bare_row(failure: Failure, context: AuditContext, now: float) -> AuditRow:
    """A row that no table can refuse for the message's sake: nothing in it came with the message but its id."""
    values: dict[str, Any] = dict.fromkeys(_COLUMNS)
    values |= {
        "message_id": identity(failure.message).encode("utf-8", "replace").decode()[:_ID_CHARACTERS],
        "processed_time": rfc3339(now),
        "status": "dead_letter",
        "stage": failure.stage,
        "error_type": failure.error_type,
        "error": "see the dead letter: the table refused the full row",
        "input_sha256": None if context.audit_input == "none" else hashlib.sha256(failure.message.data).hexdigest(),
        "input_bytes": len(failure.message.data),
        "job": context.job,
        "worker": timing.worker(),
        "pipeline_version": context.pipeline_version,
    }
    return AuditRow(**values)


def _error(failure: Failure, context: AuditContext) -> str:
    """The failure's words; what they quote of the message, only where the row may hold the message itself."""
    return failure.error if context.audit_input == "full" or failure.redacted is None else failure.redacted


def _readable(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


#: https://cloud.google.com/bigquery/quotas#streaming_inserts: characters of an insertId
_ROW_ID = 128

#: Longest message id of a bare row; the service's own have some 20 characters.
_ID_CHARACTERS = 1_000


def row_id(record: Result | Failure, context: AuditContext) -> str:
    """The row's identity: a repeat after a crash has the same, and one that ended in another way has its own.

    BigQuery drops rows of an identity that it has seen within the minute, so another outcome, another model and another
    prediction must each have another.
    """
    if isinstance(record, Failure):
        model, ended = record.model, f"{record.stage}/{record.error_type}"
    else:
        model, ended = record.prediction.model, hashlib.blake2b(record.prediction_json, digest_size=8).hexdigest()
    parts = (context.job, identity(message_of(record)), model.model if model else "", model.revision if model else "")
    text = "/".join((*parts, ended))
    # What a service takes for an id is not known to the character: anything but plain ASCII goes as its hash.
    plain = len(text) <= _ROW_ID and text.isascii() and text.isprintable()
    return text if plain else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def message_of(record: Result | Failure) -> Message:
    """The message that ended as ``record``."""
    return record.message if isinstance(record, Failure) else record.prediction.request.message


def to_json(audit_row: AuditRow) -> dict[str, Any]:
    """``audit_row`` as ``tabledata.insertAll`` takes it."""
    return dict(zip(_COLUMNS, _values(audit_row), strict=True))
