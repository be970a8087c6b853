"""The same job as Beam's documentation writes it, to be killed beside ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub, WriteToPubSub
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from fake_job import Behaviour, Handler

from transforms.records import Message, Request


def run(argv: Sequence[str], how: Behaviour) -> int:
    """Runs until it is killed; takes the same flags as ours."""
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in argv)
    with beam.Pipeline(options=PipelineOptions([], streaming=True)) as pipeline:
        (
            pipeline
            | ReadFromPubSub(subscription=flags["input_subscription"], with_attributes=True)
            | beam.Map(to_request)
            | RunInference(Handler(how))
            | beam.Map(to_result)
            | WriteToPubSub(flags["output_topic"], with_attributes=True)
        )
        print("running; Ctrl-C ends it", flush=True)
    return 0


def to_request(message: PubsubMessage) -> Request:
    return Request(json.loads(message.data)["inputs"], {}, Message(message.data, {}, message.message_id))


def to_result(prediction: Any) -> PubsubMessage:
    return PubsubMessage(
        json.dumps(prediction.prediction).encode(), {"message_id": prediction.request.message.message_id}
    )
