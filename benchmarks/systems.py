"""The systems that are compared, each a process of its own: ``python -m benchmarks.systems NAME MODEL --input_… …``.

All read the same subscription, publish the same result and write the same audit row, with the project's own flags.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence

from benchmarks.null import NullHandler


def ours(model: str, flags: Sequence[str]) -> int:
    """The project's pipeline, as its users run it."""
    from pipeline import handlers, main

    if model == "null":
        handlers.make_handler = lambda settings: NullHandler()  # type: ignore[assignment]
    return main.main([*flags, f"--model={model}", "--task=text-classification"])


def stock(model: str, flags: Sequence[str]) -> int:
    """The pipeline that Beam's documentation shows."""
    from benchmarks import stock as pipeline

    return pipeline.run(model, _parse(flags))


def subscriber(model: str, flags: Sequence[str], planned: bool = False) -> int:
    """A careful script: pull, a batch of 32, publish, insert, acknowledge. ``planned`` gives it our handler."""
    from google.cloud import bigquery, pubsub_v1

    from benchmarks.stock import BATCH, classifier, result, row
    from pipeline import clients
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.records import Request

    args = _parse(flags)
    reader, publisher = pubsub_v1.SubscriberClient(), pubsub_v1.PublisherClient()
    client: bigquery.Client = clients.bigquery_client(args.audit_table.partition(":")[0])
    table = args.audit_table.replace(":", ".")
    if planned:
        handler = HuggingFaceModelHandler(model, "text-classification")
        engine = handler.load_model()
        print("model loaded", flush=True)
    else:
        classify = classifier(model)
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
            publisher.publish(args.output_topic, result(message_id, answer), message_id=message_id)
            for message_id, answer in zip(ids, answers, strict=True)
        ]
        client.insert_rows_json(table, [row(*each) for each in zip(ids, answers, strict=True)], row_ids=ids)
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
