"""What rules see of a message: its attributes, and its body once a rule asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.envelopes import Opener
from transforms.errors import BundleError
from transforms.records import Request, identity

_UNREAD = object()


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads bodies as the job's ``Decode`` does: by the same ``opener``, and by shape without an input path."""

    opener: Opener = Opener()
    by_shape: bool = True

    def view(self, request: Request) -> View:
        return View(self, request)


class View:
    """One message, as rules see it."""

    def __init__(self, reader: Reader, request: Request) -> None:
        self._reader = reader
        self._request = request
        self._body: Any = _UNREAD
        #: The expressions that raised on it, and why.
        self.raised: dict[str, str] = {}

    @property
    def attributes(self) -> Mapping[str, str]:
        return self._request.message.attributes

    @property
    def message_id(self) -> str:
        return identity(self._request.message)

    def body(self) -> Any:
        """JSON as it is, out of its envelopes, a text as a text; None for a file, and for what is not to be read."""
        if self._body is _UNREAD:
            self._body = None
            message = self._request.message
            try:
                payload = self._reader.opener.open(message.data, message.attributes, self._reader.by_shape)
                if payload.is_value:
                    self._body = payload.json()
                elif isinstance(self._request.inputs, str):
                    self._body = self._request.inputs
            except BundleError:
                raise
            except Exception:  # noqa: BLE001 (it was read once already; a rule sees nothing in what cannot be)
                self._body = None
        return self._body
