"""What the table says of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transforms.models import inputs
from transforms.models.errors import InvalidParameter
from transforms.models.inputs import Ask
from transforms.models.misfits import check_depth
from transforms.models.parameters import Parameter


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task.

    ``check`` tests a message's inputs; ``needed`` parameters have no default. ``shape`` brings an endpoint's answer
    into the prediction that local weights give; without one, no endpoint can be asked. ``small`` is an input to try an
    endpoint with. ``weights`` says whether local weights can be loaded, ``stops`` whether a time limit can be kept.
    """

    name: str
    modality: str
    check: Callable[[Any], Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    shape: Callable[[Any, Ask], Any] | None = None
    small: Any = None
    weights: bool = True
    stops: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether the inputs are one file's bytes: an image or a recording."""
        return self.check is inputs.media

    def tried_with(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """``parameters`` for a try at launch: what is needed and not among them has a value that models take."""
        return {name: ["a", "b"] for name in self.needed} | dict(parameters)

    def require(self, parameters: Mapping[str, Any]) -> None:
        """Raises ``InvalidParameter`` where one that has no default is missing."""
        for name in self.needed:
            if not parameters.get(name):
                raise InvalidParameter(f"parameters.{name}: needed by {self.name}")

    def read(self, answer: Any, ask: Ask) -> Any:
        """An endpoint's ``answer`` to ``ask`` as the task's prediction.

        Raises:
          Misfit: it is not one of this task.
          NonFinite: it has no number where one belongs.
        """
        assert self.shape is not None, f"no endpoint can be asked for {self.name}"
        check_depth(answer)
        return self.shape(answer, ask)
