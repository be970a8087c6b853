"""A bundle that fails for a reason nobody listed is run by halves, so that healthy neighbours finish.

Beam's runner (2.77) tries a step's bundle four times and then ends the job, whatever one of a thousand messages did.
Here the last of these tries goes by halves. A message with which the step fails alone is given up: the source hands it
over once more, marked, and the graph makes a dead letter of it. What fails then still ends the job, and so does a step
that fails with every one of many messages: that is nobody's fault, and they are delivered again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from apache_beam.runners.direct import executor
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.direct.panes import beside_the_messages
from transforms.barrier import survived, tell, without_text
from transforms.errors import BundleError
from transforms.records import Failure, Message, Prediction, Request, Result

_LOGGER = logging.getLogger(__name__)

#: Messages given up and not yet handed over again; the runner has one worker thread.
_given_up: list[Message] = []

#: So many messages of one bundle that all fail alone, and no other that does not, are not to blame.
_MANY = 10


def take_given_up() -> list[Message]:
    """The messages given up since the last call, marked so that they go straight to the dead letters."""
    taken = list(_given_up)
    _given_up.clear()
    return taken


class StepFailed(RuntimeError):
    """A step raised, for a reason that nobody listed; says which error and where."""


class HalvingExecutor(executor.TransformExecutor):
    """Beam's executor of one step's bundle, whose last try goes by halves."""

    def attempt_call(
        self, metrics_container: Any, side_inputs: Any, start_state: Any, process_state: Any, finish_state: Any
    ) -> Any:
        if beside_the_messages(self._applied_ptransform):
            return self._attempt_or_drop(metrics_container, side_inputs, start_state, process_state, finish_state)
        try:
            times = (start_state, process_state, finish_state)
            return super().attempt_call(metrics_container, side_inputs, *times)  # type: ignore[no-untyped-call]
        except BundleError:
            raise
        except Exception as error:
            values = list(self._input_bundle.get_elements_iterable()) if self._input_bundle else []
            # Beam's runner and the job's last line show what is raised here, and the error's text may quote a message.
            words, frames = without_text(_original(error))
            cause = StepFailed(f"{self._applied_ptransform.full_label}: {words}")
            _LOGGER.error("%s\n%s", cause, frames)
            if self._retry_count + 1 < self._max_retries_per_bundle or self._fired_timers or not values:
                raise cause from None
        _LOGGER.warning("%s: trying its bundle by halves", self._applied_ptransform.full_label)
        with process_state:
            try:
                results = self._halves(values, side_inputs)
            except BundleError:
                raise
            except Exception:
                raise cause from None
            if not results and len(_given_up) >= _MANY:
                _given_up.clear()
                raise cause
            whole = self._run([], side_inputs)
            for result in results:
                whole.uncommitted_output_bundles.extend(result.uncommitted_output_bundles)
            whole.logical_metric_updates = metrics_container.get_cumulative()
        self._completion_callback.handle_result(self, self._input_bundle, whole)
        return whole

    def _attempt_or_drop(self, metrics_container: Any, *arguments: Any) -> Any:
        """Runs a bundle once; one that fails is dropped, for no message waits for it."""
        try:
            return super().attempt_call(metrics_container, *arguments)  # type: ignore[no-untyped-call]
        except Exception as error:
            survived(error, f"running {self._applied_ptransform.full_label}")
        nothing = self._run([], arguments[0])
        nothing.uncommitted_output_bundles.clear()
        nothing.logical_metric_updates = metrics_container.get_cumulative()
        self._completion_callback.handle_result(self, self._input_bundle, nothing)
        return nothing

    def _run(self, values: Sequence[WindowedValue], side_inputs: Any) -> Any:
        evaluator = self._transform_evaluator_registry.get_evaluator(
            self._applied_ptransform, self._input_bundle, side_inputs
        )
        evaluator.start_bundle()
        for value in values:
            evaluator.process_element(value)
        return evaluator.finish_bundle()

    def _halves(self, values: Sequence[WindowedValue], side_inputs: Any) -> list[Any]:
        try:
            return [self._run(values, side_inputs)]
        except BundleError:
            raise
        except Exception as error:
            if len(values) == 1:
                values = _parts(values[0])
            if len(values) == 1:
                _give_up(values[0].value, error)
                return []
        middle = len(values) // 2
        return [*self._halves(values[:middle], side_inputs), *self._halves(values[middle:], side_inputs)]


def _original(error: BaseException) -> BaseException:
    """``error`` as it was before Beam wrote the step's name into it, which makes another type of some."""
    before = error.__context__
    return before if before is not None and getattr(error, "_tagged_with_step", False) else error


def _parts(value: WindowedValue) -> list[WindowedValue]:
    """``value``, or its two halves where it is a batch."""
    batch = value.value
    if not isinstance(batch, list) or len(batch) < 2:
        return [value]
    middle = len(batch) // 2
    return [value.with_value(batch[:middle]), value.with_value(batch[middle:])]


def _give_up(element: Any, error: Exception) -> None:
    """Remembers ``element``'s message for the source; raises ``error`` where that cannot help."""
    message = message_of(element)
    if message is None or message.given_up:
        raise error
    _given_up.append(dataclasses.replace(message, given_up=tell(error, "predict", message.message_id)))


def message_of(element: Any) -> Message | None:
    """The message that ``element`` came of, at whatever step it is; None where that cannot be told."""
    if isinstance(element, list) and len(element) == 1:
        element = element[0]
    if isinstance(element, Result):
        element = element.prediction
    if isinstance(element, Prediction):
        element = element.request
    if isinstance(element, Request | Failure):
        element = element.message
    return element if isinstance(element, Message) else None
