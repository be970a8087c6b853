"""Source and sinks of the job, chosen for the runner that it runs on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import jmespath
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from google.pubsub_v1 import SubscriberClient

from pipeline import __version__, clients, schemas
from pipeline.audit_sink import BigQuerySink
from pipeline.direct.beam import require as require_beam
from pipeline.options import Settings
from pipeline.publish import DirectPublish, NativePublish
from pipeline.summary_sink import WriteSummaries
from transforms import coder
from transforms.audit import Audit, AuditContext
from transforms.decode import decode
from transforms.encode import has_date
from transforms.envelopes import Opener
from transforms.outcome import Outcome
from transforms.records import Failure, Message, Request, Result, identity
from transforms.window import Window

if TYPE_CHECKING:
    from pipeline.direct.runner import LocalRunner


def runner(settings: Settings) -> LocalRunner | None:
    """The runner for local work, or None for the one that Beam's own ``--runner`` names.

    Raises:
        UsageError: the local one was written for another Beam than is installed.
    """
    if not settings.local:
        return None
    require_beam()
    # It imports Beam's internals, which another version may not have and a job that runs elsewhere does not need.
    from pipeline.direct.runner import LocalRunner

    return LocalRunner()


def read(settings: Settings) -> beam.PTransform[beam.pvalue.PBegin, beam.PCollection[Message]]:
    """``Message`` from the input subscription: Beam's native source, or on this machine one that loses nothing."""
    if settings.local:
        from pipeline.direct.runner import ReadFromSubscription

        return ReadFromSubscription(
            settings.input_subscription,
            functools.partial(clients.pubsub, SubscriberClient),
            settings.id_attribute,
            settings.timestamp_attribute,
            (settings.max_batch_latency_ms or 0) / 1000,
        )
    return _NativeRead(settings)


class _NativeRead(beam.PTransform[beam.pvalue.PBegin, beam.PCollection[Message]]):
    def __init__(self, settings: Settings):
        super().__init__()
        self._settings = settings

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Message]:
        source = ReadFromPubSub(
            subscription=self._settings.input_subscription,
            id_label=self._settings.id_attribute,
            with_attributes=True,
            timestamp_attribute=self._settings.timestamp_attribute,
        )
        messages: beam.PCollection[Message] = (
            pbegin | source | "ToMessage" >> beam.Map(incoming).with_output_types(Message)
        )
        return messages


def incoming(message: PubsubMessage, timestamp: Any = beam.DoFn.TimestampParam) -> Message:
    """Beam's Pub/Sub message as ours; an event time that no timestamp column can hold gives way to the publish time."""
    event_time = timestamp.micros / 1e6
    if not has_date(event_time):
        event_time = message.publish_time.timestamp() if message.publish_time else 0.0
    found = Message(
        data=message.data or b"",
        attributes=dict(message.attributes or {}),
        message_id=message.message_id or "",
        publish_time=message.publish_time.timestamp() if message.publish_time else event_time,
        event_time=event_time,
        ordering_key=message.ordering_key or "",
        taken=time.time(),
    )
    return found if found.message_id else dataclasses.replace(found, message_id=identity(found))


def reading(settings: Settings) -> tuple[str | None, Opener]:
    """How bodies are read: where in one the input is, and what opens its envelopes, with the schemas of Pub/Sub."""
    return settings.input_path, Opener(settings.input_format, schemas.definition)


def upcoming(runner: LocalRunner, settings: Settings) -> Callable[[], Iterable[Request]]:
    """What the model will be asked next on this machine; a message that cannot be decoded is told of when it comes.

    What waits is looked at in the call, and decoded as it is asked for.
    """
    path, opener = reading(settings)
    expression = jmespath.compile(path) if path else None

    def requests(messages: Sequence[Message]) -> Iterator[Request]:
        for message in messages:
            with contextlib.suppress(Exception):
                yield decode(message, expression, opener)

    return lambda: requests(runner.upcoming())


def spread(outcome: Outcome, settings: Settings) -> Outcome:
    """``outcome`` ready to be written: on a service whose workers hold a model, in a stage of its own.

    Steps are fused there, so what waits for a table would hold the thread, and the key, that the model's next batch
    needs. On this machine nothing is fused, and without a table nothing waits.
    """
    if settings.local or not settings.audit_table:
        return outcome
    coder.register()
    # What the steps before say of their outputs' types is Any, for which Beam would take its own coder.
    outcome.results.element_type, outcome.failures.element_type = Result, Failure
    return Outcome(
        outcome.results | "Spread" >> beam.Reshuffle(), outcome.failures | "SpreadFailures" >> beam.Reshuffle()
    )


def publish(topic: str, settings: Settings) -> beam.PTransform[Any, Any]:
    """Publishes records that have ``data``, ``attributes`` and ``ordering_key``; each runner has its class.

    On this machine it returns the failures of what the topic refused; a service's own sink tells of none.
    """
    return DirectPublish(topic) if settings.local else NativePublish(topic)


def audit(settings: Settings) -> Audit:
    """Writes audit rows to the table of ``settings``."""
    assert settings.audit_table
    holds = settings.audit_input, settings.audit_prediction, settings.audit_attributes
    context = AuditContext(settings.window, settings.job, __version__, *holds)
    return Audit(BigQuerySink(settings.audit_table), context)


def window(settings: Settings) -> Window:
    """Outcomes into the windows of ``settings``."""
    return Window(settings.window, settings.job, settings.run, settings.allowed_lateness, settings.window_early_s)


def write_summaries(settings: Settings) -> beam.PTransform[Any, Any]:
    """Writes summary rows to the table and the topic of ``settings``; on this machine a thread of its own does it."""
    return WriteSummaries(settings.summary_table, settings.summary_topic, aside=settings.local)
