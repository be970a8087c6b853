"""The job on one screen.

    subscription ─ Decode ─ Predict ─ Encode ─ Audit ─ output topic
                     │         │         │       │
                     └─────────┴─ failures ──────┴─ Audit ─ DeadLetter ─ dead-letter topic
                                                 │
                            outcomes ─ Window ─ Summarise ─ summary table, summary topic

Every message ends as one result or one dead letter, its audit row first; no message waits for the windows.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from pipeline import clients, io
from pipeline.options import Settings
from transforms.dead_letter import DeadLetter, Source
from transforms.decode import Decode
from transforms.encode import Encode
from transforms.outcome import Outcome
from transforms.predict import Handler, Predict
from transforms.records import Message
from transforms.summary import Summarise


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
        results, rejected = results | "Audit" >> io.audit(settings)
        failed.append(rejected)
    failed += results | "Publish" >> io.publish(settings.output_topic, settings)

    # Error output
    failures = failed | "AllFailures" >> beam.Flatten()
    if settings.audit_table:
        failures, _ = failures | "AuditFailures" >> io.audit(settings)
    letters = failures | "DeadLetter" >> DeadLetter(clients.LIMITS, Source(settings.job, settings.input_subscription))
    letters | "PublishDead" >> io.publish(settings.dead_letter_topic, settings)

    # Windows of event time, which no message waits for
    if settings.summary_table or settings.summary_topic:
        outcomes = (results, failures) | "Outcomes" >> beam.Flatten() | "Window" >> io.window(settings)
        outcomes | "Summarise" >> Summarise() | "WriteSummaries" >> io.write_summaries(settings)
