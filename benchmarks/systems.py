"""The systems that are compared, each a process of its own: ``python -m benchmarks.systems NAME MODEL --input_… …``.

All read the same subscription, publish the same result and write the same audit row, with the project's own flags.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.null import NullHandler

BATCH = 32


def ours(model: str, flags: Sequence[str]) -> int:
    """The project's pipeline, as its users run it."""
    from pipeline import main

    if model == "null":
        main.make_handler = lambda settings: NullHandler()  # type: ignore[assignment]
    return main.main([*flags, f"--model={model}", "--task=text-classification"])


def _classifier(model: str) -> Any:
    """What Beam's and Transformers' documentation use: ``transformers.pipeline``."""
    print("model loaded", flush=True)
    if model == "null":
        return lambda texts, **_: [{"label": "NULL", "score": 1.0}] * len(texts)
    from transformers import pipeline

    return pipeline("text-classification", model=model, device="cpu")


def _result(message_id: str, answer: Any) -> bytes:
    now = time.time()
    return json.dumps({"message_id": message_id, "prediction": answer, "processed_time": now}).encode()


def _row(message_id: str, answer: Any) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "processed_time": time.time(),
        "status": "ok",
        "prediction": json.dumps(answer),
        "input_bytes": 0,
    }


def stock(model: str, flags: Sequence[str]) -> int:
    """The pipeline that Beam's documentation shows: Pub/Sub, RunInference, Pub/Sub and BigQuery, on DirectRunner."""
    import apache_beam as beam
    from apache_beam.io.gcp.bigquery import RetryStrategy, WriteToBigQuery
    from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub, WriteToPubSub
    from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    class Handler(ModelHandler):
        def load_model(self) -> Any:
            class Loaded:
                call = staticmethod(_classifier(model))

            return Loaded()

        def run_inference(self, batch: Sequence[str], model: Any, inference_args: Any = None) -> list[Any]:
            return list(model.call(list(batch), batch_size=BATCH, truncation=True))

    args = _parse(flags)
    table = args.audit_table
    with beam.Pipeline(
        options=PipelineOptions(["--runner=DirectRunner"], streaming=True, save_main_session=False)
    ) as pipeline:
        answers = (
            pipeline
            | ReadFromPubSub(subscription=args.input_subscription, with_attributes=True)
            | beam.Map(lambda message: (message.message_id, json.loads(message.data)["inputs"]))
            | RunInference(KeyedModelHandler(Handler()))
        )
        (
            answers
            | beam.MapTuple(
                lambda message_id, answer: PubsubMessage(_result(message_id, answer), {"message_id": message_id})
            )
            | WriteToPubSub(args.output_topic, with_attributes=True)
        )
        if table:
            (
                answers
                | beam.MapTuple(_row)
                | WriteToBigQuery(
                    table,
                    method=WriteToBigQuery.Method.STREAMING_INSERTS,
                    create_disposition="CREATE_NEVER",
                    insert_retry_strategy=RetryStrategy.RETRY_ON_TRANSIENT_ERROR,
                )
            )
    return 0


def subscriber(model: str, flags: Sequence[str], planned: bool = False) -> int:
    """A careful script: pull, a batch of 32, publish, insert, acknowledge. ``planned`` gives it our handler."""
    from google.cloud import bigquery, pubsub_v1

    from pipeline import io
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.records import Request

    args = _parse(flags)
    reader, publisher = pubsub_v1.SubscriberClient(), pubsub_v1.PublisherClient()
    client: bigquery.Client = io.bigquery_client(args.audit_table.partition(":")[0])
    table = args.audit_table.replace(":", ".")
    if planned:
        handler = HuggingFaceModelHandler(model, "text-classification")
        engine = handler.load_model()
        print("model loaded", flush=True)
    else:
        classify = _classifier(model)
    while True:
        pulled = reader.pull(subscription=args.input_subscription, max_messages=500 if planned else BATCH, timeout=60)
        received = pulled.received_messages
        if not received:
            continue
        texts = [json.loads(each.message.data)["inputs"] for each in received]
        if planned:
            answers = [each.prediction for each in handler.run_inference([Request(text) for text in texts], engine)]
        else:
            answers = classify(texts, batch_size=BATCH, truncation=True)
        ids = [each.message.message_id for each in received]
        sent = [
            publisher.publish(args.output_topic, _result(message_id, answer), message_id=message_id)
            for message_id, answer in zip(ids, answers, strict=True)
        ]
        client.insert_rows_json(table, [_row(*each) for each in zip(ids, answers, strict=True)], row_ids=ids)
        for future in sent:
            future.result()
        reader.acknowledge(subscription=args.input_subscription, ack_ids=[each.ack_id for each in received])


def _parse(flags: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("input_subscription", "output_topic", "dead_letter_topic", "audit_table"):
        parser.add_argument(f"--{name}")
    return parser.parse_args(flags)


SYSTEMS = {
    "ours": ours,
    "stock": stock,
    "subscriber": subscriber,
    "planned subscriber": lambda model, flags: subscriber(model, flags, planned=True),
}


if __name__ == "__main__":
    if sys.argv[1] != "ours":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    code = SYSTEMS[sys.argv[1]](sys.argv[2], sys.argv[3:])
    sys.stdout.flush()
    os._exit(code)
