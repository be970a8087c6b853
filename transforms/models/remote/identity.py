"""Google's identity for endpoints: whose token is sent where, with no secret in the job.

Access tokens and ID tokens come from Application Default Credentials, through google-auth: on a worker, those of the
account that it runs as. Only the name of an account and of a host travel with the job.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from transforms.models.errors import ModelLoadError, foreign
from transforms.models.remote.provider import PREFIX
from transforms.models.remote.vertex import place
from transforms.models.scrub import without_tokens
from transforms.models.token import Lease, Source, TokenError, TokenSource, checked

#: What an endpoint is shown: Hugging Face's token, a Google access token, a Google ID token for it alone, or nothing.
AUTHS = ("hf", "google", "google-id", "none")

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

#: Least seconds between two tokens asked for because one was refused: each is a new one, which proves nothing.
_PAUSE_S = 10.0

#: google-auth's own margin: what it takes for ended is not handed out.
_MARGIN_S = 225.0

#: Longest that one request for a token may take, in seconds.
_TIMEOUT_S = 20.0

#: Google's own services. A run.app host is anyone's program, so that it gets ID tokens, which are good for it alone.
_GOOGLE = re.compile(r"(.+\.)?(googleapis\.com|prediction\.vertexai\.goog)")
_CLOUD_RUN = re.compile(r".+\.(run\.app|cloudfunctions\.net)")
_FUNCTION = re.compile(r".+\.cloudfunctions\.net")


def host_of(url: str) -> str:
    """The host in ``url``, in small letters."""
    return (urlsplit(url).hostname or "").lower().rstrip(".")


def is_googles(url: str) -> bool:
    """Whether ``url`` is one of Google's own services, over TLS."""
    return url.startswith("https://") and bool(_GOOGLE.fullmatch(host_of(url)))


def is_cloud_run(url: str) -> bool:
    """Whether ``url`` is a service on Cloud Run, or a function."""
    return bool(_CLOUD_RUN.fullmatch(host_of(url)))


def origin(url: str) -> str:
    """``https://HOST`` of ``url``, without its path and a port that goes without saying: a Cloud Run audience."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host.lower()}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


def audience_of(url: str) -> str:
    """Whom an ID token for ``url`` is for: a Cloud Run service is its host, a function its name there too.

    https://cloud.google.com/functions/docs/securing/authenticating#generate_tokens_programmatically
    """
    function = urlsplit(url).path.strip("/").partition("/")[0]
    return f"{origin(url)}/{function}" if function and _FUNCTION.fullmatch(host_of(url)) else origin(url)


@dataclass(frozen=True, slots=True)
class GoogleIdentity:
    """Gives access tokens for ``configured``, a URL, or with an ``audience`` ID tokens for that alone."""

    configured: str
    audience: str = ""
    impersonate: str = ""

    def lease(self, again: bool) -> Lease:
        from google.auth.exceptions import GoogleAuthError

        what = "google-id" if self.audience else "google"
        try:
            found = _credentials(self)
            if again or not found.token or _left(found) < _MARGIN_S:
                found.refresh(_request())
            return Lease(checked(str(found.token or ""), what), _left(found))
        except (GoogleAuthError, OSError, ValueError) as error:
            if isinstance(error, TokenError):
                raise
            raise TokenError(f"`auth={what}`: {_why(error, self)}") from None

    def pause_s(self) -> float:
        return _PAUSE_S

    def goes_to(self, url: str) -> bool:
        return origin(url) == origin(self.configured) or (not self.audience and is_googles(url))

    def advice(self, status: int) -> str:
        role = "roles/run.invoker on the service" if self.audience else "roles/aiplatform.user on the endpoint"
        if status == 403:
            return f"give the account {role}; python -m pipeline.doctor says the command"
        kind = f"an ID token for {self.audience}" if self.audience else "an access token"
        return f"it was shown {kind}, and takes another: see `auth`"


def _left(found: Any) -> float:
    """Seconds that are left of a credential's token."""
    ends: datetime | None = found.expiry
    if ends is None:
        return math.inf
    ends = ends if ends.tzinfo else ends.replace(tzinfo=timezone.utc)
    return max(0.0, (ends - datetime.now(timezone.utc)).total_seconds())


@functools.cache
def _credentials(identity: GoogleIdentity) -> Any:
    """The process's credentials for ``identity``; one object keeps its token for all that ask."""
    import google.auth
    from google.auth import compute_engine, impersonated_credentials
    from google.oauth2 import service_account

    found, _ = google.auth.default(scopes=[SCOPE])
    if identity.impersonate:
        found = impersonated_credentials.Credentials(found, identity.impersonate, [SCOPE])
    if not identity.audience:
        return found
    if isinstance(found, impersonated_credentials.Credentials):
        return impersonated_credentials.IDTokenCredentials(found, identity.audience, include_email=True)
    if isinstance(found, compute_engine.Credentials):
        return compute_engine.IDTokenCredentials(_request(), identity.audience, use_metadata_identity_endpoint=True)
    if isinstance(found, service_account.Credentials):
        return service_account.IDTokenCredentials(
            found.signer, found.service_account_email, found._token_uri, identity.audience
        )
    raise ValueError(f"{type(found).__module__.rpartition('.')[2]} credentials give no ID token for a service")


def _request() -> Any:
    from google.auth.transport.requests import Request

    return functools.partial(Request(), timeout=_TIMEOUT_S)


def _why(error: Exception, identity: GoogleIdentity) -> str:
    """What went wrong, with the way out, and without a token that an answer may quote."""
    from google.auth.exceptions import DefaultCredentialsError

    said = foreign(without_tokens(" ".join(str(error.args[0] if error.args else error).split())))[:300]
    if isinstance(error, DefaultCredentialsError):
        return f"{said}; run: gcloud auth application-default login, or give the worker a service account"
    if "give no ID token" in said:
        return f"{said}; name a service account that you may act as by `impersonate`"
    if identity.impersonate:
        return (
            f"{said}; {identity.impersonate} must exist, and the caller have roles/iam.serviceAccountTokenCreator on it"
        )
    return said


def usual_auth(endpoint: str, has_token: bool) -> str:
    """What an endpoint is shown where nothing else was said."""
    if has_token:
        return "hf"
    if place(endpoint) or is_googles(endpoint):
        return "google"
    return "google-id" if is_cloud_run(endpoint) else "none"


def source(endpoint: str, auth: str, token: TokenSource | None, impersonate: str | None) -> Source | None:
    """Where the tokens for ``endpoint`` come from; None sends none.

    Raises:
      ModelLoadError: these do not go together.
    """
    if auth not in AUTHS:
        raise ModelLoadError(f"`auth={auth}`: use {', '.join(AUTHS)}")
    by_google = auth.startswith("google")
    if impersonate and not by_google:
        raise ModelLoadError(f"`impersonate={impersonate}` needs `auth=google` or `auth=google-id`; this is {auth}")
    if endpoint.startswith(PREFIX):
        if token is None:
            raise ModelLoadError(f"`endpoint={endpoint}` needs `token`: say where one is read")
        if auth != "hf":
            raise ModelLoadError(f"`auth={auth}`: Inference Providers take a Hugging Face token alone; use hf")
        return token
    there = place(endpoint)
    if there and auth in ("hf", "google-id"):
        raise ModelLoadError(f"`auth={auth}`: Vertex AI takes Google's access tokens alone; use google")
    if auth == "hf":
        if token is None:
            raise ModelLoadError("`auth=hf` needs `token`: say where the Hugging Face token is read")
        return token
    if not by_google:
        return None
    url = there.url if there else endpoint
    if not url.startswith("https://") and not _is_loopback(host_of(url)):
        raise ModelLoadError(f"`auth={auth}`: a token is not sent without TLS; use the https:// URL of the endpoint")
    return GoogleIdentity(origin(url), audience_of(url) if auth == "google-id" else "", impersonate or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
