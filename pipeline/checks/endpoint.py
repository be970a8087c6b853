"""Whether an endpoint on Google Cloud may be called: asked of Vertex AI and Cloud Run, with the missing grant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.auth import impersonated_credentials
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from pipeline.checks.finding import CREDENTIALS, Finding, flag
from pipeline.checks.identity import SCOPE, credentials
from pipeline.checks.resources import TIMEOUT_S
from pipeline.clients import words
from pipeline.options import Settings
from transforms.models.remote.identity import is_cloud_run, origin
from transforms.models.remote.vertex import Place, place
from transforms.models.scrub import without_tokens

#: A Cloud Run URL that says whose it is: https://cloud.google.com/run/docs/triggering/https-request#deterministic
_DETERMINISTIC = re.compile(r"https://(.+)-([0-9]{6,20})\.([a-z]+-[a-z]+[0-9]+)\.run\.app")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A resource that says what the caller may do with it."""

    url: str
    permission: str
    grant: str
    role: str


def check(settings: Settings, options: PipelineOptions) -> Iterator[Finding]:
    """Nothing for an endpoint that is not on Google Cloud, or is shown no identity of Google's."""
    if not settings.endpoint or settings.endpoint_auth in ("hf", "none"):
        return
    there = place(settings.endpoint)
    if not there and not is_cloud_run(settings.endpoint):
        return
    subject = flag("endpoint", settings.endpoint)
    try:
        caller, member = _caller(settings, options)
        session = AuthorizedSession(caller)
        asked = _vertex(there) if there else _cloud_run(settings.endpoint, session, options)
        if not asked:
            yield Finding(None, subject, "does not say which project it is of: its callers could not be asked for")
            return
        yield _ask(subject, session, asked, member)
    except (GoogleAuthError, OSError) as error:
        found = f"could not be asked who may call it: {without_tokens(words(error))}"
        account = settings.endpoint_impersonate
        way_out = f"run: gcloud iam service-accounts add-iam-policy-binding {account} --member=MEMBER"
        way_out += " --role=roles/iam.serviceAccountTokenCreator"
        cause = CREDENTIALS if isinstance(error, GoogleAuthError) and not account else ""
        yield Finding(False if account else None, subject, found, way_out if account else "", cause)


def _caller(settings: Settings, options: PipelineOptions) -> tuple[Credentials, str]:
    """Who asks, and the member to grant a role to: who is impersonated, else who the workers run as, else who asks."""
    own = credentials()
    account = settings.endpoint_impersonate
    if account:
        return impersonated_credentials.Credentials(own, account, [SCOPE]), f"serviceAccount:{account}"
    worker = options.view_as(GoogleCloudOptions).service_account_email
    email = worker or getattr(own, "service_account_email", None)
    return own, f"serviceAccount:{email}" if email and "@" in email else "MEMBER"


def _vertex(there: Place) -> list[_Asked]:
    """The endpoint itself, and where that has no answer, its project."""
    _, project, _, location, *_ = there.name.split("/")
    permission, role = "aiplatform.endpoints.predict", "roles/aiplatform.user"
    grant = f"gcloud projects add-iam-policy-binding {project}"
    manager = os.environ.get(
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER", "https://cloudresourcemanager.googleapis.com/"
    )
    at_project = _Asked(f"{manager.rstrip('/')}/v1/projects/{project}:testIamPermissions", permission, grant, role)
    if there.is_shared_model:
        return [at_project]
    return [_Asked(f"{there.api}/v1beta1/{there.name}:testIamPermissions", permission, grant, role), at_project]


def _cloud_run(url: str, session: AuthorizedSession, options: PipelineOptions) -> list[_Asked]:
    """The service by its URL; an older one does not say its project, and is looked for in the job's."""
    api = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", "https://run.googleapis.com/").rstrip("/")
    found = _DETERMINISTIC.fullmatch(origin(url))
    if found:
        name = f"projects/{found[2]}/locations/{found[3]}/services/{found[1]}"
    else:
        name = _service_of(url, api, session, options.view_as(GoogleCloudOptions).project)
    if not name:
        return []
    _, project, _, location, _, service = name.split("/")
    grant = f"gcloud run services add-iam-policy-binding {service} --region={location} --project={project}"
    return [_Asked(f"{api}/v2/{name}:testIamPermissions", "run.routes.invoke", grant, "roles/run.invoker")]


def _service_of(url: str, api: str, session: AuthorizedSession, project: str | None) -> str:
    """The name of the project's service that has ``url``, if it can be seen."""
    if not project:
        return ""
    answer = session.get(f"{api}/v2/projects/{project}/locations/-/services", timeout=TIMEOUT_S)
    services = answer.json().get("services", []) if answer.ok else []
    mine = (one["name"] for one in services if origin(url) in (one.get("uri"), *one.get("urls", [])))
    return next(mine, "")


def _ask(subject: str, session: AuthorizedSession, asked: list[_Asked], member: str) -> Finding:
    """What the first of ``asked`` that answers says."""
    status = ""
    for one in asked:
        answer = session.post(one.url, json={"permissions": [one.permission]}, timeout=TIMEOUT_S)
        if not answer.ok:
            status = f"{answer.status_code} {answer.reason}"
            continue
        if one.permission in answer.json().get("permissions", []):
            return Finding(True, subject, f"{one.permission} allowed")
        way_out = f"run: {one.grant} --member={member} --role={one.role}"
        if "aiplatform" in one.permission:
            way_out += " (for this endpoint alone: vertex_endpoint in templates/terraform)"
        return Finding(False, subject, f"{one.permission} not allowed", way_out)
    return Finding(None, subject, f"could not be asked who may call it: {status}")
