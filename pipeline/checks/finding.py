"""What one look found: fine, wrong with the way out, or not to be told from here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, RefreshError

from pipeline.clients import words

LOGIN = "run: gcloud auth application-default login"


@dataclass(frozen=True, slots=True)
class Finding:
    """``ok`` is None where it could not be told. ``subject found; way_out`` reads as one line."""

    ok: bool | None
    subject: str
    found: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.subject} {self.found}" + (f"; {self.way_out}" if self.way_out else "")


class Wrong(Exception):
    """Ends a look with what it found."""

    def __init__(self, finding: Finding):
        super().__init__(str(finding))
        self.finding = finding


def flag(name: str, value: object) -> str:
    """A flag as a subject."""
    return f"--{name} {str(value)!r}"


@contextmanager
def asking(subject: str, missing: str) -> Iterator[None]:
    """Turns a Google service's error about ``subject`` into :class:`Wrong`; ``missing`` is the way out of a 404."""
    try:
        yield
    except api.NotFound:
        raise Wrong(Finding(False, subject, "does not exist", missing)) from None
    except (api.Forbidden, api.MethodNotImplemented) as error:
        found = f"could not be checked: {words(error)}"
        raise Wrong(Finding(None, subject, found)) from None
    except RefreshError as error:
        raise Wrong(Finding(False, subject, f"no valid credentials ({words(error)})", LOGIN)) from None
    except GoogleAuthError as error:
        raise Wrong(Finding(False, subject, f"no credentials ({words(error)})", LOGIN)) from None
    except (api.GoogleAPICallError, api.RetryError, OSError) as error:
        raise Wrong(Finding(False, subject, f"cannot be reached: {words(error)}")) from None
