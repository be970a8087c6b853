"""The doctor on a healthy set-up, and on broken ones: each is named, with its way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import fake_gcp
import pytest
import streams
from google.cloud import bigquery
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import Subscription
from streams import ROOT, fresh

from pipeline import clients, doctor, preflight
from pipeline.checks import model, resources
from pipeline.emulators import setup
from pipeline.emulators.setup import Resources
from pipeline.flags import UsageError
from pipeline.matchers import TableName
from pipeline.options import Settings

TABLE = TableName("my-project", "a", "b")


@dataclass
class Patient:
    """A healthy set-up for Dataflow: resources, flags, and the cloud around them."""

    resources: Resources
    cloud: fake_gcp.FakeCloud
    flags: dict[str, str]
    capsys: pytest.CaptureFixture

    def examine(self, **changed: str | None) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and findings with some flags changed, or left out where None."""
        flags = {name: value for name, value in {**self.flags, **changed}.items() if value is not None}
        return examine(self.capsys, *(f"--{name}={value}" for name, value in flags.items()))


def examine(capsys: pytest.CaptureFixture, *flags: str) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    code = doctor.main([*flags, "--json"])
    return code, json.loads(capsys.readouterr().out)


def wrong(findings: list[dict[str, Any]]) -> list[str]:
    return [f"{f['subject']} {f['found']}; {f['way_out']}" for f in findings if f["ok"] is False]


def assert_only(examined: tuple[int, list[dict[str, Any]]], *words: str) -> None:
    """One finding is wrong, and says all of ``words``."""
    code, findings = examined
    found = wrong(findings)
    assert code == 1 and len(found) == 1, found
    for word in words:
        assert word in found[0], found[0]


@pytest.fixture
def patient(servers, minilm, tmp_path, capsys, monkeypatch) -> Iterator[Patient]:
    with fake_gcp.start() as cloud, fake_gcp.with_iam(cloud, servers.pubsub.address) as pubsub:
        cloud.bigquery = f"http://{servers.bigquery.address}".replace("http://http://", "http://")
        cloud.regions["europe-west4"] = [
            {"metric": "CPUS", "limit": 24.0, "usage": 4.0},
            {"metric": "NVIDIA_L4_GPUS", "limit": 1.0, "usage": 1.0},
        ]
        ours = fresh("doctor")
        unordered = f"{ours.input_subscription}-unordered"
        setup.create_topic(ours.input_topic, unordered, ordered=False)
        ours = replace(ours, input_subscription=unordered)
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in ours.flags())
        flags |= {"model": minilm, "task": "feature-extraction", "runner": "DataflowRunner", "project": "my-project"}
        flags |= {"region": "europe-west4", "temp_location": "gs://my-bucket/temp"}
        flags |= {"sdk_container_image": "europe-west4-docker.pkg.dev/my-project/inference/cpu:1"}
        for name, value in cloud.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", cloud.url)
        clients.bigquery_client.cache_clear()
        streams.use_pubsub(pubsub)
        yield Patient(ours, cloud, flags, capsys)
        streams.use_pubsub(servers.pubsub.address)
        clients.bigquery_client.cache_clear()


def test_a_healthy_setup(patient):
    """Nothing is wrong: whose credentials, every resource and permission, the model's task and licence, quota left."""
    code, findings = patient.examine()
    assert (code, wrong(findings)) == (0, [])
    said = [f"{finding['subject']} {finding['found']}" for finding in findings]
    for words in (
        f"credentials belong to {fake_gcp.ACCOUNT}",
        "access token is valid",
        f"reads {patient.resources.input_topic}",
        "pubsub.subscriptions.consume allowed",
        "bigquery.tables.updateData allowed",
        "storage.objects.create and storage.objects.get allowed",
        "task feature-extraction, licence apache-2.0",
        "20 CPUS",
    ):
        assert any(words in line for line in said), (words, said)


def test_against_the_embedded_servers(servers, minilm, tmp_path):
    """With emulators alone, no cloud and no credentials, the command prints its table and exits with 0."""
    flags = [*fresh("doctor").flags(), f"--model={minilm}"]
    command = [sys.executable, "-m", "pipeline.doctor", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "– credentials: are not needed: both services are emulators"
    assert sum(line.startswith("✓ ") for line in lines) >= 5 and "✗" not in done.stdout
    assert lines[-1] == "ready to launch"


def test_wrong_flags(capsys):
    """A flag that is wrong by itself is a finding too, with exit code 2."""
    code, findings = examine(capsys, "--input_subscription=inbox")
    assert code == 2 and "not a subscription" in wrong(findings)[0]


def test_expired_credentials(patient):
    """Credentials whose token is refused are named, with the command that renews them."""
    patient.cloud.token_revoked = True
    _, findings = patient.examine()
    assert "credentials are missing or expired" in wrong(findings)[0]
    assert (
        "Invalid JWT Signature" in wrong(findings)[0] and "gcloud auth application-default login" in wrong(findings)[0]
    )


def test_a_token_without_the_scope(patient):
    """A valid token that was made for something else is told apart from an expired one."""
    patient.cloud.token_scopes = "https://www.googleapis.com/auth/userinfo.email"
    assert_only(patient.examine(), "access token lacks the scope https://www.googleapis.com/auth/cloud-platform")


@pytest.mark.parametrize(
    ("flag", "value", "way_out"),
    [
        (
            "output_topic",
            "projects/my-project/topics/nowhere",
            "emulators create --output_topic=projects/my-project/topics/nowhere",
        ),
        ("input_subscription", "projects/my-project/subscriptions/nowhere", "emulators create --input_sub"),
        ("audit_table", "my-project:nowhere.audit", "emulators create --audit_table=my-project:nowhere.audit"),
    ],
)
def test_a_resource_that_does_not_exist(patient, flag, value, way_out):
    """A topic, subscription or table that is not there comes with the command that makes it."""
    assert_only(patient.examine(**{flag: value}), f"--{flag}", "does not exist", way_out)


def test_crossed_topics(patient):
    """A subscription of the job's own output would feed it its own results."""
    topic = patient.resources.output_topic
    crossed = f"{patient.resources.output_subscription}-crossed"
    setup.create_topic(topic, crossed, ordered=False)
    assert_only(patient.examine(input_subscription=crossed), f"reads '{topic}'", "endless loop")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ack_deadline_seconds": 10}, ["10 s to acknowledge", "--ack-deadline=600"]),
        ({"enable_message_ordering": True}, ["keeps the order of ordering keys, which Dataflow does not"]),
        (
            {"dead_letter_policy": {"max_delivery_attempts": 100}},
            ["has a dead-letter policy", "which Dataflow does not support", "--clear-dead-letter-policy"],
        ),
    ],
)
def test_a_subscription_unfit_for_the_job(patient, settings, words):
    """A deadline, order or dead-letter policy that would harm the job is named, with the command that mends it."""
    ours = patient.resources
    if policy := settings.get("dead_letter_policy"):
        setup.create_topic(f"{ours.input_topic}-undeliverable")
        settings = {"dead_letter_policy": {"dead_letter_topic": f"{ours.input_topic}-undeliverable", **policy}}
    name = f"{ours.input_subscription}-unfit"
    request = {"name": name, "topic": ours.input_topic, "ack_deadline_seconds": 60, **settings}
    clients.pubsub(SubscriberClient).create_subscription(request=request)
    assert_only(patient.examine(input_subscription=name), "--input_subscription", *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"enable_exactly_once_delivery": True}, "--no-enable-exactly-once-delivery"),
        ({"push_config": {"push_endpoint": "https://example.com/push"}}, "pushes to 'https://example.com/push'"),
        ({"topic": "_deleted-topic_"}, "lost its topic"),
        ({"retry_policy": {"minimum_backoff": {"seconds": 10}}}, "retry policy, which Dataflow does not support"),
    ],
)
def test_settings_that_the_embedded_pubsub_lacks(settings, words):
    """Exactly-once delivery, push and a deleted topic, which only the real service knows, are named as well."""
    given = Settings("projects/p/subscriptions/s", "projects/p/topics/o", "projects/p/topics/d", local=False)
    found = Subscription({"name": given.input_subscription, "topic": "t", "ack_deadline_seconds": 60, **settings})
    ((what, way_out),) = resources.wrong_settings(found, given)
    assert words in f"{what}; {way_out}"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"dead_letter_topic": "projects/p/topics/more", "max_delivery_attempts": 5}, "gives up after 5 deliveries"),
        ({"dead_letter_topic": "projects/p/topics/o", "max_delivery_attempts": 50}, "which is the job's own"),
        ({"dead_letter_topic": "projects/p/topics/more", "max_delivery_attempts": 50}, None),
    ],
)
def test_a_dead_letter_policy_on_this_machine(policy, words):
    """Where the job itself acknowledges, a policy may stay; not with few attempts, nor to a topic of the job's own."""
    given = Settings("projects/p/subscriptions/s", "projects/p/topics/o", "projects/p/topics/d", local=True)
    name = given.input_subscription
    found = Subscription({"name": name, "topic": "t", "ack_deadline_seconds": 60, "dead_letter_policy": policy})
    told = [f"{what}; {way_out}" for what, way_out in resources.wrong_settings(found, given)]
    assert [words in line for line in told] == [True] * bool(words)


def test_preflight_refuses_what_dataflow_does_not_support(patient):
    """Each launch looks as well: a subscription with a dead-letter policy is refused before anything is staged."""
    ours = patient.resources
    setup.create_topic(f"{ours.input_topic}-undeliverable")
    policy = {"dead_letter_topic": f"{ours.input_topic}-undeliverable", "max_delivery_attempts": 100}
    name = f"{ours.input_subscription}-given-up"
    request = {"name": name, "topic": ours.input_topic, "ack_deadline_seconds": 60, "dead_letter_policy": policy}
    clients.pubsub(SubscriberClient).create_subscription(request=request)
    settings = Settings(name, ours.output_topic, ours.dead_letter_topic, local=False)
    with pytest.raises(UsageError, match="has a dead-letter policy .*--clear-dead-letter-policy"):
        preflight.check(settings)


def test_an_older_audit_table(patient, servers, monkeypatch):
    """Columns that an older version did not have are named, and the command given adds exactly those."""
    patient_table = patient.resources.audit_table
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", servers.bigquery.address)
    clients.bigquery_client.cache_clear()
    client = clients.bigquery_client("my-project")
    columns = [bigquery.SchemaField.from_api_repr(column) for column in resources.AUDIT_SCHEMA[:-2]]
    old = f"{patient_table.project}.{patient_table.dataset}.old"
    client.create_table(bigquery.Table(old, columns))
    flag = f"{patient_table.project}:{patient_table.dataset}.old"
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", patient.cloud.url)
    clients.bigquery_client.cache_clear()
    examined = patient.examine(audit_table=flag)
    assert_only(examined, "'worker' is missing", "ADD COLUMN worker STRING, ADD COLUMN pipeline_version STRING")
    assert f"bq --api={patient.cloud.url} query" in wrong(examined[1])[0]


def test_mending_command_of_other_tables():
    """A required column of ours is relaxed in place; one of another type needs a new table."""
    ours = [bigquery.SchemaField.from_api_repr(column) for column in resources.AUDIT_SCHEMA]
    strict = [bigquery.SchemaField("error", "STRING", "REQUIRED") if f.name == "error" else f for f in ours]
    other = [bigquery.SchemaField("message_id", "INTEGER") if f.name == "message_id" else f for f in ours]
    assert "ALTER COLUMN error DROP NOT NULL" in resources.mend_table_command(TABLE, strict)
    assert resources.mend_table_command(TABLE, other).startswith("use a new table: ")
    assert resources.schema_differences(ours) == []


def test_where_summaries_go_is_asked_too(patient):
    """Topic and table of the summaries are asked for what the job does there; a table still to be made says nothing."""
    table = f"my-project:{patient.resources.audit_table.dataset}.summary"
    more = {"summary_topic": f"{patient.resources.output_topic}-summary", "summary_table": table}
    setup.create_topic(more["summary_topic"])
    code, findings = patient.examine(**more)
    assert (code, wrong(findings)) == (0, [])
    patient.cloud.denied |= {"pubsub.topics.publish", "bigquery.tables.updateData"}
    code, findings = patient.examine(**more)
    told = wrong(findings)
    assert code == 1
    for name, value in more.items():
        assert any(f"--{name}" in line and value in line and "not allowed" in line for line in told), (name, told)


@pytest.mark.parametrize(
    ("denied", "words"),
    [
        ("pubsub.subscriptions.consume", ["--input_subscription", "--role=roles/pubsub.subscriber"]),
        ("bigquery.tables.updateData", ["--audit_table", "--role=roles/bigquery.dataEditor"]),
        ("storage.objects.create", ["gs://my-bucket", "roles/storage.objectUser"]),
    ],
)
def test_a_missing_role(patient, denied, words):
    """What these credentials may not do is named by permission, with the grant on that one resource."""
    patient.cloud.denied.add(denied)
    assert_only(patient.examine(), f"{denied} not allowed", "add-iam-policy-binding", *words)


@pytest.mark.parametrize(("folder", "allowed"), [("temp/", True), ("templates/", False)])
def test_rights_by_folder(patient, folder, allowed):
    """Rights limited to the folder staged to are found by use, with nothing left there; on another they are missing."""
    patient.cloud.folder = folder
    if allowed:
        code, findings = patient.examine()
        assert code == 0 and not wrong(findings) and not patient.cloud.objects
    else:
        assert_only(patient.examine(), "storage.objects.create and storage.objects.get not allowed", "gs://my-bucket")


def test_workers_run_as_somebody_else(patient):
    """Permissions of the launcher prove nothing about the workers' account: it says how to ask as that one."""
    code, findings = patient.examine(service_account_email="worker@my-project.iam.gserviceaccount.com")
    (note,) = (finding for finding in findings if finding["subject"] == "workers" and finding["ok"] is None)
    assert code == 0 and "--impersonate-service-account=worker@" in note["way_out"]


def test_a_bucket_that_is_missing_or_far_away(patient):
    """A staging bucket that does not exist, and one on another continent."""
    assert_only(patient.examine(temp_location="gs://nowhere/temp"), "does not exist", "gcloud storage buckets create")
    patient.cloud.buckets["my-bucket"]["location"] = "US-EAST1"
    assert_only(patient.examine(), "is in us-east1, the job in europe-west4")


def test_region_and_quota(patient):
    """A region that is none, and a GPU of which none is left."""
    nowhere = wrong(patient.examine(region="europe-west99")[1])
    assert any("--region 'europe-west99' does not exist" in line for line in nowhere)
    accelerated = patient.examine(dataflow_service_options="worker_accelerator=type:nvidia-l4;count:1")
    assert_only(accelerated, "has no quota left: NVIDIA_L4_GPUS", "console.cloud.google.com/iam-admin/quotas")


def test_workers_without_the_package(patient):
    """Without image and setup file every worker would fail at its first import, unless a template brings the image."""
    code, findings = patient.examine(sdk_container_image=None)
    (found,) = [each["found"] for each in findings if each["subject"] == "workers"]
    assert code == 0 and "without a template" in found and "--sdk_container_image is missing" in found


def test_a_model_that_cannot_be_used(patient, minilm, tmp_path):
    """A folder that is not there, and one without safe weights."""
    assert_only(patient.examine(model=str(tmp_path / "none")), "--model", "no such folder")
    shutil.copytree(minilm, tmp_path / "unsafe", ignore=shutil.ignore_patterns("*.safetensors"))
    assert_only(patient.examine(model=str(tmp_path / "unsafe")), "no safetensors weights")


def test_a_token_that_is_not_there(patient, monkeypatch):
    """The source of the Hugging Face token is named, and what is in it never is."""
    monkeypatch.delenv("HF_NOT_SET", raising=False)
    assert_only(patient.examine(hf_token_source="env:HF_NOT_SET"), "--hf_token_source", "the variable is not set")
    monkeypatch.setenv("HF_SET", "hf_not_to_be_shown")
    code, findings = patient.examine(hf_token_source="env:HF_SET")
    assert code == 0 and "hf_not_to_be_shown" not in json.dumps(findings)


@pytest.mark.parametrize(
    ("status", "ok", "words"), [(200, True, "belongs to ada, scope read"), (401, False, "is expired or wrong")]
)
def test_what_the_hub_says_of_a_token(status, ok, words, monkeypatch, httpserver_of):
    """The hub tells whose a token is and its scope, or that it has expired."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", httpserver_of(status))
    finding = model._token("--hf_token_source 'env:HF'", "hf_some_token")
    assert finding.ok is ok and words in finding.found, finding


@pytest.fixture
def httpserver_of():
    """Starts a hub that answers whoami with a status."""
    servers = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"name": "ada", "auth": {"accessToken": {"role": "read"}}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
