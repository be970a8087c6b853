"""Terraform, roles and monitoring: as much of them as can be checked without a cloud."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from programs import found
from streams import ROOT

from pipeline import graph, metadata
from pipeline.handlers import make_handler
from pipeline.options import parse
from transforms.records import AUDIT_CLUSTERING, AUDIT_PARTITION_FIELD, AUDIT_SCHEMA
from transforms.summary_row import SUMMARY_PARTITION_FIELD, SUMMARY_SCHEMA

TEMPLATES = ROOT / "templates"
TERRAFORM = TEMPLATES / "terraform"


def terraform_text() -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(TERRAFORM.glob("*.tf")))


def resources() -> dict[tuple[str, str], str]:
    """Body by type and name."""
    found = re.findall(r'^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', terraform_text(), re.M | re.S)
    return {(kind, name): body for kind, name, body in found}


def role(body: str) -> str:
    """The role of a grant: Google's by its name, one of our own by its address."""
    return re.search(r'^  role\s*= "?([\w./]+?)(?:\.name)?"?$', body, re.M)[1]


def code(body: str) -> str:
    """``body`` without its comments."""
    return re.sub(r"(?m)#.*$", "", body)


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


def grants() -> dict[tuple[str, str], str]:
    found = {key: body for key, body in resources().items() if re.search(r"_iam_(member|binding|policy)", key[0])}
    return {key: body for key, body in found.items() if "workload_identity" not in key[0]}


def test_least_rights():
    """Two roles are granted on the project, as Dataflow has them only there; all others on one resource.

    None is basic or an administrator's, nothing is granted to everybody, and no grant takes another's away.
    """
    on_project = {role(body) for (kind, _), body in grants().items() if kind.startswith("google_project_iam")}
    assert on_project == {"roles/dataflow.worker", "roles/dataflow.developer"}
    for (kind, name), body in grants().items():
        assert kind.endswith("_iam_member"), f"{kind}.{name}: others replace what somebody else has granted"
        assert not re.search(r"roles/(owner|editor|viewer)$|[aA]dmin$|bigquery\.data", role(body)), (kind, name)
    text = terraform_text()
    assert "allUsers" not in text and "allAuthenticatedUsers" not in text
    assert not [line for line in text.splitlines() if re.search(r"(member|role|permissions)\s*=.*\*", line)]
    assert "google_service_account_key" not in text


def test_roles_of_our_own_insert_and_no_more():
    """Workers may insert into the table, see it and its dataset, and read one schema: they delete nothing."""
    own = {
        name: json.loads(re.search(r"^  permissions\s*= (\[.*\])$", body, re.M)[1])
        for (kind, name), body in resources().items()
        if kind == "google_project_iam_custom_role"
    }
    # https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll#iam-permissions
    assert own == {
        "audit_writer": ["bigquery.tables.get", "bigquery.tables.updateData"],
        "dataset_viewer": ["bigquery.datasets.get"],
        "schema_reader": ["pubsub.schemas.get"],
    }
    bigquery = {kind: role(body) for (kind, _), body in grants().items() if "bigquery" in kind}
    assert bigquery == {
        "google_bigquery_table_iam_member": "google_project_iam_custom_role.audit_writer",
        "google_bigquery_dataset_iam_member": "google_project_iam_custom_role.dataset_viewer",
    }


def bucket_rights() -> dict[tuple[str, str], set[str]]:
    """Folders of the bucket by who may do what there; every folder is "" without a condition."""
    rights: dict[tuple[str, str], set[str]] = {}
    for (kind, _), body in grants().items():
        if kind == "google_storage_bucket_iam_member":
            member = re.search(r"^  member\s*= (\S+)$", body, re.M)[1]
            expression = re.search(r'^    expression = "(.*)"$', body, re.M)
            folders = re.findall(r"startsWith\('\$\{local\.objects\}/(\w+/)'\)", expression[1]) if expression else [""]
            rights.setdefault((member, role(body)), set()).update(folders)
            if expression:
                # Joined by nothing but "or", so that no folder is let in by a term that this test does not see.
                terms = expression[1].split(" || ")
                assert len(terms) == len(folders), expression[1]
    return rights


def test_the_bucket_is_divided_by_folder():
    """A worker writes to staging and temp only; templates are written by who builds, and by no worker."""
    builder = "google_service_account.builder.member"
    assert bucket_rights() == {
        ("local.worker", "roles/storage.objectUser"): {"staging/", "temp/"},
        ("local.worker", "roles/storage.objectViewer"): {"templates/", "models/"},
        ("local.worker", "roles/storage.legacyBucketReader"): {""},
        ("local.launcher", "roles/storage.objectViewer"): {"templates/"},
        (builder, "roles/storage.objectUser"): {"build/"},
        (builder, "roles/storage.legacyBucketReader"): {""},
        ("each.value", "roles/storage.objectUser"): {"build/", "templates/"},  # local.builders: who submits builds
        ("each.value", "roles/storage.legacyBucketReader"): {""},
    }
    # resource.name of an object: https://cloud.google.com/iam/docs/conditions-resource-attributes#resource-name
    assert 'objects = "projects/_/buckets/${google_storage_bucket.job.name}/objects"' in terraform_text()


def test_submitters_may_act_as_the_builder():
    """Whoever submits a build that runs as the builder may act as it: people named, and the builder itself for CI."""
    body = resources()["google_service_account_iam_member", "submits_as_builder"]
    assert role(body) == "roles/iam.serviceAccountUser" and "google_service_account.builder.name" in body
    assert "for_each           = local.builders" in body
    assert re.search(r"builders = merge\(\n.*var\.build_members.*\n.*builder\.member", terraform_text())


def test_the_subnetwork_is_used_by_dataflows_agent():
    """On a Shared VPC it is Dataflow's own account that needs the host's subnetwork, not the workers'."""
    users = {name: body for (_, name), body in grants().items() if role(body) == "roles/compute.networkUser"}
    assert [name for name, body in users.items() if "local.agent.dataflow" in body] == list(users) != []


RIGHT_TOKEN = {
    "repository": "o/n",
    "repository_id": "123",
    "repository_owner_id": "45",
    "ref": "refs/heads/main",
    "event_name": "push",
}


@pytest.mark.parametrize(
    ("claims", "admitted"),
    [
        ({}, True),
        ({"event_name": "workflow_dispatch"}, True),
        ({"repository": "renamed/since"}, True),
        ({"repository_id": "999"}, False),
        ({"repository_owner_id": "99"}, False),
        ({"ref": "refs/heads/topic"}, False),
        ({"ref": "refs/pull/1/merge", "event_name": "pull_request"}, False),
        ({"event_name": "pull_request_target"}, False),
        ({"event_name": "issue_comment"}, False),
        ({"event_name": "workflow_run"}, False),
    ],
)
def test_federation_admits_one_repository_by_number(claims, admitted):
    """A token of the very repository's main gets in; of a namesake, a branch, or an event a stranger causes, none."""
    body = resources()["google_iam_workload_identity_pool_provider", "github"]
    terms = re.findall(
        r'^    "(.*)",$', body[body.index("attribute_condition") : body.index("attribute_mapping")], re.M
    )
    condition = " and ".join(terms).replace("${each.value.id}", "123").replace("${each.value.owner_id}", "45")
    token = {**RIGHT_TOKEN, **claims}
    python = re.sub(r"assertion\.(\w+)", lambda match: repr(token[match[1]]), condition)
    assert (
        len(terms) == 4 and eval(python, {"__builtins__": {}}) is admitted
    )  # CEL and Python agree on ==, in and lists
    for name in ("ci_as_launcher", "ci_as_builder"):
        member = resources()["google_service_account_iam_member", name]
        assert "/attribute.repository_id/${each.value.id}" in member


def test_every_grant_has_its_reason():
    """A comment stands directly above every grant."""
    text = terraform_text()
    for match in re.finditer(r'^resource "google_\w+_iam_member" "(\w+)"', text, re.M):
        before = text[: match.start()].rstrip("\n").splitlines()[-1]
        assert before.startswith("# "), match[1]


WORKER = {
    ("google_pubsub_subscription_iam_member", "roles/pubsub.subscriber"),
    ("google_pubsub_topic_iam_member", "roles/pubsub.publisher"),
    ("google_bigquery_table_iam_member", "google_project_iam_custom_role.audit_writer"),
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


def test_dataflow_reads_a_plain_subscription():
    """The input has no dead-letter and no retry policy, which Dataflow does not support, nor order or exactly-once."""
    body = code(resources()["google_pubsub_subscription", "input"])
    assert "dead_letter_policy" not in body and "retry_policy" not in body
    assert re.search(r"enable_message_ordering\s*= false", body)
    assert re.search(r"enable_exactly_once_delivery\s*= false", body)
    assert "undeliverable" not in terraform_text()


def test_a_first_apply_waits_for_the_services():
    """What needs an enabled service waits for it, and what enabling itself needs is named for a new project."""
    text = terraform_text()
    services = re.search(r"  services = \[(.*?)\]", text, re.S)[1]
    assert {"cloudresourcemanager", "serviceusage", "iam", "containeranalysis", "sts"} <= set(
        re.findall(r'"(\w+)"', services)
    )
    for (kind, name), body in resources().items():
        first = kind in ("google_service_account", "google_project_iam_custom_role", "google_logging_metric")
        if first or kind in ("google_pubsub_topic", "google_bigquery_dataset", "google_storage_bucket"):
            assert "google_project_service.needed" in body, f"{kind}.{name} does not wait for its service"
    assert re.search(r'data "google_project" "this" \{\n  depends_on = \[google_project_service.needed\]', text)
    # The provider asks Cloud Resource Manager for the project before it enables the first service.
    bootstrap = (
        "gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com iam.googleapis.com"
    )
    for path in (TERRAFORM / "services.tf", ROOT / "docs" / "deploy.md", TEMPLATES / "smoke.sh"):
        assert bootstrap in path.read_text("utf-8"), path.name


def test_every_flag_that_names_a_resource_is_wired():
    """Terraform passes each of them from the resource it made."""
    named = {p["name"] for p in metadata.metadata()["parameters"] if re.match("PUBSUB|BIGQUERY", p["paramType"])}
    text = (TERRAFORM / "job.tf").read_text("utf-8")
    wired = dict(re.findall(r'^      (\w+)\s*= (google_\S+|".*")$', text, re.M))
    given = dict(re.findall(r'^    \{ for .* : "(\w+)" => (.*) \},$', text, re.M))
    assert wired.keys() | given.keys() == named | {"hf_token_source"}
    assert all("google_" in value for value in wired.values())
    assert "table.table_id" in given["summary_table"] and "google_pubsub_topic" in given["summary_topic"]
    assert '"hf_token_source" => "secret:${secret.id}/versions/latest"' in text


def test_audit_table_is_the_projects_own():
    """The table's columns, partitioning and clustering are those of the audit row."""
    assert json.loads((TERRAFORM / "audit_schema.json").read_text("utf-8")) == AUDIT_SCHEMA
    table = resources()["google_bigquery_table", "audit"]
    assert f'"{AUDIT_PARTITION_FIELD}"' in table and json.dumps(AUDIT_CLUSTERING) in table


def test_the_summary_table_is_the_projects_own():
    """Its columns and its partitioning are those of the summary row."""
    assert json.loads((TERRAFORM / "summary_schema.json").read_text("utf-8")) == SUMMARY_SCHEMA
    assert f'"{SUMMARY_PARTITION_FIELD}"' in resources()["google_bigquery_table", "summary"]


# The job


def step_names(*flags: str) -> set[str]:
    """The steps that the job has on Dataflow with these flags."""
    required = {
        "input_subscription": "projects/my-project/subscriptions/inbox",
        "output_topic": "projects/my-project/topics/results",
        "dead_letter_topic": "projects/my-project/topics/dead",
        "audit_table": "my-project:inference.audit",
        "task": "text-classification",
        "endpoint": "https://example.com",
    }
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    argv = [f"--{name}={value}" for name, value in {**required, **given}.items()]
    settings, options = parse([*argv, "--runner=DataflowRunner"])
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=DirectRunner"]))
    graph.build(pipeline, settings, make_handler(settings))
    names: set[str] = set()

    class Names(beam.pipeline.PipelineVisitor):
        def enter_composite_transform(self, node: Any) -> None:
            names.add(node.full_label)

        visit_transform = enter_composite_transform

    pipeline.visit(Names())
    return names


CHANGES = {
    "max_batch_latency_ms": "50",
    "summary_table": "my-project:inference.summary",
    "summary_topic": "projects/my-project/topics/summary",
    "input_path": "a.b",
    "id_attribute": "order",
    "timestamp_attribute": "at",
    "window": "fixed:30",
    "max_batch_size": "7",
    "max_batch_tokens": "99",
    "audit_input": "none",
    "endpoint_concurrency": "3",
    "inference_params": "{}",
}


def test_terraform_starts_anew_where_the_graph_changes():
    """The flags that drain the job are just those that change its steps: others update it in place."""
    before = step_names()
    change = {name for name, value in CHANGES.items() if step_names(f"--{name}={value}") != before}
    named = re.search(r"graph_flags = (\[.*\])", terraform_text())[1]
    assert set(json.loads(named)) == change


def terraform(folder: Path, *arguments: str, expect: int = 0) -> str:
    """What terraform prints; without a network, as no provider is asked for."""
    environment = {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    asked = [found("terraform"), f"-chdir={folder}", *arguments]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def block(path: str, start: str) -> str:
    """One top-level block of a file."""
    return re.search(rf"^{re.escape(start)} \{{\n.*?^\}}", (TERRAFORM / path).read_text("utf-8"), re.M | re.S)[0]


@pytest.fixture
def without_providers(tmp_path) -> Path:
    """Our variables, our monitoring and what decides over the job's replacement: all that needs no provider."""
    folder = tmp_path / "templates" / "terraform"
    folder.mkdir(parents=True)
    shutil.copytree(TEMPLATES / "monitoring", tmp_path / "templates" / "monitoring")
    shutil.copy(TERRAFORM / "variables.tf", folder)
    decides = block("job.tf", "locals").split("  # Flags whose presence")[1].removesuffix("}")
    lifecycle = re.search(r"^  lifecycle \{\n.*?^  \}", block("job.tf", JOB_BLOCK), re.M | re.S)[0]
    (folder / "main.tf").write_text(
        f"locals {{\n  # Flags whose presence{decides}}}\n"
        + block("job.tf", 'resource "terraform_data" "graph"')
        + "\n"
        + block("monitoring.tf", "locals")
        + f"""
resource "terraform_data" "job" {{
  for_each = var.job == null ? {{}} : {{ inference = var.job }}
  input    = each.value
{lifecycle}
}}
output "monitoring" {{ value = {{ alerts = local.alerts, metrics = local.metrics }} }}
"""
    )
    terraform(folder, "init", "-input=false")
    return folder


JOB_BLOCK = 'resource "google_dataflow_flex_template_job" "inference"'


def variables(folder: Path, **values: Any) -> str:
    path = folder / "values.tfvars.json"
    path.write_text(json.dumps({"project": "p", "region": "r", **values}))
    return f"-var-file={path}"


def test_the_job_is_replaced_or_updated(without_providers):
    """By Terraform itself: another model or image updates the job, other steps or another generation replace it."""

    def plan(summaries: bool = False, **job: Any) -> str:
        base: Mapping[str, Any] = {"template": "gs://t", "image": "i", "flags": {"model": "a/b"}}
        return variables(without_providers, job={**base, **job}, summaries=summaries)

    terraform(without_providers, "apply", "-auto-approve", "-input=false", plan())
    for job, replaced in (
        ({"flags": {"model": "c/d"}, "image": "j"}, False),
        ({"flags": {"model": "a/b", "max_batch_latency_ms": "50"}}, True),
        ({"mode": "at_least_once"}, True),
        ({"generation": 2}, True),
        ({"summaries": True}, True),
    ):
        told = terraform(without_providers, "plan", "-input=false", "-no-color", plan(**job))
        assert ('terraform_data.job["inference"] must be replaced' in told or "will be replaced" in told) is replaced, (
            told
        )
    written = without_providers / "main.tf"
    written.write_text(re.sub(r"(graph_version = )\d+", r"\g<1>99", written.read_text()))
    told = terraform(without_providers, "plan", "-input=false", "-no-color", plan())
    assert "will be replaced" in told, "a release with other steps drains the job of the one before"


def test_an_update_carries_renamed_steps():
    """Terraform passes on the mapping of renamed steps that deploy.sh passes on, and drains when it stops."""
    body = resources()["google_dataflow_flex_template_job", "inference"]
    assert re.search(r"transform_name_mapping\s*= jsondecode\(file\(.*/flex/transform_name_mapping\.json", body)
    assert re.search(r'on_delete\s*= "drain"', body)
    assert "install-nvidia-driver:${each.value.driver}" in body and '"disk_size_gb=${each.value.disk_gb}"' in body
    assert '"streaming_mode_${each.value.mode}"' in body


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"github_repository": {"id": "o/n", "owner_id": "o"}}, "Give both as numbers"),
        ({"github_repository": {"id": 12, "owner_id": 34}}, None),
        ({"shared_subnetwork": "subnet"}, "Use projects/HOST"),
        ({"shared_subnetwork": "projects/h/regions/r/subnetworks/s", "private_network": True}, "leave private_network"),
        ({"shared_subnetwork": "projects/h/regions/r/subnetworks/s"}, None),
        ({"job": {"template": "t", "image": "i", "flags": {}, "mode": "twice"}}, "use exactly_once or at_least_once"),
        ({"name": "A"}, "lower-case letters"),
    ],
)
def test_variables_are_checked(without_providers, values, words):
    """By Terraform itself: a wrong value is told with its way out, and a right one passes."""
    told = terraform(
        without_providers,
        "plan",
        "-input=false",
        "-no-color",
        variables(without_providers, **values),
        expect=bool(words),
    )
    assert words is None or words in " ".join(re.sub(r"[│╷╵]", "", told).split())


@pytest.mark.slow
def test_checkov():
    """checkov, offline, finds nothing but what is skipped with its reason."""
    asked = [found("checkov"), "--directory", str(TERRAFORM), "--framework", "terraform", "--compact", "--quiet"]
    done = subprocess.run([*asked, "--skip-download"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout


# Monitoring


def alerts() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in (TEMPLATES / "monitoring").glob("alert_*.json")}


def test_alerts_and_dashboard():
    """Each alert says what to do; alerts and dashboard are about this job's own resources by name."""
    assert alerts().keys() == {
        f"alert_{name}"
        for name in (
            "dead_letter_rate",
            "error_rate",
            "no_output",
            "not_running",
            "oldest_unacked",
            "shift",
            "system_lag",
            "unexpected_errors",
            "worker_restarts",
        )
    }
    for name, alert in alerts().items():
        assert alert["documentation"]["content"] and alert["displayName"].startswith("${name}: "), name
        for condition in alert["conditions"]:
            text = json.dumps(condition)
            assert "${name}" in text and ("conditionThreshold" in condition) != ("PrometheusQuery" in text), name
    dashboard = json.loads((TEMPLATES / "monitoring" / "dashboard.json").read_text("utf-8"))
    tiles = dashboard["mosaicLayout"]["tiles"]
    places = {(tile["xPos"], tile["yPos"]) for tile in tiles}
    assert len(places) == len(tiles) and all(tile["xPos"] + tile["width"] <= 12 for tile in tiles)


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def test_alerts_fire_in_the_time_they_name():
    """No alert looks back and waits, taken together, for over fifteen minutes; the one that says so takes them."""
    waits: dict[str, int] = {}
    for name, alert in alerts().items():
        for condition in alert["conditions"]:
            query = condition.get("conditionPrometheusQueryLanguage")
            if query:
                looks = [
                    seconds(text)
                    for text in re.findall(r"\[(\d+[ms])\]|offset (\d+[ms])", query["query"])
                    for text in text
                    if text
                ]
                wait = max(looks, default=0) + seconds(query["duration"])
            else:
                threshold = condition["conditionThreshold"]
                wait = seconds(threshold["aggregations"][0]["alignmentPeriod"]) + seconds(threshold["duration"])
            waits[name] = max(wait, waits.get(name, 0))
    assert waits["alert_no_output"] == 900 and max(waits.values()) <= 900, waits


def test_prometheus_queries_are_balanced_and_named_as_cloud_monitoring_does():
    """Brackets close, and each metric is SERVICE_googleapis_com:PATH with the resource that it is of."""
    for name, alert in alerts().items():
        for condition in alert["conditions"]:
            query = condition.get("conditionPrometheusQueryLanguage", {}).get("query", "")
            for opened, closed in ("()", "[]", "{}"):
                assert query.count(opened) == query.count(closed), (name, query)
            for metric, labels in re.findall(r"(\w+:\w+)\{([^}]*)\}", query):
                kind = {"pubsub": "pubsub", "dataflow": "dataflow_job"}[metric.partition("_")[0]]
                assert "_googleapis_com:" in metric and f'monitored_resource="{kind}' in labels, (name, metric)


def test_metrics_are_of_use():
    """Stages' lag rather than the job's, inserts rather than uploads that are told hours later; log metrics exist."""
    texts = {path.stem: path.read_text("utf-8") for path in (TEMPLATES / "monitoring").glob("*.json")}
    everything = "".join(texts.values())
    assert "uploaded_row_count" not in everything and "undeliverable" not in everything
    assert "job/per_stage_system_lag" in texts["alert_system_lag"] and "job/system_lag" not in everything
    logged = {json.loads(text)["name"] for name, text in texts.items() if name.startswith("metric_")}
    assert set(re.findall(r"logging\.googleapis\.com/user/([^\\]+)\\", everything)) == logged
    assert 'metric_name=\\"unexpected_errors\\"' in texts["alert_unexpected_errors"]
    # What Beam's boot.go logs when a worker's process died, and when it gives up.
    assert (
        "restarting SDK process" in texts["metric_worker_restarts"]
        and "out of retries" in texts["metric_worker_restarts"]
    )


def test_terraform_reads_every_alert(without_providers):
    """By Terraform itself: its expressions take in each file of templates/monitoring, with the job's name put in."""
    terraform(without_providers, "apply", "-auto-approve", "-input=false", variables(without_providers, name="mine"))
    told = json.loads(terraform(without_providers, "output", "-json", "monitoring"))
    assert told["alerts"].keys() == alerts().keys() and "${name}" not in json.dumps(told)
    assert told["metrics"]["metric_worker_restarts"]["name"] == "mine-worker-restarts"


def test_the_documentation_that_alerts_point_to_exists():
    """Each heading of docs/troubleshooting.md that an alert names is there."""
    headings = set(re.findall(r"^#+ (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.M))
    for path in (TEMPLATES / "monitoring").glob("alert_*.json"):
        content = json.loads(path.read_text("utf-8"))["documentation"]["content"]
        for heading in re.findall(r'See "(.*?)" in docs/troubleshooting.md', content):
            assert heading in headings, (path.name, heading)
