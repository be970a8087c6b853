"""Terraform, roles and monitoring: as much of them as can be checked without a cloud."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from programs import found
from streams import ROOT

from pipeline import metadata
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD, AUDIT_SCHEMA

TEMPLATES = ROOT / "templates"
TERRAFORM = TEMPLATES / "terraform"


def terraform_text() -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(TERRAFORM.glob("*.tf")))


def resources() -> dict[tuple[str, str], str]:
    """Body by type and name."""
    found = re.findall(r'^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', terraform_text(), re.M | re.S)
    return {(kind, name): body for kind, name, body in found}


def role(body: str) -> str:
    return re.search(r'^  role\s*= "(.*)"$', body, re.M)[1]


def test_terraform_is_formatted():
    """terraform fmt would change nothing."""
    asked = [found("terraform"), "fmt", "-check", "-recursive", "-diff", str(TERRAFORM)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_terraform_names_resolve():
    """Every resource, data source, variable and local that is named is declared, and every variable is used."""
    text = re.sub(r"#.*", "", terraform_text())
    declared = {f"{kind}.{name}" for kind, name in resources()}
    declared |= {f"data.{kind}.{name}" for kind, name in re.findall(r'^data "(\w+)" "(\w+)"', text, re.M)}
    used = set(re.findall(r"(?<![\w.])((?:data\.)?google_\w+\.\w+)(?=[.\[\s,\]])", text))
    assert used and used <= declared, used - declared
    variables = set(re.findall(r'^variable "(\w+)"', text, re.M))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    blocks = "".join(re.findall(r"^locals \{\n(.*?)^\}", text, re.M | re.S))
    local = set(re.findall(r"^  (\w+)\s*=", blocks, re.M))
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local


def test_least_rights():
    """Two roles are granted on the project, as Dataflow has them only there; all others on one resource.

    None is basic or an administrator's, nothing is granted to everybody, and no grant takes another's away.
    """
    grants = {key: body for key, body in resources().items() if "_iam_" in key[0] and "workload_identity" not in key[0]}
    on_project = {role(body) for (kind, _), body in grants.items() if kind.startswith("google_project_iam")}
    assert on_project == {"roles/dataflow.worker", "roles/dataflow.developer"}
    for (kind, name), body in grants.items():
        assert kind.endswith("_iam_member"), f"{kind}.{name}: others replace what somebody else has granted"
        assert not re.search(r"roles/(owner|editor|viewer)$|[aA]dmin$", role(body)), (kind, name)
    text = terraform_text()
    assert "allUsers" not in text and "allAuthenticatedUsers" not in text
    assert not [line for line in text.splitlines() if re.search(r"(member|role|permissions)\s*=.*\*", line)]
    assert "google_service_account_key" not in text


def test_every_grant_has_its_reason():
    """A comment stands directly above every grant."""
    text = terraform_text()
    for match in re.finditer(r'^resource "google_\w+_iam_member" "(\w+)"', text, re.M):
        before = text[: match.start()].rstrip("\n").splitlines()[-1]
        assert before.startswith("# "), match[1]


WORKER = {
    ("google_pubsub_subscription_iam_member", "roles/pubsub.subscriber"),
    ("google_pubsub_topic_iam_member", "roles/pubsub.publisher"),
    ("google_bigquery_table_iam_member", "roles/bigquery.dataEditor"),
    ("google_secret_manager_secret_iam_member", "roles/secretmanager.secretAccessor"),
    ("google_artifact_registry_repository_iam_member", "roles/artifactregistry.reader"),
    ("google_storage_bucket_iam_member", "roles/storage.objectUser"),
    ("google_project_iam_member", "roles/dataflow.worker"),
}


def test_workers_and_launcher_are_two():
    """Workers get what the job needs, before the job starts; the launcher can read no message, row or secret."""
    worker = {key: body for key, body in resources().items() if "= local.worker\n" in body}
    launcher = {key: body for key, body in resources().items() if "= local.launcher\n" in body}
    assert {(kind, role(body)) for (kind, _), body in worker.items()} >= WORKER
    assert {kind for kind, _ in launcher} == {
        "google_project_iam_member",
        "google_service_account_iam_member",
        "google_storage_bucket_iam_member",
    }
    job = resources()["google_dataflow_flex_template_job", "inference"]
    for kind, name in worker:
        assert f"{kind}.{name}," in job, f"the job must wait for {kind}.{name}"


def test_every_flag_that_names_a_resource_is_wired():
    """Terraform passes each of them from the resource it made."""
    named = {p["name"] for p in metadata.metadata()["parameters"] if re.match("PUBSUB|BIGQUERY", p["paramType"])}
    text = (TERRAFORM / "job.tf").read_text("utf-8")
    wired = dict(re.findall(r'^      (\w+)\s*= (google_\S+|".*")$', text, re.M))
    # Summing windows up takes queries, whose right is granted on projects only: python -m pipeline.summary has its own.
    assert wired.keys() == named - {"summary_table"}
    assert all("google_" in value for value in wired.values())
    assert '"hf_token_source" => "secret:${secret.id}/versions/latest"' in text


def test_audit_table_is_the_projects_own():
    """The table's columns, partitioning and clustering are those of the audit row."""
    assert json.loads((TERRAFORM / "audit_schema.json").read_text("utf-8")) == AUDIT_SCHEMA
    table = resources()["google_bigquery_table", "audit"]
    assert f'"{AUDIT_PARTITION_FIELD}"' in table and json.dumps(AUDIT_CLUSTERING) in table


@pytest.mark.slow
def test_checkov():
    """checkov, offline, finds nothing but what is skipped with its reason."""
    asked = [found("checkov"), "--directory", str(TERRAFORM), "--framework", "terraform", "--compact", "--quiet"]
    done = subprocess.run([*asked, "--skip-download"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout


# Monitoring


def test_alerts_and_dashboard():
    """Six alerts, each with what to do, and a dashboard; all are about this job's own resources by name."""
    alerts = {
        path.stem: json.loads(path.read_text("utf-8")) for path in (TEMPLATES / "monitoring").glob("alert_*.json")
    }
    assert alerts.keys() == {
        f"alert_{n}"
        for n in ("oldest_unacked", "dead_letter_rate", "undeliverable", "system_lag", "error_rate", "no_output")
    }
    for name, alert in alerts.items():
        assert alert["documentation"]["content"] and alert["displayName"].startswith("${name}: "), name
        (condition,) = alert["conditions"]
        text = json.dumps(condition)
        assert "${name}" in text and ("conditionThreshold" in condition) != ("PrometheusQuery" in text), name
    dashboard = json.loads((TEMPLATES / "monitoring" / "dashboard.json").read_text("utf-8"))
    tiles = dashboard["mosaicLayout"]["tiles"]
    places = {(tile["xPos"], tile["yPos"]) for tile in tiles}
    assert len(places) == len(tiles) and all(tile["xPos"] + tile["width"] <= 12 for tile in tiles)


def test_the_documentation_that_alerts_point_to_exists():
    """Each heading of docs/dataflow.md that an alert names is there."""
    headings = set(re.findall(r"^#+ (.*)$", (ROOT / "docs" / "dataflow.md").read_text("utf-8"), re.M))
    for path in (TEMPLATES / "monitoring").glob("alert_*.json"):
        content = json.loads(path.read_text("utf-8"))["documentation"]["content"]
        for heading in re.findall(r'See "(.*?)" in docs/dataflow.md', content):
            assert heading in headings, (path.name, heading)
