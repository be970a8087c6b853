"""Tracing: a message's trace, and OpenTelemetry spans where an exporter is configured.

The trace attributes of a message (W3C ``traceparent``, Pub/Sub's ``googclient_traceparent``) travel on with its result
or dead letter as all its attributes do, and its audit row has the trace id. Spans are made from times already known,
once a result is out: tracing that is off costs one look at a constant.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping

from transforms.records import Message, Prediction

_LOGGER = logging.getLogger(__name__)


def traceparent(attributes: Mapping[str, str]) -> str | None:
    """The traceparent among a message's attributes if it has the form of one (https://www.w3.org/TR/trace-context/)."""
    found = attributes.get("traceparent") or attributes.get("googclient_traceparent") or ""
    parts = found.split("-")
    return found if len(parts) >= 4 and (len(parts[1]), len(parts[2])) == (32, 16) else None


def trace_id(attributes: Mapping[str, str]) -> str | None:
    """The trace id of a message's traceparent."""
    found = traceparent(attributes)
    return found.split("-")[1] if found else None


@functools.cache
def on() -> bool:
    """Whether spans go anywhere: ``OTEL_TRACES_EXPORTER`` names an exporter and OpenTelemetry's SDK has it."""
    name = os.environ.get("OTEL_TRACES_EXPORTER", "none")
    if name in ("", "none"):
        return False
    try:
        _configure(name)
    except (ImportError, LookupError) as error:
        _LOGGER.warning(
            "OTEL_TRACES_EXPORTER=%s: no spans, %s; pip install opentelemetry-exporter-%s", name, error, name
        )
        return False
    return True


def _configure(name: str) -> None:
    """Sends spans to exporter ``name`` in the background, unless the process has a tracer provider of its own.

    Raises:
        LookupError: no installed package has such an exporter.
    """
    from importlib.metadata import entry_points

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    (*_, exporter) = [*entry_points(group="opentelemetry_traces_exporter", name=name)] or [None]
    if exporter is None:
        raise LookupError("no installed package has it")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter.load()()))
    trace.set_tracer_provider(provider)


def record(prediction: Prediction, now: float) -> None:
    """Spans of one message that became a result at ``now``: its way from its publishing, and the model's part."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    message: Message = prediction.request.message
    parent = traceparent(message.attributes)
    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    tracer = trace.get_tracer("beam-hf-inference")
    whole = tracer.start_span(
        "inference",
        context,
        kind=trace.SpanKind.CONSUMER,
        start_time=_ns(message.publish_time),
        attributes={
            "messaging.system": "gcp_pubsub",
            "messaging.message.id": message.message_id,
            "gen_ai.request.model": prediction.model.model,
            "task": prediction.model.task,
            "model_revision": prediction.model.revision,
        },
    )
    began = prediction.time - prediction.inference_ms / 1000
    counts = {"batch_size": prediction.batch_size, "tokens": prediction.tokens or 0, "truncated": prediction.truncated}
    forward = tracer.start_span("forward", trace.set_span_in_context(whole), start_time=_ns(began), attributes=counts)
    forward.end(_ns(prediction.time))
    whole.end(_ns(now))


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
