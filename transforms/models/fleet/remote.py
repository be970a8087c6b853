"""Endpoints of the models file: asked while local models compute."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from transforms.models.fleet.variant import Variant
from transforms.models.remote.caller import RequestCounts
from transforms.records import Failure, Prediction, Request


def ask(variant: Variant, requests: Sequence[Request], counts: RequestCounts) -> Future[list[Prediction | Failure]]:
    """Begins to ask the endpoint of ``variant``; one outcome for each of ``requests`` comes, in order."""
    handler = variant.endpoint()
    return handler.begin(requests, handler.load_model(), counts)
