"""The systems that are compared, each a process of its own: ``python -m benchmarks.systems NAME MODEL --input_… …``.

All read the same subscription, publish the same result and write the same audit row, with the project's own flags.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import slow
from benchmarks.null import NullHandler
from benchmarks.workloads import task


def ours(model: str, flags: Sequence[str], engine: str = "auto") -> int:
    """The project's pipeline, as its users run it."""
    from pipeline import handlers, main

    flags = [*flags, f"--engine={engine}"]
    if model == "null":
        handlers.make_handler = lambda settings: NullHandler()  # type: ignore[assignment]
    return main.main([*flags, f"--model={model}", f"--task={task(model)}"])


def stock(model: str, flags: Sequence[str], documented: bool = False) -> int:
    """Beam's documented pipeline, with a handler around ``transformers.pipeline`` or (``documented``) Beam's."""
    from benchmarks import beam_handler
    from benchmarks import stock as pipeline

    return pipeline.run(model, _parse(flags), beam_handler.handler if documented else pipeline.handler)


def subscriber(model: str, flags: Sequence[str], kind: str = "pipeline") -> int:
    """A careful script: pull, answer, publish, insert, acknowledge.

    It answers with ``transformers.pipeline`` in batches of 32, with sentence-transformers' ``encode``, or with our
    handler (``planned``). Of a vector the first eight numbers are published: as much as the labels of the others.
    """
    from google.cloud import bigquery, pubsub_v1

    from benchmarks.stock import BATCH, classifier, result, row
    from pipeline import clients
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.records import Request

    args = _parse(flags)
    reader, publisher = pubsub_v1.SubscriberClient(), pubsub_v1.PublisherClient()
    client: bigquery.Client = clients.bigquery_client(args.audit_table.partition(":")[0])
    table = args.audit_table.replace(":", ".")
    if kind == "planned":
        handler = HuggingFaceModelHandler(model, task(model))
        engine = handler.load_model()
        print("model loaded", flush=True)
    elif kind == "encode":
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(model, device="cpu")
        print("model loaded", flush=True)
    else:
        classify = classifier(model)

    def answer(texts: list[str]) -> list[Any]:
        if kind == "planned":
            return [each.prediction for each in handler.run_inference([Request(text) for text in texts], engine)]
        if kind == "encode":
            return [vector[:8].tolist() for vector in encoder.encode(texts)]
        return classify(texts, batch_size=BATCH, truncation=True)

    most = BATCH if kind == "pipeline" else 500
    while True:
        pulled = reader.pull(subscription=args.input_subscription, max_messages=most, timeout=60)
        received = pulled.received_messages
        if not received:
            continue
        answers = answer([json.loads(each.message.data)["inputs"] for each in received])
        ids = [each.message.message_id for each in received]
        sent = [
            publisher.publish(args.output_topic, result(message_id, answer), message_id=message_id)
            for message_id, answer in zip(ids, answers, strict=True)
        ]
        client.insert_rows_json(table, [row(*each) for each in zip(ids, answers, strict=True)], row_ids=ids)
        for future in sent:
            future.result()
        reader.acknowledge(subscription=args.input_subscription, ack_ids=[each.ack_id for each in received])


def served(model: str, flags: Sequence[str]) -> int:
    """The project's pipeline before infinity, a server of embeddings; whole vectors are published."""
    from pipeline import main

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(infinity()), "v2", f"--model-id={Path(model).resolve()}", "--served-model-name=served"]
    command += ["--engine=torch", "--device=cpu", "--dtype=float32", "--no-bettertransformer", "--url-prefix=/v1"]
    quiet = {**os.environ, "PYTHONPATH": "", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
    server = subprocess.Popen([*command, "--host=127.0.0.1", f"--port={port}"], env=quiet)  # noqa: S603
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        print("model loaded", flush=True)
        endpoint = [f"--endpoint=http://127.0.0.1:{port}/v1", "--model=served", "--task=feature-extraction"]
        return main.main([*flags, *endpoint])
    finally:
        server.terminate()
        server.wait()


def infinity() -> Path | None:
    """Where infinity's own environment has its program (docs/endpoints.md says how it is made); None without one."""
    program = Path(os.environ.get("ENDPOINT_SERVERS", "")) / "infinity/bin/infinity_emb"
    return program if program.exists() else None


def _parse(flags: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("input_subscription", "output_topic", "dead_letter_topic", "audit_table"):
        parser.add_argument(f"--{name}")
    return parser.parse_args(flags)


SYSTEMS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "ours": ours,
    "ours, torch": functools.partial(ours, engine="torch"),
    "stock": stock,
    "Beam's handler": functools.partial(stock, documented=True),
    "subscriber": subscriber,
    "sentence-transformers": functools.partial(subscriber, kind="encode"),
    "ours, infinity": served,
    "planned subscriber": functools.partial(subscriber, kind="planned"),
}


if __name__ == "__main__":
    slow.obey()
    if not sys.argv[1].startswith("ours"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    code = SYSTEMS[sys.argv[1]](sys.argv[2], sys.argv[3:])
    sys.stdout.flush()
    os._exit(code)
