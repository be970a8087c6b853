"""DirectRunner with a Pub/Sub source that loses nothing.

Beam's own (2.77, ``_PubSubReadEvaluator``) acknowledges ten messages at a time before they are processed and blocks the
runner's only worker while it waits for more. This one hands over large bundles fetched in the background, and
acknowledges a bundle only when no step of the graph has work left. It leans on the runner's internals, so a launch with
any version but the one it was written for is refused (``beam.py``).
"""

from __future__ import annotations

import functools
import time
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, Pipeline, PipelineVisitor
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner, _StreamingGroupAlsoByWindow
from apache_beam.runners.direct.transform_evaluator import (
    TransformEvaluatorRegistry,
    _ParDoEvaluator,
    _TransformEvaluator,
)
from apache_beam.runners.direct.util import TransformResult
from apache_beam.runners.direct.watermark_manager import WatermarkManager
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms import userstate
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp
from google.api_core import exceptions as api

from pipeline.direct import panes
from pipeline.direct.counting import count_every_bundle
from pipeline.direct.halving import take_given_up
from pipeline.direct.pace import Pace
from pipeline.direct.subscriber import Connect, Subscriber
from pipeline.direct.watermark import mark_of
from transforms import timing
from transforms.errors import BundleError
from transforms.models.ahead import Ahead
from transforms.records import Message

#: How long the runner's only worker waits for messages before it looks at timers and signals again.
_WAIT_S = 0.05


class SourceUnavailable(BundleError):
    """The subscription cannot be read, and waiting will not help."""


class ReadFromSubscription(beam.PTransform[pvalue.PBegin, beam.PCollection[Message]]):
    """``Message`` from a subscription, on :class:`LocalRunner` alone; the arguments are those of ``Subscriber``."""

    def __init__(
        self,
        subscription: str,
        connect: Connect,
        id_attribute: str | None = None,
        timestamp_attribute: str | None = None,
        linger_s: float = 0.0,
    ):
        super().__init__()
        self._connect = connect
        self._arguments = (id_attribute, timestamp_attribute, linger_s)
        self.subscription = subscription
        self._subscriber: Subscriber | None = None
        self.in_work: list[Message] = []

    def expand(self, pbegin: pvalue.PBegin) -> beam.PCollection[Message]:
        return beam.PCollection(pbegin.pipeline, element_type=Message, is_bounded=False)

    def get_windowing(self, inputs: Any) -> beam.Windowing:
        return beam.Windowing(GlobalWindows())

    @property
    def subscriber(self) -> Subscriber:
        if self._subscriber is None:
            self._subscriber = Subscriber(self.subscription, self._connect(), *self._arguments)
        return self._subscriber


class _ReadEvaluator(_TransformEvaluator):
    """Hands over a bundle, and acknowledges the one before it once the graph is done with it."""

    def start_bundle(self) -> None:
        pass

    def process_element(self, element: Any) -> None:
        pass

    def finish_bundle(self) -> TransformResult:
        transform = self._applied_ptransform.transform
        assert isinstance(transform, ReadFromSubscription) and transform.pipeline is not None
        subscriber = transform.subscriber
        messages: list[Message] = []
        if self._graph_is_done():
            messages = take_given_up()
            if not messages:
                done, transform.in_work = transform.in_work, []
                if done:
                    subscriber.done(done)
                try:
                    messages = transform.in_work = subscriber.take(_WAIT_S)
                except api.GoogleAPICallError as error:
                    raise SourceUnavailable(f"{transform.subscription}: {error}") from error
                timing.begin(messages)
            if not messages and subscriber.stopping:
                return TransformResult(self, [], [], None, {None: WatermarkManager.WATERMARK_POS_INF})
        else:
            # A bundle failed for good. Its messages stay unacknowledged; the runner is about to raise.
            time.sleep(_WAIT_S)
        bundles = []
        if messages:
            bundle = self._evaluation_context.create_bundle(next(iter(self._outputs)))
            for message in messages:
                bundle.output(GlobalWindows.windowed_value(message, timestamp=Timestamp(message.event_time)))
            bundles.append(bundle)
        again = self._evaluation_context.create_bundle(pvalue.PBegin(transform.pipeline))
        # No watermark passes a message that is still in work.
        mark = min([subscriber.mark(), *map(mark_of, transform.in_work)])
        return TransformResult(self, bundles, [again], None, {None: Timestamp(mark)})

    def _graph_is_done(self) -> bool:
        """Whether every bundle handed over has been through every step: a failed one stays pending."""
        watermarks = self._evaluation_context._watermark_manager._transform_to_watermarks
        return not any(each._pending for step, each in watermarks.items() if step is not self._applied_ptransform)


class LocalRunner(BundleBasedDirectRunner):
    """Beam's streaming DirectRunner that knows :class:`ReadFromSubscription`, and can be drained."""

    def __init__(self) -> None:
        super().__init__()
        self._reads: list[ReadFromSubscription] = []
        self.ahead: Ahead | None = None
        self.pace: Pace | None = None

    def upcoming(self) -> list[Message]:
        """The messages that the next bundle will begin with, as far as they have come."""
        return [message for read in self._reads for message in read.subscriber.upcoming()]

    def backlog(self) -> tuple[int, float | None]:
        """How many messages have come and are not done with, and when the oldest of them was published."""
        found = [read.subscriber.backlog() for read in self._reads]
        times = [oldest for _, oldest in found if oldest is not None]
        return sum(count for count, _ in found), min(times, default=None)

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> PipelineResult:
        pipeline.visit(_FindReads(self._reads))
        for read in self._reads:
            read.subscriber.pace = self.pace
        _remember_specs()
        count_every_bundle()
        # The registry has no public way to add an evaluator; Beam's tests use this one. It is read once, below.
        overrides = TransformEvaluatorRegistry._test_evaluators_overrides
        ours: dict[Any, Any] = {
            ReadFromSubscription: _ReadEvaluator,
            # Beam pickles and unpickles every DoFn for every bundle, as a test of whether it can be pickled.
            beam.ParDo: functools.partial(_ParDoEvaluator, perform_dofn_pickle_test=False),
            _StreamingGroupAlsoByWindow: panes.evaluator,
        }
        overrides.update(ours)
        try:
            result: PipelineResult = super().run_pipeline(pipeline, options)  # type: ignore[no-untyped-call]
            return result
        finally:
            for transform in ours:
                overrides.pop(transform, None)

    def drain(self) -> None:
        """Takes no more messages; the pipeline finishes those it has and then ends by itself."""
        for read in self._reads:
            read.subscriber.stop()

    def close(self) -> None:
        """After the pipeline's end: waits for acknowledgements, and gives back what was not processed."""
        if self.ahead is not None:
            self.ahead.close()
        for read in self._reads:
            read.subscriber.close()


def _remember_specs() -> None:
    """Beam inspects all methods of a DoFn for its state and timers, several times a bundle and step; once is enough.

    That was a quarter of the runner's own time with bundles of 500, and most of a single message's latency.
    """
    if not hasattr(userstate.get_dofn_specs, "cache_info"):
        userstate.get_dofn_specs = functools.lru_cache(maxsize=256)(userstate.get_dofn_specs)


class _FindReads(PipelineVisitor):
    def __init__(self, found: list[ReadFromSubscription]):
        self._found = found

    def visit_transform(self, applied: AppliedPTransform) -> None:
        if isinstance(applied.transform, ReadFromSubscription):
            self._found.append(applied.transform)
