"""Whose credentials there are, whether their token is valid, and what it may be used for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urljoin

import google.auth
import requests
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

from pipeline.checks import hints
from pipeline.checks.finding import CREDENTIALS, Finding, unreachable_tokens
from pipeline.clients import words

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_OAUTH = "https://oauth2.googleapis.com"
_LOGIN = "run: gcloud auth application-default login"


def credentials() -> Credentials:
    """The application default credentials.

    Raises:
        GoogleAuthError: there are none.
    """
    found, _ = google.auth.default(scopes=[SCOPE])
    return found


def check(options: PipelineOptions) -> Iterator[Finding]:
    """The credentials' owner and scopes; says so where emulators need none."""
    emulated = all(os.environ.get(name) for name in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"))
    if emulated and not options.view_as(GoogleCloudOptions).temp_location:
        yield Finding(None, "credentials", "are not needed: both services are emulators")
        return
    try:
        found = credentials()
        found.refresh(Request())
    except TransportError as error:
        yield unreachable_tokens("credentials", error)
        return
    except (GoogleAuthError, OSError, ValueError) as error:  # the last for a key file that is none
        yield Finding(False, "credentials", f"are missing or expired ({words(error)})", hints.log_in(), CREDENTIALS)
        return
    about = _token_info(found)
    owner = about.get("email") or getattr(found, "service_account_email", None) or "an account that hides its name"
    yield Finding(True, "credentials", f"belong to {owner}")
    scopes = about.get("scope", "").split()
    if scopes:
        enough = SCOPE in scopes
        what = f"is valid for {about.get('expires_in', '?')} s" if enough else f"lacks the scope {SCOPE}"
        yield Finding(enough, "access token", what, "" if enough else f"{_LOGIN} --scopes={SCOPE}")
    worker = options.view_as(GoogleCloudOptions).service_account_email
    if worker and worker != owner:
        yield Finding(
            None,
            "workers",
            f"run as {worker}, and what follows is what {owner} may do",
            f"to ask for the workers, {_LOGIN} --impersonate-service-account={worker}",
        )


def _token_info(found: Credentials) -> dict[str, str]:
    """What the server that gave the token says about it; nothing where it does not answer."""
    url = urljoin(getattr(found, "_token_uri", None) or _OAUTH, "/tokeninfo")
    try:
        answer = requests.post(url, data={"access_token": found.token}, timeout=10)
        return answer.json() if answer.ok else {}
    except (requests.RequestException, ValueError):
        return {}
