"""The pipeline that Beam's documentation shows: Pub/Sub, RunInference, Pub/Sub and BigQuery, on DirectRunner."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.bigquery import RetryStrategy, WriteToBigQuery
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub, WriteToPubSub
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

BATCH = 32


def classifier(model: str) -> Any:
    """What Beam's and Transformers' documentation use: ``transformers.pipeline``."""
    print("model loaded", flush=True)
    if model == "null":
        return lambda texts, **_: [{"label": "NULL", "score": 1.0}] * len(texts)
    from transformers import pipeline

    return pipeline("text-classification", model=model, device="cpu")


def result(message_id: str, answer: Any) -> bytes:
    now = time.time()
    return json.dumps({"message_id": message_id, "prediction": answer, "processed_time": now}).encode()


def row(message_id: str, answer: Any) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "processed_time": time.time(),
        "status": "ok",
        "prediction": json.dumps(answer),
        "input_bytes": 0,
    }


class Loaded:
    """Beam holds models by weak reference; a plain class takes one."""

    def __init__(self, call: Any):
        self.call = call


class PipelineHandler(ModelHandler):
    """A batch handler around ``transformers.pipeline``."""

    def __init__(self, model: str):
        super().__init__()
        self._model = model

    def load_model(self) -> Loaded:
        return Loaded(classifier(self._model))

    def run_inference(self, batch: Sequence[str], model: Loaded, inference_args: Any = None) -> list[Any]:
        return list(model.call(list(batch), batch_size=BATCH, truncation=True))


def read(message: PubsubMessage) -> tuple[str, str]:
    return message.message_id, json.loads(message.data)["inputs"]


def to_message(message_id: str, answer: Any) -> PubsubMessage:
    return PubsubMessage(result(message_id, to_json(answer)), {"message_id": message_id})


def to_row(message_id: str, answer: Any) -> dict[str, Any]:
    return row(message_id, to_json(answer))


def handler(model: str) -> Any:
    """The handler above, for texts under a key."""
    return KeyedModelHandler(PipelineHandler(model))


def to_json(answer: Any) -> Any:
    """What a handler says of a text: Beam's own wrap it."""
    return getattr(answer, "inference", answer)


def run(model: str, args: argparse.Namespace, make: Callable[[str], Any] = handler) -> int:
    """Runs until ended."""
    _no_credentials()
    options = PipelineOptions(["--runner=DirectRunner"], streaming=True)
    with beam.Pipeline(options=options) as pipeline:
        answers = (
            pipeline
            | ReadFromPubSub(subscription=args.input_subscription, with_attributes=True)
            | beam.Map(read)
            | RunInference(make(model))
        )
        answers | beam.MapTuple(to_message) | WriteToPubSub(args.output_topic, with_attributes=True)
        if args.audit_table:
            (
                answers
                | beam.MapTuple(to_row)
                | WriteToBigQuery(
                    args.audit_table,
                    method=WriteToBigQuery.Method.STREAMING_INSERTS,
                    create_disposition="CREATE_NEVER",
                    insert_retry_strategy=RetryStrategy.RETRY_ON_TRANSIENT_ERROR,
                )
            )
    return 0


def _no_credentials() -> None:
    """Beam's BigQuery client looks for credentials for half a minute before it uses the emulator without any."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    google.auth.default = lambda *args, **kwargs: (AnonymousCredentials(), "my-project")
