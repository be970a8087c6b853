"""The doctor on set-ups that are broken in twenty-odd ways: the cause is told once, with the way out that fits it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_gcp
import pytest
import streams
from fake_endpoint import FakeEndpoint, Fault
from google.cloud import bigquery
from google.pubsub_v1 import SubscriberClient
from streams import fresh

from pipeline import clients, doctor
from pipeline.emulators import setup
from pipeline.emulators.setup import Resources

PASSWORD = "correct-horse-battery"


@dataclass
class SetUp:
    """Flags that a doctor finds nothing wrong with, and what is around them, to be broken."""

    resources: Resources
    flags: dict[str, str | None]
    folder: Path
    minilm: str
    endpoint: FakeEndpoint
    monkeypatch: pytest.MonkeyPatch
    cloud: fake_gcp.FakeCloud | None = None
    nowhere: str = field(default_factory=lambda: f"127.0.0.1:{_closed_port()}")

    def environment(self, **values: str | None) -> None:
        for name, value in values.items():
            if value is None:
                self.monkeypatch.delenv(name, raising=False)
            else:
                self.monkeypatch.setenv(name, value)
        clients.pubsub.cache_clear()
        clients.bigquery_client.cache_clear()

    def on_google_cloud(self, **values: str | None) -> None:
        self.environment(PUBSUB_EMULATOR_HOST=None, BIGQUERY_EMULATOR_HOST=None, **values)

    def with_model(self, model: str) -> None:
        self.flags |= {"endpoint": None, "model": model}


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def whole(servers, minilm, tmp_path, monkeypatch) -> Iterator[SetUp]:
    ours = fresh("broken")
    flags: dict[str, str | None] = dict(flag.removeprefix("--").split("=", 1) for flag in ours.flags())
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with FakeEndpoint("inference").running() as endpoint:
        flags |= {"endpoint": endpoint.url, "task": "feature-extraction"}
        yield SetUp(ours, flags, tmp_path, minilm, endpoint, monkeypatch)
    monkeypatch.undo()
    streams.use_pubsub(servers.pubsub.address)
    clients.bigquery_client.cache_clear()


Break = Callable[[SetUp], object]
TOPIC = "projects/my-project/topics/nowhere"


def _unread_topic(it: SetUp) -> None:
    it.flags["output_topic"] = f"{it.resources.output_topic}-unread"
    setup.create_topic(f"{it.resources.output_topic}-unread")


def _subscription(it: SetUp, topic: str, **settings: Any) -> None:
    name = it.flags["input_subscription"] = f"{it.resources.input_subscription}-other"
    request = {"name": name, "topic": topic, "ack_deadline_seconds": 60, **settings}
    clients.pubsub(SubscriberClient).create_subscription(request=request)


def _table(it: SetUp, *fields: bigquery.SchemaField) -> None:
    table = it.resources.audit_table
    it.flags["audit_table"] = f"{table.project}:{table.dataset}.other"
    client = clients.bigquery_client(table.project)
    client.create_table(bigquery.Table(f"{table.project}.{table.dataset}.other", fields))


def _view(it: SetUp) -> None:
    """Over the audit table, and so with all its columns."""
    table = it.resources.audit_table
    view = bigquery.Table(f"{table.project}.{table.dataset}.view")
    view.view_query = f"SELECT * FROM `{table}`"
    clients.bigquery_client(table.project).create_table(view)
    it.flags["audit_table"] = f"{table.project}:{table.dataset}.view"


def _plain_table(it: SetUp) -> str:
    name = f"{it.resources.audit_table.project}.{it.resources.audit_table.dataset}.inputs"
    columns = [bigquery.SchemaField("data", "BYTES")]
    clients.bigquery_client("my-project").create_table(bigquery.Table(name, columns))
    return name


def _endpoint_that(it: SetUp, status: int, words: str) -> None:
    it.endpoint.script = lambda number, path, payload: Fault(status, {"error": words})


def _cut_off(it: SetUp) -> None:
    it.with_model(str(shutil.copytree(it.minilm, it.folder / "cut")))
    weights = it.folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _key_file(it: SetUp, text: str) -> None:
    (it.folder / "key.json").write_text(text)
    it.on_google_cloud(GOOGLE_APPLICATION_CREDENTIALS=str(it.folder / "key.json"))


#: What is broken: how, what must be said of it, and the way out.
BROKEN: dict[str, tuple[Break, str, str]] = {
    "no output topic": (
        lambda it: it.flags.update(output_topic=TOPIC),
        f"--output_topic '{TOPIC}' does not exist",
        f"beam-hf-inference emulators create --output_topic={TOPIC}",
    ),
    "no subscription": (
        lambda it: it.flags.update(input_subscription="projects/my-project/subscriptions/nowhere"),
        "--input_subscription 'projects/my-project/subscriptions/nowhere' does not exist",
        "emulators create --input_subscription=projects/my-project/subscriptions/nowhere",
    ),
    "no table": (
        lambda it: it.flags.update(audit_table=str(it.flags["audit_table"]).replace(".audit", ".nowhere")),
        "does not exist",
        "beam-hf-inference emulators create --audit_table=",
    ),
    "no dataset, of two tables": (
        lambda it: it.flags.update(audit_table="my-project:nowhere.a", summary_table="my-project:nowhere.s"),
        "--audit_table 'my-project.nowhere.a' is in dataset my-project:nowhere, which does not exist",
        "beam-hf-inference emulators create --audit_table=my-project:nowhere.a",
    ),
    "Pub/Sub is not there": (
        lambda it: it.environment(PUBSUB_EMULATOR_HOST=it.nowhere),
        "Pub/Sub at PUBSUB_EMULATOR_HOST=127.0.0.1:",
        "start `beam-hf-inference emulators`, or unset PUBSUB_EMULATOR_HOST",
    ),
    "BigQuery is not there": (
        lambda it: (
            it.environment(BIGQUERY_EMULATOR_HOST=f"http://{it.nowhere}"),
            it.flags.update(summary_table="my-project:x.y"),
        ),
        "BigQuery at BIGQUERY_EMULATOR_HOST=http://127.0.0.1:",
        "start `beam-hf-inference emulators`, or unset BIGQUERY_EMULATOR_HOST",
    ),
    "BigQuery is another server": (
        lambda it: it.environment(BIGQUERY_EMULATOR_HOST=it.endpoint.url),
        "BigQuery is not what answers at its address",
        "start `beam-hf-inference emulators`, or unset BIGQUERY_EMULATOR_HOST",
    ),
    "a folder in place of a key file": (
        lambda it: it.on_google_cloud(GOOGLE_APPLICATION_CREDENTIALS=str(it.folder)),
        "credentials are missing or expired",
        "to a key that is valid, or unset it",
    ),
    "certificates that are not there": (
        lambda it: (it.environment(SSL_CERT_FILE="/nowhere/ca.pem"), it.flags.update(endpoint="https://127.0.0.1:9")),
        "SSL_CERT_FILE '/nowhere/ca.pem': No such file or directory",
        "name a file of certificates (PEM), or unset it",
    ),
    "an endpoint that speaks no TLS": (
        lambda it: it.flags.update(endpoint=it.endpoint.url.replace("http:", "https:")),
        "it does not speak TLS; use its http:// URL",
        "mend the URL",
    ),
    "a loop of summaries": (
        lambda it: it.flags.update(summary_topic=it.resources.input_topic),
        "which the job writes: an endless loop",
        "use the subscription of another topic",
    ),
    "a view in place of the table": (_view, "is a VIEW, which takes no rows", "name the table itself"),
    "a subscription that writes to a table": (
        lambda it: _subscription(
            it, it.resources.input_topic, bigquery_config={"table": _plain_table(it), "write_metadata": False}
        ),
        "; the job pulls",
        "use a subscription that is pulled",
    ),
    "a key in place of its file": (
        lambda it: it.on_google_cloud(
            GOOGLE_APPLICATION_CREDENTIALS=json.dumps({"type": "service_account", "private_key": PASSWORD})
        ),
        "credentials are missing or expired",
        "to a file with the key: it has the key itself",
    ),
    "a loop": (
        lambda it: it.flags.update(input_subscription=it.resources.output_subscription),
        "which the job writes: an endless loop",
        "use the subscription of another topic",
    ),
    "leases that end at once": (
        lambda it: _subscription(it, it.resources.input_topic, ack_deadline_seconds=10),
        "gives 10 s to acknowledge",
        "--ack-deadline=600",
    ),
    "an older table": (
        lambda it: _table(it, *(bigquery.SchemaField.from_api_repr(c) for c in doctor.resources.AUDIT_SCHEMA[:-1])),
        "column 'pipeline_version' is missing",
        "ADD COLUMN pipeline_version STRING",
    ),
    "another table": (
        lambda it: _table(it, bigquery.SchemaField("message_id", "INTEGER")),
        "column 'message_id' is INTEGER NULLABLE, not STRING",
        "use a new table: ",
    ),
    "a format that the topic has no schema for": (
        lambda it: it.flags.update(input_format="avro"),
        "the subscription's topic has none",
        "use --input_format=auto",
    ),
    "an endpoint that is away": (
        lambda it: it.flags.update(endpoint=f"http://{it.nowhere}/"),
        "does not answer",
        "start it, or mend the URL",
    ),
    "an endpoint with a password in its URL": (
        lambda it: it.flags.update(endpoint=f"http://me:{PASSWORD}@{it.nowhere}/?key={PASSWORD}"),
        "--endpoint 'http://***@127.0.0.1:",
        "",
    ),
    "an endpoint that wants a token": (
        lambda it: _endpoint_that(it, 401, "no token"),
        "cannot be used",
        "token",
    ),
    "an endpoint of another path": (
        lambda it: _endpoint_that(it, 404, "no such path"),
        "cannot be used",
        "check the URL",
    ),
    "a model that is not there": (
        lambda it: it.with_model(str(it.folder / "nowhere")),
        "no such folder",
        "",
    ),
    "weights that nobody should unpickle": (
        lambda it: it.with_model(
            str(shutil.copytree(it.minilm, it.folder / "m", ignore=shutil.ignore_patterns("*.safetensors")))
        ),
        "no safetensors weights",
        "",
    ),
    "weights that are cut off": (_cut_off, "cannot be used", ""),
    "no token in the variable": (
        lambda it: it.flags.update(hf_token_source="env:HF_NOT_SET"),
        "gives no token",
        "not set",
    ),
    "no token file": (
        lambda it: it.flags.update(hf_token_source="file:/nowhere/token"),
        "gives no token",
        "/nowhere/token",
    ),
    "a key file that is not there": (
        lambda it: it.on_google_cloud(GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json"),
        "credentials are missing or expired",
        "point GOOGLE_APPLICATION_CREDENTIALS ('/nowhere/key.json') to a key that is valid, or unset it",
    ),
    "a key file that is none": (
        lambda it: _key_file(it, "not JSON"),
        "credentials are missing or expired",
        "to a key that is valid, or unset it",
    ),
    "a key file of an unknown kind": (
        lambda it: _key_file(it, '{"type": "password"}'),
        "credentials are missing or expired",
        "to a key that is valid, or unset it",
    ),
    "no credentials": (
        lambda it: it.on_google_cloud(
            GOOGLE_APPLICATION_CREDENTIALS=None, HOME=str(it.folder), CLOUDSDK_CONFIG="/nowhere"
        ),
        "credentials are missing or expired",
        "run: gcloud auth application-default login",
    ),
}


def examine(it: SetUp, capsys: pytest.CaptureFixture) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    given = (f"--{name}={value}" for name, value in it.flags.items() if value is not None)
    code = doctor.main([*given, "--json"])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and PASSWORD not in out + err
    return code, json.loads(out)


@pytest.mark.parametrize("name", BROKEN)
def test_a_cause_is_told_once_with_its_way_out(name, whole, capsys):
    """One ✗, which says what is broken and what to do; exit code 1."""
    breaks, said, way_out = BROKEN[name]
    breaks(whole)
    code, findings = examine(whole, capsys)
    wrong = [f"{f['subject']} {f['found']}; {f['way_out']}" for f in findings if f["ok"] is False]
    assert (code, len(wrong)) == (1, 1), wrong
    assert said in wrong[0] and way_out in wrong[0], wrong[0]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("PUBSUB_EMULATOR_HOST", "http://127.0.0.1:8085"),
        ("PUBSUB_EMULATOR_HOST", "localhost"),
        ("PUBSUB_EMULATOR_HOST", f"me:{PASSWORD}@127.0.0.1:8085"),
        ("BIGQUERY_EMULATOR_HOST", "127.0.0.1:9050"),
        ("BIGQUERY_EMULATOR_HOST", f"http://me:{PASSWORD}@127.0.0.1:9050"),
    ],
)
def test_an_address_that_is_none_is_wrong_usage(name, address, whole, capsys):
    """One line with how it is written, exit code 2; what it holds may be a password."""
    whole.environment(**{name: address})
    code, findings = examine(whole, capsys)
    (wrong,) = findings
    assert code == 2 and wrong["found"].startswith(f"{name}: is no address; set it to "), wrong


def test_a_health_port_that_is_taken_is_a_warning(whole, capsys):
    """A running job of the same flags may be what has it."""
    whole.flags["health_port"] = whole.endpoint.url.rpartition(":")[2]
    code, findings = examine(whole, capsys)
    (warning,) = [f for f in findings if f["subject"].startswith("--health_port")]
    assert code == 0 and warning["ok"] is None and "is taken" in warning["found"] and warning["way_out"]


def test_what_is_whole_is_ready(whole, capsys):
    """Nothing is wrong with the set-up that is broken above; what no look can tell is said."""
    code, findings = examine(whole, capsys)
    assert code == 0 and not [f for f in findings if f["ok"] is False]
    assert any("answers an example" in f["found"] for f in findings)
    assert findings[-1]["subject"] == "not looked at"


def test_a_topic_that_nobody_reads_is_a_warning(whole, capsys):
    """Results would be gone: said with the way out, and no reason not to launch."""
    _unread_topic(whole)
    code, findings = examine(whole, capsys)
    (warning,) = [f for f in findings if f["ok"] is None and f["way_out"]]
    assert code == 0 and "has no subscription" in warning["found"] and "emulators create" in warning["way_out"]


def test_what_a_cause_keeps_from_being_looked_at_is_named(whole, capsys):
    """With Pub/Sub away, its topics and subscription are named as not looked at, and BigQuery's table was."""
    whole.environment(PUBSUB_EMULATOR_HOST=whole.nowhere)
    _, findings = examine(whole, capsys)
    (left,) = [f for f in findings if f["subject"] == "not looked at, for the same cause"]
    for name in ("input_subscription", "output_topic", "dead_letter_topic"):
        assert f"--{name}" in left["found"]
    assert any(f["subject"].startswith("--audit_table") and f["ok"] for f in findings)


def test_two_causes_are_two_findings(whole, capsys):
    """A missing topic is told beside a missing table."""
    whole.flags |= {"output_topic": TOPIC, "audit_table": "my-project:nowhere.a"}
    code, findings = examine(whole, capsys)
    assert code == 1 and sum(f["ok"] is False for f in findings) == 2
