"""The job as it would run on Dataflow: submitted for real to a local fake, looked into, and run on worker processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timezone
from pathlib import Path

import fake_gcp
import job_messages
import pytest
import tiny_models
from apache_beam.coders.coders import deserialize_coder
from apache_beam.io.gcp.pubsub import PubsubMessage as BeamMessage
from apache_beam.options.pipeline_options import DebugOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from google.api_core.datetime_helpers import DatetimeWithNanoseconds
from google.pubsub_v1.types import PubsubMessage
from restarts import KILLERS
from streams import CASES, ROOT, audit_rows, fresh, waited

from pipeline import clients, dataflow
from pipeline.emulators import setup
from pipeline.emulators.setup import Resources
from pipeline.flags import UsageError
from pipeline.io import incoming
from pipeline.matchers import TableName
from pipeline.options import parse
from transforms.models.gather import KEYS

IMAGE = "europe-west4-docker.pkg.dev/my-project/inference/cpu:0.1.0"
MODELS = "my-bucket/models.yaml"
JOB_OBJECT = "my-bucket/staging/template_launches/1/job_object"


@dataclass
class Staged:
    """A submitted job: the proto that workers run, the job as the service gets it, and all that was uploaded."""

    resources: Resources
    pipeline: beam_runner_api_pb2.Pipeline
    job: dict
    objects: dict[str, bytes]
    log: str

    def leaves(self) -> dict[str, beam_runner_api_pb2.PTransform]:
        transforms = self.pipeline.components.transforms.values()
        return {transform.unique_name: transform for transform in transforms if not transform.subtransforms}


def summaries(staged: Staged) -> TableName:
    """Where a job staged with ``sums_up`` puts its windows."""
    return TableName("my-project", staged.resources.audit_table.dataset, "summary")


def submit(
    cloud: fake_gcp.FakeCloud, folder: Path, *flags: str, sums_up: bool = False, models: bytes | None = None
) -> Staged:
    """Runs the real main the way the template's launcher does: in its folder, with the flags that it passes.

    ``models`` is a models file, put at ``MODELS`` for the job.
    """
    resources = fresh("dataflow")
    resources = replace(resources, input_subscription=f"{resources.input_subscription}-unordered")
    setup.create_topic(resources.input_topic, resources.input_subscription, ordered=False)
    command = [sys.executable, "-m", "pipeline.main", *resources.flags(), "--engine=torch"]
    command.append(f"--models=gs://{MODELS}" if models else "--task=feature-extraction")
    command += ["--runner=DataflowRunner", "--project=my-project", "--region=europe-west4", "--job_name=inference"]
    command += ["--temp_location=gs://my-bucket/temp", "--staging_location=gs://my-bucket/staging"]
    if sums_up:
        command.append(f"--summary_table=my-project:{resources.audit_table.dataset}.summary")
    command += [f"--sdk_container_image={IMAGE}", "--service_account_email=worker@my-project.iam.gserviceaccount.com"]
    environment = {**os.environ, **cloud.environment(folder), "PYTHONPATH": str(folder), "HF_TOKEN": "hf_secret"}
    cloud.objects.clear()
    if models:
        cloud.objects[MODELS] = models
    done = subprocess.run(
        [*command, *flags], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (pipeline,) = (data for name, data in cloud.objects.items() if name.endswith("/pipeline.pb"))
    job = json.loads(cloud.objects[JOB_OBJECT]) if JOB_OBJECT in cloud.objects else cloud.jobs[-1]
    proto = beam_runner_api_pb2.Pipeline.FromString(pipeline)
    return Staged(resources, proto, job, dict(cloud.objects), done.stderr)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image holds of this checkout, and nothing else of it."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("pipeline", "transforms"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def cloud() -> Iterator[fake_gcp.FakeCloud]:
    with fake_gcp.start() as started:
        yield started


@pytest.fixture(scope="module")
def template(servers, cloud, launcher, minilm) -> Staged:
    """The job as a template's launcher stages it: batches across bundles, summaries, and its code as a package."""
    return submit(
        cloud,
        launcher,
        f"--model={minilm}",
        "--max_batch_latency_ms=50",
        "--setup_file=./setup.py",
        f"--template_location=gs://{JOB_OBJECT}",
        '--labels={"goog-dataflow-provided-template-type": "flex"}',
        "--a_flag_of_a_later_launcher=1",
        sums_up=True,
    )


@pytest.fixture(scope="module")
def update(servers, cloud, launcher, minilm) -> Staged:
    """An update of a running job, sent to the Dataflow API, in at-least-once mode."""
    cloud.jobs.append({"id": "job-before", "name": "inference", "currentState": "JOB_STATE_RUNNING"})
    return submit(
        cloud,
        launcher,
        f"--model={minilm}",
        f"--dataflow_endpoint={cloud.url}",
        "--update",
        '--transform_name_mapping={"Old": "Decode"}',
        "--dataflow_service_options=streaming_mode_at_least_once",
        "--hf_token_source=env:HF_TOKEN",
    )


@pytest.fixture(scope="module")
def gpu(servers, cloud, launcher, minilm) -> Staged:
    """A job on GPU workers."""
    accelerator = "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    return submit(cloud, launcher, f"--model={minilm}", f"--dataflow_endpoint={cloud.url}", accelerator)


def test_endpoints_are_native(template):
    """One native read of the subscription, two native writes to the topics: Dataflow exchanges no other steps."""
    read, write = beam_runner_api_pb2.PubSubReadPayload, beam_runner_api_pb2.PubSubWritePayload
    found: dict[str, list] = {"beam:transform:pubsub_read:v1": [], "beam:transform:pubsub_write:v1": []}
    for leaf in template.leaves().values():
        found.get(leaf.spec.urn, []).append(leaf.spec.payload)
    (reads, writes) = found.values()
    assert [read.FromString(payload).subscription for payload in reads] == [template.resources.input_subscription]
    topics = {template.resources.output_topic, template.resources.dead_letter_topic}
    assert len(writes) == 2 and {write.FromString(payload).topic for payload in writes} == topics
    assert template.job["type"] == "JOB_TYPE_STREAMING"


@pytest.mark.parametrize("name", ["template", "update"])
def test_one_environment_of_our_image(name, request):
    """All steps share one environment, and a worker VM starts one container of the image that was asked for."""
    staged: Staged = request.getfixturevalue(name)
    (environment,) = staged.pipeline.components.environments.values()
    assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
    (pool,) = staged.job["environment"]["workerPools"]
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]


def test_nothing_pickled_and_nothing_large_is_staged(template, update):
    """No main session, no secret, and a graph far below Dataflow's limit; without a setup file nothing to install."""
    for staged in (template, update):
        assert not [name for name in staged.objects if "pickled_main_session" in name]
        # https://cloud.google.com/dataflow/quotas#limits: 10 MB for a job creation request
        assert len(staged.pipeline.SerializeToString()) + len(json.dumps(staged.job)) < 1_000_000
    names = {name.rpartition("/")[2] for name in update.objects}
    assert names == {"pipeline.pb", "submission_environment_dependencies.txt"}


def test_no_secret_is_staged(template, update, cloud):
    """Neither the access token, the launcher's key, nor the Hugging Face token is in anything uploaded or logged."""
    for staged in (template, update):
        everything = [*staged.objects.values(), json.dumps(staged.job).encode(), staged.log.encode()]
        for secret in [*cloud.secrets(), b"hf_secret"]:
            assert not [data for data in everything if secret in data]
    assert update.job["environment"]["sdkPipelineOptions"]["options"]["hf_token_source"] == "env:HF_TOKEN"


def test_stateful_steps_have_deterministic_keys(template):
    """What Dataflow shuffles by key has a key-value coder whose key coder is Beam's deterministic one."""
    components = template.pipeline.components
    context = PipelineContext(components)
    stateful = 0
    for leaf in template.leaves().values():
        payload = beam_runner_api_pb2.ParDoPayload.FromString(leaf.spec.payload) if "pardo" in leaf.spec.urn else None
        if payload is not None and payload.state_specs:
            stateful += 1
            (source,) = leaf.inputs.values()
            coder = components.coders[components.pcollections[source].coder_id]
            assert coder.spec.urn == "beam:coder:kv:v1"
            assert context.coders.get_by_id(coder.component_coder_ids[0]).is_deterministic()
    assert stateful == 2, "batches across bundles are gathered in one stateful step, and windows compared in one"
    windows = {coder.spec.urn for name, coder in components.coders.items() if "Window" in name}
    assert windows == {"beam:coder:global_window:v1", "beam:coder:interval_window:v1"}


def coders_of(staged: Staged, step: str) -> list[str]:
    """The coder that the input of ``step`` is written with, and those that it consists of, by their names."""
    components = staged.pipeline.components
    (source,) = staged.leaves()[step].inputs.values()
    names, waiting = [], [components.pcollections[source].coder_id]
    while waiting:
        coder = components.coders[waiting.pop(0)]
        own = coder.spec.urn == python_urns.PICKLED_CODER
        names.append(type(deserialize_coder(coder.spec.payload)).__name__ if own else coder.spec.urn)
        waiting += coder.component_coder_ids
    return names


def test_what_travels_has_a_versioned_coder(template, update):
    """What is spread is written by our own coder; the gathering step has Beam's, as an update must find it."""
    for staged in (template, update):
        for step in ("Spread", "SpreadFailures"):
            assert "RecordCoder" in coders_of(staged, f"{step}/ReshufflePerKey/GroupByKey")
    # Tallies hold sketches, which pickle does not know.
    for step in ("Combine/GroupByKey", "Combine/Combine/ParDo(CombineValuesDoFn)", "ToRow"):
        assert "TallyCoder" in coders_of(template, f"Summarise/{step}")
    # Any other coder here, and Dataflow refuses to update a job of 0.1.0; its records have a version of their own.
    gathering = "Predict/RunInference/BatchElements/ParDo(_StatefulBatchElementsDoFn)"
    assert coders_of(template, gathering) == [
        "beam:coder:kv:v1",
        "DeterministicFastPrimitivesCoderV2",
        "FastPrimitivesCoder",
    ]


def test_update_replaces_the_running_job(update):
    """--update names the job it replaces and carries the mapping of renamed steps."""
    assert update.job["replaceJobId"] == "job-before"
    assert update.job["transformNameMapping"] == {"Old": "Decode"}


def test_gpu_workers_run_one_process(gpu, update, template):
    """Beside an accelerator one process with few threads runs; without, a process a core and Dataflow's own threads."""
    environment = gpu.job["environment"]
    assert "no_use_multiple_sdk_containers" in environment["experiments"]
    assert environment["workerPools"][0]["numThreadsPerWorker"] == 2 * KEYS
    assert "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver" in environment["serviceOptions"]
    assert "streaming_mode_at_least_once" in update.job["environment"]["serviceOptions"]
    assert "use_multiple_sdk_containers" in template.job["environment"]["experiments"]
    assert "numThreadsPerWorker" not in template.job["environment"]["workerPools"][0]


GPU = "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"
IMAGE_FLAG = f"--sdk_container_image={IMAGE}"
REQUIRED = (
    "--input_subscription=projects/my-project/subscriptions/inbox",
    "--output_topic=projects/my-project/topics/results",
    "--dead_letter_topic=projects/my-project/topics/dead",
    "--model=a/b",
)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--sdk_container_image is missing: workers would not have this package"),
        (
            ["--setup_file=./setup.py", "--id_attribute=order", "--experiments=streaming_mode_at_least_once"],
            "--id_attribute 'order': nothing is deduplicated in at-least-once mode",
        ),
        (["--setup_file=./setup.py"], "--setup_file './setup.py': it installs no torch on the workers"),
        ([GPU, IMAGE_FLAG, "--device=cpu"], "worker_accelerator=type:nvidia-l4;count:1': --device=cpu makes no use of"),
    ],
)
def test_what_cannot_run_there_is_refused(flags, words):
    """Workers without the package, and deduplication in the mode that has none, are told before anything is staged."""
    with pytest.raises(UsageError) as error:
        dataflow.prepare(*parse([*REQUIRED, "--runner=DataflowRunner", *flags]))
    assert words in str(error.value)
    dataflow.prepare(*parse([*REQUIRED, *flags]))


@pytest.mark.parametrize("more", ["--requirements_file=requirements.txt", f"--sdk_container_image={IMAGE}"])
def test_a_setup_file_goes_with_what_brings_torch(more):
    """A source package runs a model where something beside it brings torch."""
    dataflow.prepare(*parse([*REQUIRED, "--runner=DataflowRunner", "--setup_file=./setup.py", more]))


def test_a_setup_file_is_enough_for_an_endpoint():
    """A job that asks an endpoint has no use for torch on its workers."""
    flags = [each for each in REQUIRED if not each.startswith("--model")]
    flags += ["--endpoint=http://127.0.0.1:1", "--task=fill-mask", "--runner=DataflowRunner", "--setup_file=./setup.py"]
    dataflow.prepare(*parse(flags))


@pytest.mark.parametrize(
    "asked",
    [
        GPU,
        "--experiments=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:5xx",
        "--resource_hints=accelerator=type:nvidia-l4;count:1;install-nvidia-driver",
        None,
    ],
)
def test_a_job_with_an_accelerator_runs_on_it(asked):
    """However an accelerator is asked for, "auto" is CUDA and nothing else; without one it stays as it is."""
    flags = [*REQUIRED, "--runner=DataflowRunner", IMAGE_FLAG, *([asked] if asked else [])]
    assert dataflow.prepare(*parse(flags)).device == ("cuda" if asked else "auto")


@pytest.mark.slow
def test_workers_without_their_accelerator_fail_at_start(gpu, clean, tmp_path):
    """The staged job of GPUs, on a machine with none: its first step fails with why, before a message is answered."""
    assert run_staged(gpu, clean, tmp_path, ['{"inputs": "Where is my parcel?"}']) != 0
    assert "ModelLoadError: `device=cuda`: no CUDA device is present (torch" in (tmp_path / "log").read_text()
    assert not (tmp_path / "loads").exists() and not audit_rows(gpu.resources)


def test_what_the_user_set_for_gpus_stays():
    """Threads and processes that were asked for are not overridden."""
    flags = ["--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1", f"--sdk_container_image={IMAGE}"]
    own = ["--number_of_worker_harness_threads=12", "--experiments=use_multiple_sdk_containers"]
    settings, options = parse([*REQUIRED, "--runner=DataflowRunner", *flags, *own])
    dataflow.prepare(settings, options)
    debug = options.view_as(DebugOptions)
    assert debug.number_of_worker_harness_threads == 12
    assert debug.experiments == ["use_multiple_sdk_containers"]


def test_an_event_time_beyond_the_calendar_is_the_publish_time():
    """A timestamp attribute from the year 200,000, which Dataflow accepts, must not wedge the job at the audit row."""
    published = DatetimeWithNanoseconds(2026, 1, 1, tzinfo=timezone.utc)
    message = BeamMessage(b"{}", {}, "1", publish_time=published)
    assert incoming(message, MAX_TIMESTAMP).event_time == published.timestamp()
    assert incoming(message, Timestamp(1.5)).event_time == 1.5


def golden() -> dict[str, set[str]]:
    """Step names by the heading they are under."""
    names: dict[str, set[str]] = {}
    for line in (CASES / "step_names.txt").read_text("utf-8").splitlines():
        if line.startswith("# "):
            names[line[2:]] = set()
        elif line:
            names[list(names)[-1]].add(line)
    return names


def test_step_names_are_stable(template, update):
    """A step that was renamed has its entry in transform_name_mapping.json: without one, --update loses its state."""
    mapping = json.loads((ROOT / "templates/flex/transform_name_mapping.json").read_text("utf-8"))
    for heading, staged in (("with --max_batch_latency_ms", template), ("without", update)):
        now, before = set(staged.leaves()), golden()[heading]
        lost = {name for name in before - now if mapping.get(name) not in now}
        assert not lost, f"{heading}: map these in transform_name_mapping.json to their new names: {sorted(lost)}"
        new = now - before - set(mapping.values())
        assert not new, f"{heading}: add these to {CASES}/step_names.txt: {sorted(new)}"


@pytest.fixture(scope="module")
def clean(template, tmp_path_factory) -> Path:
    """A worker's Python: the installed dependencies and the staged package, and nothing of this checkout."""
    folder = tmp_path_factory.mktemp("worker")
    (package,) = (data for name, data in template.objects.items() if name.endswith(".tar.gz"))
    archive = folder / "workflow.tar.gz"
    archive.write_bytes(package)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    # A plain path line, which does not follow the .pth files there: an editable install of this checkout stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    # As a worker's boot does it, but for the network.
    install = [*pip, "--no-deps", "--no-build-isolation", str(archive)]
    subprocess.run(install, check=True, timeout=120, env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")})
    # Debian's Python has a sitecustomize of its own, which would be taken in place of one here.
    (site / "loads.pth").write_text("import loads")
    (site / "loads.py").write_text(
        "import logging, os\n"
        "from pathlib import Path\n"
        "class Loads(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if record.msg.startswith('loaded '):\n"
        "            with Path(os.environ['LOADS']).open('a') as file:\n"
        "                file.write(f'{os.getpid()}\\n')\n"
        "logger = logging.getLogger('transforms.models.handler')\n"
        "logger.addHandler(Loads())\n"
        "logger.setLevel(logging.INFO)\n"
    )
    return python


def test_the_staged_package_holds_the_code_and_no_more(template, launcher):
    """The source package has every module of pipeline and transforms, and neither scaffolding, tests nor templates."""
    (package,) = (data for name, data in template.objects.items() if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = (launcher / "pipeline", launcher / "transforms")
    modules = {path.relative_to(launcher).as_posix() for top in tops for path in top.rglob("*.py")}
    scaffolding = ("pipeline/emulators", "pipeline/demo")
    assert {name for name in modules if not name.startswith(scaffolding)} <= names
    assert not [name for name in names if name.startswith(("tests", "templates", "docs", *scaffolding))]


@pytest.mark.parametrize("name", [pytest.param("template", marks=pytest.mark.slow), "update"])
def test_staged_transforms_run_on_two_worker_processes(name, clean, tmp_path, request):
    """The staged graph, deserialised in two worker processes without this checkout, answers all of 200 messages.

    Results and dead letters are complete, each once and audited once; both processes have work, and use one model.
    """
    staged: Staged = request.getfixturevalue(name)
    bodies = [json.dumps({"inputs": f"Where is parcel {n}?"} if n % 10 else {"inputs": n}) for n in range(200)]
    assert run_staged(staged, clean, tmp_path, bodies) == 0, (tmp_path / "log").read_text()[-3000:]

    results, letters = kept(tmp_path / "out" / "-output"), kept(tmp_path / "out" / "-dead-letter")
    expected = Counter(str(n) for n in range(200))
    found = [message.attributes["message_id"] for message in results.messages]
    failed = [message.attributes["dead_letter_message_id"] for message in letters.messages]
    assert Counter(found + failed) == expected
    assert set(failed) == {str(n) for n in range(0, 200, 10)}
    assert all(len(json.loads(message.data)["prediction"]) == 384 for message in results.messages)
    assert Counter(row["message_id"] for row in audit_rows(staged.resources)) == expected
    if name == "template":
        client = clients.bigquery_client("my-project")
        (window,) = client.query(f"SELECT * FROM `{summaries(staged)}`").result()
        assert (window["messages"], window["ok"], window["pane"]) == (200, 180, "on_time")
        assert window["stages"] == {"predict": 20} and window["tokens"] > 180
    assert len(results.processes | letters.processes) == 2
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == 1, f"the processes of one machine share one model, but it was loaded by {loads}"
    assert set(loads) <= results.processes | letters.processes
    if name == "update":
        # Batches across bundles may all form in one process; batches within bundles form where the bundles are.
        assert len(results.processes) == 2


def run_staged(staged: Staged, python: Path, folder: Path, bodies: list[str]) -> int:
    """Runs the staged job over ``bodies`` on two worker processes; the exit code. What it says is in ``folder``/log."""
    messages = [
        PubsubMessage.serialize(PubsubMessage(data=body.encode(), message_id=str(n), attributes={"n": str(n)}))
        for n, body in enumerate(bodies)
    ]
    return run_on_workers(staged, messages, python, folder)


def run_on_workers(
    staged: Staged, messages: list[bytes], python: Path, folder: Path, out: str = "out", **more: str
) -> int:
    """The same, of ``messages`` as the native source gives them."""
    (folder / "messages").write_bytes(pickle.dumps(messages))
    (folder / "pipeline.pb").write_bytes(staged.pipeline.SerializeToString())
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "LOADS": str(folder / "loads"),
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": "hf_secret",
        **more,
    }
    script = shutil.copy(ROOT / "tests" / "support" / "run_staged.py", folder)
    arguments = [folder / "pipeline.pb", folder / "messages", folder / out, python]
    with (folder / "log").open("ab") as log:
        done = subprocess.run(
            [python, script, *arguments], cwd=folder, env=environment, stdout=log, stderr=log, timeout=1200, check=False
        )
    return done.returncode


@pytest.mark.slow
def test_two_processes_of_staged_code_swap_together(servers, cloud, launcher, clean, tmp_path):
    """The models file in the bucket changes while both have work: one model answers, then the other; nothing is lost.

    Every row has the version of its model's file, and one process loads each model for both.
    """

    files = {
        name: f"models: {{{name}: {{model: {json.dumps(folder)}, task: text-classification}}}}\n".encode()
        for name, folder in (("stable", tiny_models.sentiment()), ("next", tiny_models.topics()))
    }
    flags = ("--models_refresh_s=0.5", "--setup_file=./setup.py", f"--dataflow_endpoint={cloud.url}")
    staged = submit(cloud, launcher, *flags, models=files["stable"])
    texts = [f"where is my order {n} " * 12 for n in range(16_000)]
    messages = [
        PubsubMessage.serialize(PubsubMessage(data=json.dumps({"inputs": text}).encode(), message_id=str(n)))
        for n, text in enumerate(texts)
    ]
    journal = tmp_path / "journal"
    environment = {**cloud.environment(tmp_path), "BEAM_HF_JOURNAL": str(journal)}

    def swap() -> None:
        # The journal has a message by its id once that is in a forward.
        assert waited(lambda: any(b"@" in each.read_bytes() for each in journal.glob("*") if each.is_file()))
        cloud.objects[MODELS] = files["next"]

    with ThreadPoolExecutor(1) as threads:
        swapped = threads.submit(swap)
        code = run_on_workers(staged, messages, clean, tmp_path, **environment)
        assert code == 0, (tmp_path / "log").read_text()[-3000:]
        swapped.result(1)
    results, letters = kept(tmp_path / "out" / "-output"), kept(tmp_path / "out" / "-dead-letter")
    assert letters.messages == [] and len(results.processes) == 2
    expected = Counter(str(n) for n in range(len(texts)))
    assert Counter(message.attributes["message_id"] for message in results.messages) == expected
    rows = audit_rows(staged.resources)
    assert Counter(row["message_id"] for row in rows) == expected
    versions: dict[str, set[str]] = {}
    for row in rows:
        versions.setdefault(row["variant"], set()).add(row["models_version"].partition("-")[0])
    assert versions == {name: {hashlib.sha256(file).hexdigest()[:8]} for name, file in files.items()}
    assert {message.attributes["variant"] for message in results.messages} == {"stable", "next"}
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == 2 and len(set(loads)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("killer", ["segfault", "kill", "abort", "spin"])
def test_one_killer_among_a_thousand(killer, update, clean, tmp_path):
    """A message kills a worker's process twice; started again, there are 999 results and one KilledWorker."""
    texts = [f"order number {n}" for n in range(1_000)]
    texts[617] = f"killer: {killer}"
    messages = [
        PubsubMessage.serialize(PubsubMessage(data=json.dumps({"inputs": text}).encode(), message_id=str(n)))
        for n, text in enumerate(texts)
    ]
    planted = {"PYTHONPATH": str(KILLERS), "BEAM_HF_JOURNAL": str(tmp_path / "journal")}
    if killer == "spin":
        planted["PLANTED_LIMIT_S"] = "20"
    lives = 0
    while run_on_workers(update, messages, clean, tmp_path, f"out{lives}", **planted):
        lives += 1
        assert lives <= 2, (tmp_path / "log").read_text()[-3000:]
    assert lives == 2
    results, letters = (kept(tmp_path / "out2" / name).messages for name in ("-output", "-dead-letter"))
    assert Counter(m.attributes["message_id"] for m in results) == Counter(str(n) for n in range(1_000) if n != 617)
    (letter,) = (message.attributes for message in letters)
    assert (letter["dead_letter_message_id"], letter["dead_letter_error_type"]) == ("617", "KilledWorker")
    rows = [row for row in audit_rows(update.resources) if row["message_id"] == "617"]
    assert [row["error_type"] for row in rows if row["status"] == "dead_letter"] == ["KilledWorker"]


def test_fuzzed_messages_on_worker_processes(update, clean, tmp_path):
    """Messages that nobody should send, through the staged graph: each ends once with its row, none unexpectedly."""
    fuzzed = job_messages.made("feature-extraction", 300, seed=4)
    messages = [
        PubsubMessage.serialize(PubsubMessage(data=one.data, message_id=f"fuzz-{n}", attributes=one.attributes))
        for n, one in enumerate(fuzzed)
    ]
    assert run_on_workers(update, messages, clean, tmp_path) == 0, (tmp_path / "log").read_text()[-3000:]
    results, letters = (kept(tmp_path / "out" / name).messages for name in ("-output", "-dead-letter"))
    ended = Counter(message.attributes["message_id"] for message in results)
    ended += Counter(message.attributes["dead_letter_message_id"] for message in letters)
    assert ended == Counter(f"fuzz-{n}" for n in range(300))
    assert "Unexpected" not in {message.attributes["dead_letter_error_type"] for message in letters}
    rows = Counter(row["message_id"] for row in audit_rows(update.resources))
    assert {key: count for key, count in rows.items() if key.startswith("fuzz-")} == dict(ended)
    for message in letters:
        original = fuzzed[int(message.attributes["dead_letter_message_id"].removeprefix("fuzz-"))]
        assert message.data == original.data


@dataclass
class Kept:
    messages: list[PubsubMessage]
    processes: set[str]


def kept(path: Path) -> Kept:
    """What run_staged.py kept of the one topic whose name ends as ``path``."""
    (folder,) = path.parent.glob(f"*{path.name}")
    messages = []
    for file in folder.iterdir():
        with file.open("rb") as source:
            while True:
                try:
                    messages.append(PubsubMessage.deserialize(pickle.load(source)))
                except EOFError:
                    break
    return Kept(messages, {file.name for file in folder.iterdir()})
