"""One model of the file at one revision: what loads it, or asks it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transforms.models.errors import ModelLoadError, foreign
from transforms.models.fleet.file import Check, Entry
from transforms.models.fleet.options import Options
from transforms.models.spec import thaw
from transforms.models.task_table import find
from transforms.records import ModelInfo

if TYPE_CHECKING:
    from transforms.models.handler import HuggingFaceModelHandler
    from transforms.models.loaded_model import LoadedModel
    from transforms.models.remote.handler import EndpointModelHandler

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Variant:
    """A model of the file, at the ``revision`` that was asked for when it came into force."""

    entry: Entry
    options: Options
    check: Check | None = None
    revision: str = ""

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def key(self) -> Hashable:
        """What it is kept by: two entries that are alike but for their names are one model."""
        return replace(self.entry, name="", follows=False, unload_first=False), self.revision

    @property
    def remote(self) -> bool:
        return self.entry.endpoint is not None

    def info(self) -> ModelInfo:
        """What is known of it without its being loaded."""
        return ModelInfo(self.entry.task or "", self.entry.model or self.entry.endpoint or "", self.revision, "", "")

    def resolve(self) -> Variant:
        """Itself at its revision of now.

        Raises:
          Unreachable: that cannot be asked now.
          ModelLoadError: there is no such model.
        """
        if self.entry.model is None or self.remote:
            return self
        from transforms.models import load

        asked = self.entry.revision
        if asked and _COMMIT.fullmatch(asked):
            return replace(self, revision=asked)
        return replace(self, revision=self._named(lambda: load.resolve(str(self.entry.model), asked, self._token())))

    def check_files(self) -> None:
        """Looks at it without loading its weights, or asking it.

        Raises:
          ModelLoadError: it cannot be used; the text names it.
        """
        if self.remote:
            self._named(lambda: self.endpoint().check())
        else:
            self._named(lambda: self.handler().check())

    def probe(self) -> None:
        """Asks its endpoint something small.

        Raises:
          ModelLoadError: what must be mended there.
        """
        self._named(lambda: self.endpoint().probe())

    def handler(self) -> HuggingFaceModelHandler:
        """What loads it."""
        from transforms.models.handler import HuggingFaceModelHandler

        entry, task = self.entry, find(self.entry.task)
        given = dict(self.options.weights)
        if task is not None and not task.stops:
            given.pop("time_limit_s", None)  # the job's own bound, which only some tasks can keep
        given |= dict(entry.more)
        return HuggingFaceModelHandler(
            str(entry.model),
            entry.task,
            revision=self.revision or entry.revision,
            parameters=_parameters(entry),
            token=self.options.token,
            **given,
        )

    def endpoint(self) -> EndpointModelHandler:
        """What asks it."""
        from transforms.models.remote.handler import EndpointModelHandler

        given = {**dict(self.options.endpoints), **dict(self.entry.more)}
        given["hedge_s"] = given.pop("hedge_after_s", given.get("hedge_s"))
        assert self.entry.endpoint is not None and self.entry.task is not None
        token: Any = self.options.token
        return EndpointModelHandler(
            self.entry.endpoint,
            self.entry.task,
            model=self.entry.model,
            parameters=_parameters(self.entry),
            token=token,
            **given,
        )

    def size(self) -> int:
        """Bytes that its weights will take, roughly; brings them onto this machine.

        Raises:
          ModelLoadError: they cannot be had.
        """
        from transforms.models import load
        from transforms.models.weights import size

        spec = self.handler().spec
        folder: Path = self._named(lambda: load.fetch(spec.model, spec.revision, self._token())).path
        return size(folder, spec.dtype in ("bfloat16", "float16"))

    def load(self, forwards: ThreadPoolExecutor) -> LoadedModel:
        """The model in memory, loaded on a thread of its own; it will run on ``forwards``.

        Raises:
          ModelLoadError: it cannot be loaded, whatever the library's own error was.
        """
        # For as long as the thread lives only: OpenMP gives each thread that computes a team.
        with ThreadPoolExecutor(1, "load") as thread:
            loaded: LoadedModel = self._named(lambda: thread.submit(self.handler().load_for, forwards).result())
        return loaded

    def _token(self) -> str | None:
        return self.options.hub_token()

    def _named(self, work: Any) -> Any:
        """``work()``; its error names the model of the file."""
        try:
            return work()
        except ModelLoadError as error:
            raise type(error)(f"model {self.name!r}: {foreign(str(error))}") from None
        except Exception as error:
            first = foreign(" ".join(str(error).split())[:500])
            raise ModelLoadError(f"model {self.name!r} cannot be loaded: {type(error).__name__}: {first}") from error


def _parameters(entry: Entry) -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = orjson.loads(entry.parameters)
    task = find(entry.task)
    if task is not None:
        thaw(entry.parameters, task)
    return found
