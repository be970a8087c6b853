"""Every command of the README and of docs/operations.md, run as it stands against the embedded servers.

``OUTCOMES`` says of each how; a command that nothing there fits fails the first test. The slow test runs a page from
top to bottom, with gcloud itself where it is installed.
"""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import bigquery
from google.pubsub_v1 import SubscriberClient, types
from pages import Command, commands, queries, shape
from streams import PATIENCE_S, ROOT, text_message

from pipeline import audit_sink, cli, clients, options, publish
from pipeline.emulators import setup, target

README, OPERATIONS = ROOT / "README.md", ROOT / "docs" / "operations.md"
PAGES = (README, OPERATIONS)
TUTORIAL = "Five commands"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"

#: In this process; a job, which is stopped once it has answered; a process of its own, which takes longer; gcloud.
HERE, JOB, ALONE, GCLOUD = "here", "job", "alone", "gcloud"
SERVERS = "the servers of this run are used; tests/jobs/test_commands.py starts them so"
#: By how a command begins, the first that fits: how it is run, or why it is not.
OUTCOMES = {
    "beam-hf-inference emulators publish": HERE,
    "beam-hf-inference emulators pull": HERE,
    "beam-hf-inference emulators": SERVERS,
    "beam-hf-inference run": JOB,
    "python -m pipeline.main": JOB,
    "beam-hf-inference doctor": ALONE,
    "beam-hf-inference bench": ALONE,
    "beam-hf-inference": HERE,
    "export ": SERVERS,
    "gcloud pubsub": GCLOUD,
    "make demo": "tests/jobs/test_demo.py runs what it runs",
    "make test": "it runs this",
    "python3 -m venv": "changes the machine: installing is what .ci/run begins with",
    "pip ": "changes the machine: installing is what .ci/run begins with",
    "install -D": "needs systemd; tests/packaging/test_units.py reads the unit",
    "systemctl": "needs systemd; tests/packaging/test_units.py reads the unit",
    "journalctl": "needs systemd",
    "docker": "needs a container engine; tests/packaging/test_units.py reads the file and its flags",
    "GOOGLE_CREDENTIALS=": "needs a container engine",
    "rm -rf": "deletes the user's caches",
    "terraform": "needs Google Cloud; tests/dataflow/test_infrastructure.py runs Terraform as far as it goes without",
}
EVERY = [(page, command) for page in PAGES for command in commands(page)]


def outcome(command: Command) -> str:
    return next((how for start, how in OUTCOMES.items() if command.text.startswith(start)), "")


def flags_of(command: Command) -> list[str]:
    return [word for word in shlex.split(command.text) if word.startswith("--")]


def some(*hows: str) -> list[Command]:
    """The commands of all pages that are run so, each once; the tutorial's have a test of their own."""
    found = {c.text: c for _, c in EVERY if outcome(c) in hows and c.section != TUTORIAL}
    return list(found.values())


def test_every_command_is_run_or_says_why_not():
    """No command of these pages is without an outcome, and no outcome without a command."""
    assert [str(command) for _, command in EVERY if not outcome(command)] == []
    unused = [start for start in OUTCOMES if not any(command.text.startswith(start) for _, command in EVERY)]
    assert unused == []
    assert len(some(HERE)) >= 5 and len(some(JOB)) >= 3


def test_what_is_exported_is_where_the_servers_are():
    """The tutorial's first line names them as they name themselves."""
    (exported,) = [command.text for _, command in EVERY if command.text.startswith("export ")]
    assert exported == "export " + " ".join(f"{name}={address}" for name, address in target._USUAL.items())


@dataclass
class World:
    """The names of the pages on the servers of this run, and a folder to be in."""

    resources: setup.Resources
    folder: Path

    def here(self, command: Command) -> int:
        """Runs it in this process; returns its exit code."""
        return cli.main(shlex.split(command.text.removesuffix(" &"))[1:])

    @contextmanager
    def running(self, command: Command) -> Iterator[subprocess.Popen[bytes]]:
        """The job that it starts, once it runs; stopped as Ctrl-C would."""
        log = self.folder / f"{uuid.uuid4().hex}.log"
        argv = [sys.executable, "-m", "pipeline.main", *flags_of(command)]
        with log.open("wb") as output:
            job = subprocess.Popen(argv, cwd=self.folder, stdout=output, stderr=output)
        try:
            while "running; Ctrl-C" not in log.read_text("utf-8"):
                assert job.poll() is None, log.read_text("utf-8")
                time.sleep(0.1)
            yield job
            job.send_signal(signal.SIGINT)
            assert job.wait(300) == 0, log.read_text("utf-8")
        finally:
            job.kill()
            job.wait()

    def rows(self, where: str = "TRUE") -> list[dict]:
        sql = f"SELECT * FROM `{self.resources.audit_table}` WHERE {where}"
        return [dict(row) for row in clients.bigquery_client("my-project").query(sql).result()]

    def until(self, where: str) -> None:
        """Waits for a row."""
        deadline = time.monotonic() + 5 * PATIENCE_S
        while not self.rows(where):
            assert time.monotonic() < deadline, where
            time.sleep(0.2)


@pytest.fixture(scope="module")
def world(servers, minilm, tmp_path_factory) -> Iterator[World]:
    """What `beam-hf-inference emulators` makes, the second record, a hub cache with the model, and two older rows."""
    folder = tmp_path_factory.mktemp("pages")
    resources = setup.Resources.named("my-project")
    setup.create(resources)
    _second_record(resources)
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=2)
    row = {"message_id": "7", "processed_time": old.isoformat(), "status": "ok", "input_bytes": 1}
    rows = [row | {"attributes": '{"customer": "4711", "user_id": "42"}'}, row | {"attributes": '{"user_id": "43"}'}]
    assert not audit_sink.BigQuerySink(resources.audit_table).insert(rows, [uuid.uuid4().hex for _ in rows])
    cache = folder / "hub" / f"models--{MODEL.replace('/', '--')}"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("c" * 40)
    (cache / "snapshots" / ("c" * 40)).symlink_to(minilm)
    (folder / "messages.jsonl").write_text('{"inputs": "Where is my parcel?"}\n' * 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        yield World(resources, folder)


def _second_record(resources: setup.Resources) -> None:
    kinds = {
        "subscription_name": "STRING",
        "message_id": "STRING",
        "publish_time": "TIMESTAMP",
        "data": "BYTES",
        "attributes": "JSON",
    }
    table = f"my-project.{resources.audit_table.dataset}.inputs"
    columns = [bigquery.SchemaField(name, kind) for name, kind in kinds.items()]
    clients.bigquery_client("my-project").create_table(bigquery.Table(table, columns))
    config = types.BigQueryConfig(table=table, write_metadata=True)
    request = types.Subscription(
        name=f"{resources.input_subscription}-record", topic=resources.input_topic, bigquery_config=config
    )
    clients.pubsub(SubscriberClient).create_subscription(request=request)
    publish.publish_all(resources.input_topic, [text_message("recorded")])
    deadline = time.monotonic() + PATIENCE_S
    while not list(clients.bigquery_client("my-project").query(f"SELECT 1 FROM `{table}`").result()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_the_five_commands(world, capsys):
    """As they are pasted: each ends well, and prints what the README shows below it."""
    start, *rest = [
        command for command in commands(README) if command.section == TUTORIAL and outcome(command) != "export "
    ]
    jobs = [command for command in rest if outcome(command) == JOB]
    assert len(jobs) == 1
    with world.running(jobs[0]):
        for command in rest:
            if outcome(command) != HERE:
                continue
            capsys.readouterr()
            assert world.here(command) == 0, command
            printed = {shape(line) for line in capsys.readouterr().out.splitlines()}
            assert {shape(line) for line in command.output.splitlines()} <= printed, (command, printed)


@pytest.mark.parametrize("command", some(HERE), ids=str)
def test_a_command_of_the_pages_ends_well(world, command, capsys):
    """With exit code 0, and with what the page shows."""
    assert world.here(command) == 0, command
    printed = {shape(line) for line in capsys.readouterr().out.splitlines()}
    assert {shape(line) for line in command.output.splitlines()} <= printed, printed


@pytest.mark.parametrize("query", queries(OPERATIONS) + queries(README))
def test_a_query_of_the_pages_runs(world, query):
    """On a table with a row in it, it has an answer."""
    table = f"my-project.{world.resources.audit_table.dataset}"
    assert list(clients.bigquery_client("my-project").query(query.replace("my-project.inference", table)).result())


@pytest.mark.parametrize("command", some(JOB), ids=str)
def test_the_flags_of_every_job_are_taken(command):
    """By the job itself."""
    settings, _ = options.parse(flags_of(command))
    assert settings.model == MODEL


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_from_top_to_bottom(page, world, capsys):
    """Every job answers a message, every other command ends with 0; each outcome is printed."""
    told = []
    for command in commands(page):
        how = outcome(command)
        if how == JOB:
            _answer(world, command)
        elif how == HERE and command.section != TUTORIAL:
            assert world.here(command) == 0, command
        elif how == ALONE or (how == GCLOUD and shutil.which("gcloud")):
            _alone(world, command, gcloud=how == GCLOUD)
        else:
            told.append(f"not run   {command.text[:70]}: {how}")
            continue
        told.append(f"ok        {command.text[:70]}")
    with capsys.disabled():
        print("\n" + "\n".join(told))


def _answer(world: World, command: Command) -> None:
    settings, _ = options.parse(flags_of(command))
    name = settings.input_subscription
    # What gcloud's commands make, where there is no gcloud.
    setup.create_topic(settings.output_topic)
    setup.create_topic(world.resources.input_topic, name)
    with world.running(command):
        (sent,) = publish.publish_all(world.resources.input_topic, [text_message("a")])
        world.until(f"message_id = '{sent}' AND job = '{name.rpartition('/')[2]}' AND status = 'ok'")


def _alone(world: World, command: Command, gcloud: bool) -> None:
    text = command.text.replace("beam-hf-inference", f"{sys.executable} -m pipeline.cli")
    environment = dict(os.environ)
    if gcloud:
        (world.folder / "token").write_text("none")
        environment |= {
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(world.folder / "token"),
            "CLOUDSDK_CORE_PROJECT": "my-project",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{os.environ['PUBSUB_EMULATOR_HOST']}/",
            "CLOUDSDK_CONFIG": str(world.folder / "gcloud"),
        }
    done = subprocess.run(
        ["bash", "-c", text], cwd=world.folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, (command.text, done.stdout, done.stderr)
