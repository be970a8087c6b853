"""The models in memory: loaded at their first use, the one unused for longest given up where another needs the room."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from transforms.models import memory
from transforms.models.errors import ModelLoadError

_LOG = logging.getLogger(__name__)


class Sized(Protocol):
    """What the store holds: a model that knows its size."""

    @property
    def bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class NoRoom(ModelLoadError):
    """A model does not fit; the text has what it needs and what there is."""


@dataclass(slots=True)
class _Held(Generic[T]):
    model: T
    size: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Store(Generic[T]):
    """Models by key, within ``most`` bytes. Safe to use from several threads.

    A model in use is not given up; where all are, the next waits. ``told`` hears of each of ``model_loads`` and
    ``model_unloads``.
    """

    def __init__(self, most: int, told: Callable[[str], None] = lambda name: None) -> None:
        self.most = most
        self._told = told
        self._held: OrderedDict[Hashable, _Held[T]] = OrderedDict()
        self._loading: dict[Hashable, int] = {}
        self._changed = threading.Condition()

    @contextmanager
    def using(
        self, key: Hashable, estimate: Callable[[], int], load: Callable[[], T], spare_s: float | None = None
    ) -> Iterator[T]:
        """The model of ``key``, loaded if it is not there; it stays while the block runs.

        With ``spare_s`` no model is given up for it that was used within so many seconds.

        Raises:
          NoRoom: it does not fit.
          ModelLoadError: it cannot be loaded.
        """
        held = self._take(key)
        if held is None:
            try:
                held = self._load(key, estimate(), load, spare_s)
            finally:
                with self._changed:
                    self._loading.pop(key, None)
                    self._changed.notify_all()
        try:
            yield held.model
        finally:
            with self._changed:
                held.users -= 1
                held.used = time.monotonic()
                self._changed.notify_all()
            self._shrink()

    def _take(self, key: Hashable) -> _Held[T] | None:
        """The model of ``key``, in use from now on; None where the caller is the one to load it."""
        with self._changed:
            self._changed.wait_for(lambda: key not in self._loading)
            held = self._held.get(key)
            if held is None:
                self._loading[key] = 0
                return None
            held.users += 1
            self._held.move_to_end(key)
            return held

    def _load(self, key: Hashable, estimate: int, load: Callable[[], T], spare_s: float | None) -> _Held[T]:
        self._make_room(key, estimate, spare_s)
        model = load()
        size = model.bytes
        if size > self.most:
            del model
            memory.give_back()
            raise NoRoom(f"it takes {size:,} bytes of memory, and models may take {self.most:,} (models_memory)")
        held = _Held(model, size, users=1)
        with self._changed:
            self._held[key] = held
        self._told("model_loads")
        self._shrink()
        return held

    def _make_room(self, key: Hashable, estimate: int, spare_s: float | None) -> None:
        if estimate > self.most:
            raise NoRoom(f"its weights have {estimate:,} bytes, and models may take {self.most:,} (models_memory)")
        given = False
        with self._changed:
            while self._taken() + estimate > self.most:
                idle = self._idle(spare_s)
                if idle is not None:
                    self._give_up(idle)
                    given = True
                elif spare_s is not None:
                    raise NoRoom(
                        f"its weights have {estimate:,} bytes; the models that answer have {self._taken():,} of the"
                        f" {self.most:,} that models may take (models_memory), so it does not fit beside them"
                    )
                else:
                    self._changed.wait()
            self._loading[key] = estimate
        if given:
            memory.give_back()

    def _taken(self) -> int:
        return sum(held.size for held in self._held.values()) + sum(self._loading.values())

    def _idle(self, spare_s: float | None) -> Hashable | None:
        """The key of the model that was unused for longest, if there is one to be given up."""
        late = time.monotonic() - (spare_s or 0)
        for key, held in self._held.items():
            if not held.users and (spare_s is None or held.used < late):
                return key
        return None

    def _shrink(self) -> None:
        """Gives models up until the others are within the bound: a model may be larger than was thought."""
        given = False
        with self._changed:
            while sum(held.size for held in self._held.values()) > self.most and len(self._held) > 1:
                idle = self._idle(None)
                if idle is None or idle == next(reversed(self._held)):
                    break
                self._give_up(idle)
                given = True
        if given:
            memory.give_back()

    def _give_up(self, key: Hashable) -> None:
        held = self._held.pop(key)
        self._told("model_unloads")
        _LOG.info("unloaded %s (%s bytes)", held.model, f"{held.size:,}")

    def drop(self, keys: set[Hashable]) -> None:
        """Gives up the models of ``keys``, once nobody uses them."""
        found = False
        with self._changed:
            for key in keys & self._held.keys():
                while key in self._held and self._held[key].users:
                    self._changed.wait()
                if key in self._held:
                    self._give_up(key)
                    found = True
            self._changed.notify_all()
        if found:
            memory.give_back()

    def sizes(self) -> dict[Hashable, int]:
        """What is in memory, and how large."""
        with self._changed:
            return {key: held.size for key, held in self._held.items()}
