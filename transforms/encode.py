"""Encode: a prediction becomes the message for the output topic."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import apache_beam as beam
import orjson

from transforms.barrier import guarded
from transforms.envelopes import Opener, schemas
from transforms.errors import MessageError
from transforms.kept import as_json, kept
from transforms.outcome import Outcome, split
from transforms.records import SCHEMA_VERSION, Limits, Prediction, Result


class TooLarge(MessageError):
    """The result is beyond what one message may hold; the message belongs in the dead letters."""


class NotJson(MessageError):
    """The prediction holds what JSON cannot; the message belongs in the dead letters."""


_OPENER = Opener()

#: First and last second that RFC 3339 and a timestamp column can hold: of the years 1 and 9999.
FIRST_SECOND, LAST_SECOND = -62_135_596_800.0, 253_402_300_799.0

#: Attributes that say how a message's body is written. A result's body is its own, and the input's would lie about it.
_OF_THE_BODY = frozenset(
    {"content-type", "content-encoding", "ce-datacontenttype", "ce-dataschema", *schemas.ATTRIBUTES}
)

#: What says of a message that it is a dead letter, where one was published again as it was. A result is none, and would
#: be replayed for one.
_OF_A_DEAD_LETTER = ("dead_letter_stage", "CloudPubSubDeadLetterSource")


#: The attribute with the first label of a result: a subscription can filter by it, as it cannot by what is in a body.
LABEL = "predicted_label"


def has_date(seconds: float) -> bool:
    """Whether ``seconds`` since the epoch are in the years 1 to 9999."""
    return FIRST_SECOND <= seconds <= LAST_SECOND


@functools.lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """``seconds`` since the epoch as RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")[:-6] + "Z"


def encode(prediction: Prediction, limits: Limits, keep: Mapping[str, Any] | None = None) -> Result:
    """Writes ``prediction`` as JSON, beside what it shall ``keep``, with the attributes that lead back to its message.

    Raises:
        NotJson: the prediction, or what is kept, has no JSON form.
        TooLarge: body or attributes are over ``limits``.
    """
    message, model = prediction.request.message, prediction.model
    numbers = _numbers(prediction.prediction)
    if numbers * 2 > limits.message_bytes:  # each takes two characters at the least; writing them takes gigabytes
        raise TooLarge(f"the result has {numbers:,} numbers; a message may hold {limits.message_bytes} bytes")
    try:
        prediction_json = orjson.dumps(prediction.prediction, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise NotJson(f"the prediction of task {model.task!r} has no JSON form: {error}") from None
    try:
        own_input = {name: orjson.Fragment(orjson.dumps(value, as_json)) for name, value in (keep or {}).items()}
    except TypeError as error:
        raise NotJson(f"the input has no JSON form for the result: {error}") from None
    names = {
        "schema_version": SCHEMA_VERSION,
        "message_id": message.message_id,
        "task": model.task,
        "model": model.model,
        "model_revision": model.revision,
    }
    data = orjson.dumps(
        {
            **names,
            "prediction": orjson.Fragment(prediction_json),
            **own_input,
            "event_time": rfc3339(message.event_time),
            "processed_time": rfc3339(prediction.time),
        }
    )
    own = {
        key: value
        for key, value in message.attributes.items()
        if key.lower() not in _OF_THE_BODY and not key.startswith(_OF_A_DEAD_LETTER)
    }
    if model.variant:
        names["variant"] = model.variant
    elif "message_id" in own:
        own.pop("variant", None)  # the job's before in the chain
    attributes = {**own, **names, "content-type": "application/json"}
    if "message_id" in message.attributes:
        # The input was itself a result: keep the way back to the first message of the chain.
        attributes.setdefault("origin_message_id", message.attributes["message_id"])
    attributes.pop(LABEL, None)  # what an earlier job predicted
    _check(data, attributes, limits)
    label = first_answer(prediction.prediction).get("label")
    if label is not None:
        labelled = {**attributes, LABEL: str(label)}
        with contextlib.suppress(TooLarge):  # a result is not lost for it
            _check(data, labelled, limits)
            attributes = labelled
    return Result(prediction, prediction_json, data, attributes, message.ordering_key)


def first_answer(prediction: Any) -> Mapping[str, Any]:
    """The first of ``prediction``'s answers; empty where it has none with names."""
    first = prediction[0] if isinstance(prediction, list) and prediction else None
    return first if isinstance(first, Mapping) else {}


def _numbers(prediction: Any) -> int:
    """How many numbers the arrays in ``prediction`` hold."""
    arrays = prediction if isinstance(prediction, list) else (prediction,)
    return sum(size for each in arrays if isinstance(size := getattr(each, "size", None), int))


def _check(data: bytes, attributes: dict[str, str], limits: Limits) -> None:
    if len(attributes) > limits.attributes:
        raise TooLarge(f"the result needs {len(attributes)} attributes; {limits.attributes} are allowed")
    for key, value in attributes.items():
        # A character is at most four bytes: only a value that may be too long is measured.
        if len(value) * 4 > limits.attribute_value_bytes and len(value.encode()) > limits.attribute_value_bytes:
            raise TooLarge(f"attribute {key!r} is over {limits.attribute_value_bytes} bytes")
    if len(data) + attributes_bytes(attributes) > limits.message_bytes:
        raise TooLarge(f"the result has {len(data)} bytes; a message may hold {limits.message_bytes}")


def attributes_bytes(attributes: dict[str, str]) -> int:
    """Upper bound on what ``attributes`` add to a message: four bytes a character and protobuf's framing."""
    return sum(4 * (len(key) + len(value)) + 16 for key, value in attributes.items())


class Encode(beam.PTransform[beam.PCollection[Prediction], Outcome]):
    """``Prediction`` → ``Outcome`` of ``Result``; what no message can hold fails with stage ``encode``.

    ``keep``, one of :data:`~transforms.kept.KEPT`, is what a result holds of its input; a body is read as ``Decode``
    read it, by the same ``input_path`` and ``opener``.
    """

    def __init__(self, limits: Limits, keep: str = "none", input_path: str | None = None, opener: Opener = _OPENER):
        super().__init__()
        self._fn = _EncodeFn(limits, keep, input_path is None, opener)

    def expand(self, predictions: beam.PCollection[Prediction]) -> Outcome:
        return Outcome.of(beam.ParDo(self._fn), predictions)


class _EncodeFn(beam.DoFn):
    def __init__(self, limits: Limits, keep: str = "none", by_shape: bool = True, opener: Opener = _OPENER):
        self._limits = limits
        self._keep = keep
        self._by_shape = by_shape
        self._opener = opener

    def process(self, prediction: Prediction) -> Iterator[Any]:
        message = prediction.request.message
        yield split(guarded(self._encode, prediction, message, "encode", prediction.model))

    def _encode(self, prediction: Prediction) -> Result:
        keep = kept(self._keep, prediction.request, self._opener, self._by_shape)
        return encode(prediction, self._limits, keep)
