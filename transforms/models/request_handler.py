"""What the handlers have in common: how requests are gathered, measured and answered, one outcome each."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from apache_beam.ml.inference.base import ModelHandler

from transforms.records import Failure, Prediction, Request

ModelT = TypeVar("ModelT")
Outcome = Prediction | Failure


class RequestHandler(ModelHandler[Request, Outcome, ModelT], abc.ABC):
    """A handler of ``Request`` elements, each of which becomes one ``Prediction`` or one ``Failure``."""

    max_batch_latency_ms: int | None

    @abc.abstractmethod
    def gather(self) -> int:
        """Requests gathered before they are planned: more than any micro-batch, so that lengths can be matched."""

    def get_num_bytes(self, batch: Sequence[Request]) -> int:
        """Bytes of the messages; the default would pickle every batch only to measure it."""
        return sum(len(request.message.data) for request in batch)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Gathers as much as a bundle has, or as comes within ``max_batch_latency_ms``."""
        kwargs: dict[str, Any] = {"min_batch_size": self.gather(), "max_batch_size": self.gather()}
        if self.max_batch_latency_ms is not None:
            kwargs["max_batch_duration_secs"] = self.max_batch_latency_ms / 1000
        return kwargs


def whole(batch: Sequence[Request], outcomes: list[Outcome]) -> list[Outcome]:
    """``outcomes``, of which each of ``batch`` must have one."""
    if len(outcomes) != len(batch):
        raise RuntimeError(f"{len(batch)} elements gave {len(outcomes)} outcomes; this is a bug")
    return outcomes


def in_worker_container() -> bool:
    """Whether this is one of several SDK processes, as a worker container runs them."""
    return "CONTROL_API_SERVICE_DESCRIPTOR" in os.environ
