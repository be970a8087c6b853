"""The models of this process, held for as long as it lives, and exchanged where Beam names another path.

DirectRunner sets a DoFn up for every bundle, and Beam itself holds a model by a weak reference only: without these
every bundle would load its model again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from transforms.models.errors import ModelLoadError
from transforms.models.spec import ModelSpec

if TYPE_CHECKING:
    from transforms.models.loaded_model import LoadedModel

_LOG = logging.getLogger(__name__)

#: Seconds for which a path that could not be loaded is not tried again.
_TRY_AGAIN_S = 60.0

_models: dict[ModelSpec, LoadedModel] = {}
_locks: dict[ModelSpec, threading.Lock] = {}
#: What serves in the place of each model that a handler was made with, and until when a failed one is left alone.
_serving: dict[ModelSpec, ModelSpec] = {}
_failed: dict[ModelSpec, float] = {}
_lock = threading.Lock()


def at_path(spec: ModelSpec, path: str) -> ModelSpec:
    """``spec`` with the model that Beam's ``update_model_path`` names: as ``model``, or a hub id with @REVISION."""
    model, _, revision = path.partition("@") if not path.startswith(("gs://", "/", ".", "~")) else (path, "", "")
    return replace(spec, model=model, revision=revision or None)


def get(launched: ModelSpec, wanted: ModelSpec, load: Callable[[], LoadedModel]) -> LoadedModel:
    """The model of ``wanted``, loaded if need be, in the place of the one that ``launched`` had until now.

    One that cannot be loaded does not serve: the one before does, as ever.

    Raises:
      ModelLoadError: it cannot be loaded, and there is none before.
    """
    with _lock:
        lock = _locks.setdefault(launched, threading.Lock())
    with lock:
        before = _serving.get(launched, launched)
        # A handler that was told no other path asks for its own, whatever others were told.
        old = _models.get(before) if wanted not in (before, launched) else None
        if old is not None and time.monotonic() < _failed.get(wanted, 0.0):
            return old
        try:
            if wanted not in _models:
                _models[wanted] = load()
        except ModelLoadError as error:
            if old is None:
                raise
            _failed[wanted] = time.monotonic() + _TRY_AGAIN_S
            _LOG.error("%r goes on answering: %s", old, error)
            return old
        if wanted != launched:
            _serving[launched] = wanted
        if old is not None:
            # Whoever is in a batch with it holds it until that ends.
            del _models[before]
            _LOG.info("%r answers in the place of %r", _models[wanted], old)
        return _models[wanted]
