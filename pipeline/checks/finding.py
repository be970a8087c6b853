"""What one look found: fine, wrong with the way out, or not to be told from here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

from pipeline import flags
from pipeline.checks import hints
from pipeline.clients import words

#: The cause of whatever fails for want of credentials.
CREDENTIALS = "credentials"
#: The end of the cause of whatever fails because a service does not answer: waiting may mend it.
UNREACHABLE = "cannot be reached"

_DISABLED = re.compile(r"has not been used in project|it is disabled|SERVICE_DISABLED")
_APIS = {"Pub/Sub": "pubsub", "BigQuery": "bigquery", "Cloud Storage": "storage"}


@dataclass(frozen=True, slots=True)
class Finding:
    """``ok`` is None where it could not be told, or is worth a warning. ``subject found; way_out`` reads as one line.

    ``cause`` names what may spoil other looks too: the first finding of a cause tells it.
    """

    ok: bool | None
    subject: str
    found: str
    way_out: str = ""
    cause: str = ""

    def __post_init__(self) -> None:
        for name in ("subject", "found", "way_out"):
            object.__setattr__(self, name, flags.without_passwords(getattr(self, name)))

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
def asking(subject: str, missing: str, service: str = "Google Cloud") -> Iterator[None]:
    """Turns ``service``'s error about ``subject`` into :class:`Wrong`; ``missing`` is the way out of a 404."""
    try:
        yield
    except (Wrong, flags.UsageError):
        raise
    except Exception as error:
        found = told(error, subject, missing, service)
        if found is None:
            raise
        raise Wrong(found) from None


def unreachable_tokens(subject: str, error: TransportError) -> Finding:
    """Who gives tokens does not answer, which says nothing of the credentials."""
    found = f"could not be refreshed: the server that gives tokens cannot be reached ({words(error)})"
    way_out = "let this machine reach https://oauth2.googleapis.com (network, proxy, DNS), and try again"
    return Finding(False, subject, found, way_out, CREDENTIALS)


def told(error: Exception, subject: str, missing: str, service: str) -> Finding | None:
    """``service``'s ``error`` about ``subject``; None for an error of another kind."""
    said = words(error)
    if isinstance(error, api.NotFound):
        project = re.search(r"project not found.*?project=([^)\s]+)|Not found: Project ([\w:.-]+)", said)
        if project:
            name = project[1] or project[2]
            way_out = "use a project that exists, and that these credentials may see"
            return Finding(False, subject, f"is in project {name!r}, which does not exist", way_out, f"project {name}")
        if service == "BigQuery" and "Not found" not in said:  # as it says it of whatever it has not
            return _another(service, said)
        return Finding(False, subject, "does not exist", missing, subject)
    if isinstance(error, api.Unauthenticated | RefreshError) or "Getting metadata from plugin failed" in said:
        return Finding(False, subject, f"no valid credentials ({said})", hints.log_in(), CREDENTIALS)
    if isinstance(error, TransportError):
        return unreachable_tokens(subject, error)
    if isinstance(error, GoogleAuthError):
        return Finding(False, subject, f"no credentials ({said})", hints.log_in(), CREDENTIALS)
    if isinstance(error, api.Forbidden) and _DISABLED.search(said):
        name = _APIS.get(service, service)
        way_out = f"run: gcloud services enable {name}.googleapis.com"
        return Finding(False, service, f"is not enabled in the project: {said}", way_out, f"{service} disabled")
    if isinstance(error, api.Forbidden | api.MethodNotImplemented):
        return Finding(None, subject, f"could not be checked: {said}")
    if isinstance(error, api.GoogleAPICallError | api.RetryError | OSError):
        address = hints.emulator(service)
        said = said.removeprefix("BigQuery cannot be reached: ")
        where = f"at {hints.EMULATORS[service]}={address} cannot be reached" if address else "cannot be reached"
        return Finding(False, service, f"{where}: {said}", hints.reach(service), f"{service} {UNREACHABLE}")
    # No client foresees what another server answers.
    return _another(service, type(error).__name__) if hints.emulator(service) else None


def _another(service: str, said: str) -> Finding:
    """Something else answers where ``service`` should."""
    found = f"is not what answers at its address ({said})"
    return Finding(False, service, found, hints.reach(service), f"{service} {UNREACHABLE}")
