"""Beam's windowed grouping on DirectRunner, for tallies: what Beam's own (2.77) keeps for ever, and copies every time.

Its trigger driver keeps every window with all that was put into it, and the runner copies all of it for each bundle.
Here a window goes once it can get nothing more, what it holds is merged, and its state is changed in place: a bundle
that fails in here is dropped and not repeated. A watermark that Beam's driver goes on holding for a window whose last
pane has fired is let go: a drained job would never end. When a pane fires, and what it holds, is the driver's affair.
"""

from __future__ import annotations

from typing import Any

from apache_beam.metrics import Metrics
from apache_beam.pipeline import AppliedPTransform
from apache_beam.runners.direct.evaluation_context import DirectStepContext, DirectUnmergedState
from apache_beam.runners.direct.transform_evaluator import _StreamingGroupAlsoByWindowEvaluator
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.trigger import GeneralTriggerDriver, MergeableStateAdapter

from transforms.tally import Tally

#: Steps of the graph (pipeline/graph.py) whose failure costs a summary, and no message.
BESIDE = frozenset(("Window", "Summarise", "WriteSummaries"))

#: Tallies a window holds before they are merged into one.
_MERGED_FROM = 32

_TOO_LATE = Metrics.counter("pipeline", "summary_too_late")


def evaluator(context: Any, applied: AppliedPTransform, *arguments: Any) -> Any:
    """The evaluator of a grouping by key and window: ours beside the messages' way, and Beam's own anywhere else."""
    kind = _PanesEvaluator if beside_the_messages(applied) else _StreamingGroupAlsoByWindowEvaluator
    return kind(context, applied, *arguments)  # type: ignore[no-untyped-call]


def beside_the_messages(applied: AppliedPTransform) -> bool:
    """Whether a step belongs to the summaries: no message waits for it, and none fails with it."""
    # By its name: the runner may make the steps anew, and composite ones are then of no class.
    return applied.full_label.partition("/")[0] in BESIDE


class _InPlace(DirectStepContext):
    """State by key that is not copied before it is changed."""

    def get_keyed_state(self, key: bytes) -> Any:
        state = self.existing_keyed_state.setdefault(key, DirectUnmergedState())
        self.partial_keyed_state[key] = state
        return state


class _PanesEvaluator(_StreamingGroupAlsoByWindowEvaluator):
    def start_bundle(self) -> None:
        super().start_bundle()  # type: ignore[no-untyped-call]
        self._step_context = _InPlace(self._step_context.existing_keyed_state)  # type: ignore[no-untyped-call]

    def process_element(self, element: Any) -> None:
        item = element.value
        manager = self._evaluation_context._watermark_manager
        watermark = manager.get_watermarks(self._applied_ptransform).input_watermark
        lateness = self.driver.allowed_lateness
        late = [each for each in item.elements if all(watermark > w.end + lateness for w in each.windows)]
        if late:
            _TOO_LATE.inc(sum(each.value.totals["messages"] for each in late))
        emitted = len(self.gabw_items)
        super().process_element(element)  # type: ignore[no-untyped-call]
        # The list is the state itself, which goes on growing before the next step reads it.
        for place in range(emitted, len(self.gabw_items)):
            key, tallies = self.gabw_items[place].value
            self.gabw_items[place] = self.gabw_items[place].with_value((key, list(tallies)))
        self._watermark = watermark

    def finish_bundle(self) -> Any:
        for key in self.keyed_holds:
            state = self._step_context.get_keyed_state(key)
            forget(state, self._watermark, self.driver.allowed_lateness)
            let_go(state)
            merge(state)
            self.keyed_holds[key] = state.get_earliest_hold()
        return super().finish_bundle()  # type: ignore[no-untyped-call]


def forget(state: Any, watermark: Any, lateness: Any) -> None:
    """Drops the windows that the driver would put nothing into any more, and whose last timer has fired."""
    ids = state.get_global_state(MergeableStateAdapter.WINDOW_IDS, {})
    for window in [each for each in ids if watermark > each.end + lateness]:
        if not any(state.timers.get(window_id) for window_id in ids[window]):
            for window_id in ids.pop(window):
                state.state.pop(window_id, None)


def let_go(state: Any) -> None:
    """Holds no watermark for a window that waits for none.

    The driver holds one for what comes late while the output's watermark is still behind the window's end, fires at
    once, and sets no timer with which it would let go.
    """
    for ids in state.get_global_state(MergeableStateAdapter.WINDOW_IDS, {}).values():
        domains = {domain for window_id in ids for _, domain, _ in state.timers.get(window_id, ())}
        if TimeDomain.WATERMARK not in domains:
            for window_id in ids:
                state.state.get(window_id, {}).pop("watermark", None)


def merge(state: Any) -> None:
    """Leaves each window a few tallies, and a sum in place of each list of ones."""
    for tags in state.state.values():
        elements = tags.get(GeneralTriggerDriver.ELEMENTS.tag, ())
        if len(elements) >= _MERGED_FROM:
            merged = Tally()
            for each in elements:
                merged.merge(each)
            tags[GeneralTriggerDriver.ELEMENTS.tag] = [merged]
