"""The flex template, its image and its script: as much of them as can be checked without a cloud."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import declared
import pytest
import yaml
from google.cloud.dataflow_v1beta3 import TemplateMetadata
from google.protobuf import json_format
from programs import found
from streams import ROOT

from pipeline import __version__, metadata
from pipeline.options import FLAGS, settings

TEMPLATES = ROOT / "templates"
FLEX = TEMPLATES / "flex"
VARIANTS = ("cpu", "gpu")


# The template


def test_metadata_is_generated_from_the_flags():
    """metadata.json is what the command prints: nobody edits it by hand, and no flag is missing."""
    text = (FLEX / "metadata.json").read_text("utf-8")
    assert json.loads(text) == metadata.metadata(), "run: python -m pipeline.metadata --write"
    assert [parameter["name"] for parameter in json.loads(text)["parameters"]] == [flag.name for flag in FLAGS]


def test_metadata_is_what_the_api_takes():
    """Every field and enumeration value is known to the Dataflow API, and streaming is declared with both modes."""
    about = TemplateMetadata.pb(TemplateMetadata())
    json_format.ParseDict(metadata.metadata(), about)
    assert about.streaming and about.supports_at_least_once and about.supports_exactly_once
    assert about.default_streaming_mode == "EXACTLY_ONCE"


GOOD = {
    "input_subscription": "projects/my-project/subscriptions/inbox",
    "output_topic": "projects/my-project/topics/results",
    "dead_letter_topic": "projects/my-project/topics/dead",
    "audit_table": "my-project:inference.audit",
    "window": "sliding:60:30",
    "max_batch_latency_ms": "50",
    "endpoint": "https://abc.endpoints.huggingface.cloud",
    "hf_token_source": "secret:projects/my-project/secrets/hf/versions/latest",
    "time_limit_s": "2.5",
    "id_attribute": "order-id",
}
BAD = {
    "input_subscription": "inbox",
    "output_topic": "projects/my-project/subscriptions/results",
    "audit_table": "inference.audit",
    "window": "fixd:60",
    "max_batch_latency_ms": "soon",
    "endpoint": "abc.endpoints.huggingface.cloud",
    "hf_token_source": "hf_pasted",
    "time_limit_s": "-1",
}


def test_the_form_takes_what_the_job_takes():
    """The regexes, which must do without look-around, take good values and every default, and refuse wrong ones."""
    regexes = {p["name"]: p["regexes"][0] for p in metadata.metadata()["parameters"] if "regexes" in p}
    defaults = {flag.name: flag.default for flag in FLAGS if flag.default and not flag.choices}
    assert BAD.keys() <= regexes.keys()
    for name, regex in regexes.items():
        assert "(?" not in regex, name
        for values, good in ((GOOD, True), (defaults, True), (BAD, False)):
            if name in values:
                assert bool(re.search(regex, values[name])) is good, (name, values[name])
    settings({**GOOD, "endpoint": None, "model": "a/b"})


def test_the_launcher_runs_the_installed_job(tmp_path):
    """launch.py, run outside the checkout as the launcher does, is the pipeline's main."""
    script = shutil.copy(FLEX / "launch.py", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "--input_subscription" in done.stdout, done.stderr


# The image


def lock(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package."""
    packages: dict[str, tuple[str, int]] = {}
    for line in (FLEX / f"requirements-{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("    --hash=sha256:"):
            package = list(packages)[-1]
            packages[package] = (packages[package][0], packages[package][1] + 1)
        elif line and not line.startswith("#"):
            package, _, version = line.removesuffix(" \\").partition("==")
            packages[package] = (version, 0)
    return packages


@pytest.mark.parametrize("variant", VARIANTS)
def test_locks_hold_what_is_declared(variant):
    """Every dependency of the base and of torch is locked at a version they allow, and every package has its hashes."""
    packages = lock(variant)
    for requirement in (*declared.requirements(), *declared.requirements("torch")):
        version, _ = packages[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)
    assert [name for name, (_, hashes) in packages.items() if not hashes] == []


def test_the_locks_differ_by_torch_alone():
    """The GPU image has the CPU image's packages at the same versions, but for torch and what CUDA brings."""
    cpu, gpu = lock("cpu"), lock("gpu")
    assert (cpu["torch"][0], gpu["torch"][0]) == ("2.13.0+cpu", "2.13.0")
    assert {n: v for n, (v, _) in cpu.items() if n != "torch"}.items() <= {n: v for n, (v, _) in gpu.items()}.items()
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in gpu.keys() - cpu.keys())
    assert lock("build")["setuptools"][0] == cpu["setuptools"][0]


def test_image_is_pinned_and_unprivileged():
    """Base images have a version, Beam's is the locked one, workers are not root, and the entry point is Beam's."""
    text = (FLEX / "Dockerfile").read_text("utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.M))
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", text, re.M))
    for base in re.findall(r"^FROM (\S+)", text, re.M):
        assert base in stages or (":" in base and not base.endswith(":latest")), base
    assert arguments["BEAM"] == lock("cpu")["apache-beam"][0] and arguments["PYTHON"] == "3.11"
    assert re.findall(r"^(USER|ENTRYPOINT) (.*)", text, re.M) == [
        ("USER", "1000"),
        ("ENTRYPOINT", '["/opt/apache/beam/boot"]'),
    ]


def test_what_the_image_copies_is_in_the_build_context():
    """The build context is an allow-list that has all that is copied, and nothing else of the checkout."""
    ignore = (FLEX / "Dockerfile.dockerignore").read_text("utf-8").split()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert ignore[0] == "*"
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", (FLEX / "Dockerfile").read_text("utf-8"), re.M):
        copied |= {source.replace("${VARIANT}", "cpu") for source in line.split()}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source
    assert allowed == {"setup.py", "pyproject.toml", "README.md", "LICENSE", "pipeline", "transforms", "templates/flex"}


def test_hadolint():
    """The Dockerfile passes hadolint."""
    done = subprocess.run([found("hadolint"), FLEX / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_cloud_build():
    """Every substitution is used, and deploy.sh sets each; the image is tried before it is pushed."""
    build = yaml.safe_load((FLEX / "cloudbuild.yaml").read_text("utf-8"))
    text = json.dumps(build["steps"])
    assert set(build["substitutions"]) == set(re.findall(r"\$\{(\w+)\}", text))
    assert [step["id"] for step in build["steps"]] == ["image", "smoke", "push", "template"]
    given = dict(pair.split("=", 1) for pair in flags_of(deploy("build"))["--substitutions"].split(","))
    assert set(given) == set(build["substitutions"])


# deploy.sh

PLACE = {
    "PROJECT": "my-project",
    "REGION": "europe-west4",
    "BUCKET": "my-bucket",
    "REPOSITORY": "inference",
    "WORKER_SERVICE_ACCOUNT": "worker@my-project.iam.gserviceaccount.com",
}


def deploy(*arguments: str, code: int = 0, **environment: str) -> list[list[str]]:
    """The commands that a dry run prints, as the shell would read them."""
    done = subprocess.run(
        [TEMPLATES / "deploy.sh", "--dry-run", *arguments],
        env={"PATH": os.environ["PATH"], **PLACE, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    return [shlex.split(line) for line in (done.stdout if code == 0 else done.stderr).splitlines()]


def flags_of(commands: list[list[str]]) -> dict[str, str]:
    """The flags of the one command."""
    (command,) = commands
    return dict(argument.partition("=")[::2] for argument in command if argument.startswith("--"))


def test_deploy_run_passes_flags_as_parameters():
    """Every flag becomes a parameter as it is, commas, quotes and spaces included, beside the workers' image."""
    parameters = '--inference_params={"top_k": 3, "truncation": true}'
    flags = flags_of(deploy("run", "--model=a/b", parameters))
    assert flags["--parameters"].split(":::") == [
        "^",
        f"^sdk_container_image=europe-west4-docker.pkg.dev/my-project/inference/cpu:{__version__}",
        "model=a/b",
        parameters[2:],
    ]
    assert flags["--template-file-gcs-location"] == f"gs://my-bucket/templates/inference-cpu-{__version__}.json"
    assert flags["--service-account-email"] == PLACE["WORKER_SERVICE_ACCOUNT"]
    assert "--update" not in flags and "--additional-pipeline-options" not in flags


def test_deploy_gpu_at_least_once_private():
    """Accelerator, mode, private network and key are each passed on."""
    more = {"VARIANT": "gpu", "ACCELERATOR": "nvidia-l4", "MODE": "at_least_once", "SUBNETWORK": "s", "KMS_KEY": "k"}
    flags = flags_of(deploy("run", "--model=a/b", **more))
    asked = "^:::^dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    assert flags["--additional-pipeline-options"] == asked
    assert flags["--additional-experiments"] == "streaming_mode_at_least_once"
    assert (flags["--subnetwork"], flags["--dataflow-kms-key"]) == ("s", "k") and "--disable-public-ips" in flags
    assert "/gpu:" in flags["--parameters"]


def test_deploy_update_maps_renamed_steps(tmp_path):
    """update replaces the running job, with the mapping of renamed steps where there is one."""
    assert "--update" in flags_of(deploy("update", "--model=a/b"))
    copy = tmp_path / "templates"
    shutil.copytree(TEMPLATES / "flex", copy / "flex")
    shutil.copy(TEMPLATES / "deploy.sh", copy)
    (tmp_path / "pipeline").mkdir()
    shutil.copy(ROOT / "pipeline" / "__init__.py", tmp_path / "pipeline")
    (copy / "flex" / "transform_name_mapping.json").write_text('{"Old/Step": "New/Step", "A": "B"}')
    command = [copy / "deploy.sh", "--dry-run", "update", "--model=a/b"]
    done = subprocess.run(command, env={**os.environ, **PLACE}, capture_output=True, text=True, check=True, timeout=30)
    assert "--transform-name-mappings=^:::^Old/Step=New/Step:::A=B" in shlex.split(done.stdout)


def test_deploy_drain():
    """drain looks the job up by its name, and drains it."""
    listing, draining = deploy("drain", NAME="mine")
    assert "--filter=name=mine" in listing and draining[:4] == ["gcloud", "dataflow", "jobs", "drain"]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["launch"], {}, "use build, run, update or drain"),
        (["run"], {"BUCKET": ""}, "BUCKET is not set"),
        (["run", "--model", "a/b"], {}, "write flags as --name=value"),
        (["run", "--model=a/b"], {"ACCELERATOR": "nvidia-l4"}, "needs VARIANT=gpu"),
        (["run", "--model=a/b"], {"MODE": "twice"}, "use exactly_once or at_least_once"),
        (["build", "--model=a/b"], {}, "--revision"),
    ],
)
def test_deploy_refuses(arguments, environment, words):
    """What cannot work ends with one line and exit code 2, before anything is started."""
    (line,) = (" ".join(line) for line in deploy(*arguments, code=2, **environment))
    assert line.startswith("error: ") and words in line


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["build"], ["run", "--model=a/b"], ["update", "--model=a/b"], ["drain"]])
def test_gcloud_knows_every_flag(arguments):
    """The installed gcloud's own help has each flag that deploy.sh passes."""
    more = {"MACHINE_TYPE": "n2-standard-4", "MAX_WORKERS": "2", "SUBNETWORK": "s", "KMS_KEY": "k"}
    for command in deploy(*arguments, MODE="at_least_once", BUILD_SERVICE_ACCOUNT="b", **more):
        words = [word for word in command[1:5] if word.isalpha() or word == "flex-template"]
        words = words[: next((i + 1 for i, w in enumerate(words) if w in ("submit", "run", "list", "drain")), None)]
        asked = [found("gcloud"), *words, "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120)
        text = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)
        for argument in command:
            if argument.startswith("--"):
                name = argument.partition("=")[0]
                assert name in text or name.replace("--", "--[no-]") in text, (words, name)
