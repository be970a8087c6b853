"""The doctor's look at endpoints on Google Cloud: who may call them, and the grant that is missing."""

from __future__ import annotations

import re
from pathlib import Path

import fake_gcp
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.checks import endpoint
from pipeline.checks.finding import Finding
from pipeline.options import Settings

VERTEX = "vertex:projects/my-project/locations/europe-west4/endpoints/123"
RUN = "https://tei-123456789012.europe-west4.run.app"
TERRAFORM = Path(__file__).parents[2] / "templates" / "terraform"


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Google's services on this machine, and a key that they accept."""
    with fake_gcp.start() as fake:
        for name, value in fake.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield fake


def look(url: str, *flags: str, **changed) -> list[Finding]:
    topics = ("projects/p/subscriptions/s", "projects/p/topics/o", "projects/p/topics/d")
    settings = Settings(*topics, endpoint=url, task="feature-extraction", **changed)
    return list(endpoint.check(settings, PipelineOptions(list(flags))))


@pytest.mark.parametrize(
    ("url", "permission"),
    [(VERTEX, "aiplatform.endpoints.predict"), (f"{RUN}/v1", "run.routes.invoke")],
)
def test_who_may_call_is_asked(cloud, url, permission):
    """The endpoint, or the service, says whether it may be called."""
    (finding,) = look(url)
    assert finding.ok is True and f"{permission} allowed" in finding.found


@pytest.mark.parametrize(
    ("url", "permission", "grant"),
    [
        (
            VERTEX,
            "aiplatform.endpoints.predict",
            "gcloud projects add-iam-policy-binding my-project --member={member} --role=roles/aiplatform.user",
        ),
        (
            RUN,
            "run.routes.invoke",
            "gcloud run services add-iam-policy-binding tei --region=europe-west4 --project=123456789012"
            " --member={member} --role=roles/run.invoker",
        ),
        (
            "https://tei-abc-ez.a.run.app/v1",
            "run.routes.invoke",
            "gcloud run services add-iam-policy-binding tei --region=europe-west4 --project=my-project"
            " --member={member} --role=roles/run.invoker",
        ),
    ],
)
def test_a_missing_role_comes_with_its_grant(cloud, url, permission, grant):
    """The command is whole: the resource, the role, and the account that the workers run as."""
    cloud.denied.add(permission)
    (finding,) = look(url, "--project=my-project")
    assert finding.ok is False and f"{permission} not allowed" in finding.found
    assert grant.format(member=f"serviceAccount:{fake_gcp.ACCOUNT}") in finding.way_out
    worker = "worker@my-project.iam.gserviceaccount.com"
    (finding,) = look(url, "--project=my-project", f"--service_account_email={worker}")
    assert grant.format(member=f"serviceAccount:{worker}") in finding.way_out


def test_an_endpoint_without_a_policy_asks_its_project(cloud):
    """Where Vertex AI has no such method the project answers; where nothing does, it cannot be told."""
    cloud.mute = "/v1beta1/"
    assert look(VERTEX)[0].ok is True
    cloud.denied.add("aiplatform.endpoints.predict")
    assert look(VERTEX)[0].ok is False
    cloud.mute = "/v"
    (finding,) = look(VERTEX)
    assert finding.ok is None and "404" in finding.found


def test_a_url_of_an_unknown_project_is_not_guessed(cloud):
    """An older URL does not say whose it is; without --project nobody is asked."""
    (finding,) = look("https://tei-abc-ez.a.run.app")
    assert finding.ok is None and "does not say which project" in finding.found


def test_an_account_that_may_not_be_acted_as(cloud, monkeypatch):
    """Impersonation that fails names the account, and the role on it."""
    cloud.token_revoked = True
    account = "predictor@my-project.iam.gserviceaccount.com"
    (finding,) = look(VERTEX, endpoint_impersonate=account)
    assert finding.ok is False and account in finding.way_out and "serviceAccountTokenCreator" in finding.way_out


@pytest.mark.parametrize(
    ("url", "changed"), [("https://host.example", {}), (RUN, {"endpoint_auth": "none"}), ("provider:auto", {})]
)
def test_other_endpoints_are_not_asked(cloud, url, changed):
    """What is not Google's, or is shown nothing of Google's, has no role to look for."""
    assert look(url, **changed) == []


def test_terraform_grants_the_same_roles():
    """What the doctor asks for is what Terraform grants, on the one endpoint and the one service."""
    text = (TERRAFORM / "identity.tf").read_text("utf-8")
    for kind, variable, role in (
        ("google_vertex_ai_endpoint_iam_member", "vertex_endpoint", "roles/aiplatform.user"),
        ("google_cloud_run_v2_service_iam_member", "cloud_run_service", "roles/run.invoker"),
    ):
        (body,) = re.findall(rf'^resource "{kind}" "\w+" \{{\n(.*?)^\}}', text, re.M | re.S)
        assert f"var.{variable}[*]" in body and f'"{role}"' in body and "local.worker" in body
        assert f'variable "{variable}"' in (TERRAFORM / "variables.tf").read_text("utf-8")
