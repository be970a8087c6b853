"""The job on one screen.

    subscription ─ Decode ─ Predict ─ Encode ─ Audit ─ output topic
                     │         │         │       │
                     └─────────┴─ failures ──────┴─ Audit ─ DeadLetter ─ dead-letter topic

Every message ends as one result or one dead letter. Its audit row is written first, so that a row which the table
refuses can still make it a dead letter, and nothing is acknowledged before either is published.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from pipeline import __version__, clients, io
from pipeline.audit_sink import BigQuerySink
from pipeline.options import Settings
from pipeline.summary import Summarise
from transforms.audit import Audit, AuditContext
from transforms.dead_letter import DeadLetter, Source
from transforms.decode import Decode
from transforms.encode import Encode
from transforms.outcome import Outcome
from transforms.predict import Handler, Predict
from transforms.records import Message


def serve(messages: beam.PCollection[Message], handler: Handler, *decoding: Any, keep: str = "none") -> Outcome:
    """``Message`` → ``Outcome`` of ``Result``: everything but the endpoints. ``decoding`` is what ``Decode`` takes."""
    requests = messages | "Decode" >> Decode(*decoding)
    predictions = requests.results | "Predict" >> Predict(handler)
    results = predictions.results | "Encode" >> Encode(clients.LIMITS, keep, *decoding)
    failures = (requests.failures, predictions.failures, results.failures) | "Failures" >> beam.Flatten()
    return Outcome(results.results, failures)


def build(pipeline: beam.Pipeline, settings: Settings, handler: Handler) -> None:
    """Attaches the endpoints: the subscription, the two topics and the audit table."""
    # Input
    messages = pipeline | "Read" >> io.read(settings)

    # Main output
    results, *failed = io.spread(serve(messages, handler, *io.reading(settings), keep=settings.result_input), settings)
    if settings.audit_table:
        context = AuditContext(settings.window, settings.job, __version__, settings.audit_input)
        sink = BigQuerySink(settings.audit_table)
        results, rejected = results | "Audit" >> Audit(sink, context)
        failed.append(rejected)
    failed += results | "Publish" >> io.publish(settings.output_topic, settings)

    # Error output
    failures = failed | "AllFailures" >> beam.Flatten()
    if settings.audit_table:
        failures, _ = failures | "AuditFailures" >> Audit(sink, context)
        if settings.summary_table and not settings.local:
            pipeline | "Summarise" >> Summarise(settings)
    letters = failures | "DeadLetter" >> DeadLetter(clients.LIMITS, Source(settings.job, settings.input_subscription))
    letters | "PublishDead" >> io.publish(settings.dead_letter_topic, settings)
