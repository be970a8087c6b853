"""The flex template, its image and its script: as much of them as can be checked without a cloud."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import declared
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud.dataflow_v1beta3 import TemplateMetadata
from google.protobuf import json_format
from programs import found
from recorder import Recorder, recording
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


def dockerfile() -> str:
    return (FLEX / "Dockerfile").read_text("utf-8")


def test_image_is_pinned():
    """Base images have a version, none the latest; Beam's is the locked one, and the entry point is Beam's."""
    text = dockerfile()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.M))
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", text, re.M))
    for base in re.findall(r"^FROM (\S+)", text, re.M):
        base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base)
        assert base in stages or re.search(r":[\w.-]*\d[\w.-]*$|@sha256:[0-9a-f]{64}$", base), base
    assert arguments["BEAM"] == lock("cpu")["apache-beam"][0] and arguments["PYTHON"] == "3.11"
    assert re.findall(r"^ENTRYPOINT (.*)", text, re.M) == ['["/opt/apache/beam/boot"]']


def test_the_launcher_is_root_and_a_variant_of_the_workers_is_not():
    """The last stage, which is what gets built, changes no user; the variant for workers alone has user 1000."""
    parts = re.split(r"^FROM (?=.* AS (\w+)$)", dockerfile(), flags=re.M)
    stages = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(stages)[-1] == "template"
    assert {name: re.findall(r"^USER (.*)", text, re.M) for name, text in stages.items() if "USER" in text} == {
        "worker": ["1000"]
    }


@pytest.fixture
def checkout(tmp_path) -> Path:
    """All that is tracked here and more: caches, scaffolding, and what a developer leaves lying about."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    more = "pipeline/__pycache__/main.pyc transforms/models/__pycache__/a.pyc .venv/lib/x.py secret.json templates/x.tf"
    more += (
        " pipeline/emulators/server.py pipeline/demo/data/a.json templates/terraform/terraform.tfstate build/lib/a.py"
    )
    for name in [*filter(lambda name: (ROOT / name).is_file(), listed.splitlines()), *more.split()]:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes() if (ROOT / name).is_file() else b"x")
    return tmp_path / "checkout"


def wanted(checkout: Path) -> set[str]:
    """The files that a build shall get: the two packages without scaffolding, the template's folder, and four more."""
    files = {str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file()}
    left_out = re.compile(r"__pycache__|^pipeline/(emulators|demo)/")
    return {"pyproject.toml", "setup.py", "README.md", "LICENSE"} | {
        name
        for name in files
        if name.startswith(("pipeline/", "transforms/", "templates/flex/")) and not left_out.search(name)
    }


def as_gcloud_reads_it(checkout: Path) -> set[str]:
    """What ``gcloud builds submit --ignore-file`` uploads, as gcloud itself lists it."""
    shutil.copy(FLEX / "Dockerfile.dockerignore", checkout / ".gcloudignore")
    asked = [found("gcloud"), "meta", "list-files-for-upload", str(checkout)]
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(checkout.parent / "gcloud")}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines())


def as_docker_reads_it(checkout: Path) -> set[str]:
    """The context that docker's own client sends, to a daemon that only keeps it."""
    # The builder without BuildKit sends the context itself. It reads this name only, by the same rules.
    shutil.copy(FLEX / "Dockerfile.dockerignore", checkout / ".dockerignore")
    about = {"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "26", "Os": "linux", "OSType": "linux"}
    with recording(about, **{"Api-Version": "1.45"}) as daemon:
        environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_HOST": f"tcp://{daemon.address}"}
        asked = [found("docker"), "build", "--file=templates/flex/Dockerfile", "."]
        subprocess.run(asked, cwd=checkout, env=environment, capture_output=True, check=False, timeout=60)
        (context,) = (body for _, path, body in daemon.requests if "/build" in path)
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        return {member.name for member in archive if member.isfile()} - {".dockerignore"}


@pytest.mark.parametrize("reader", [as_gcloud_reads_it, as_docker_reads_it])
def test_the_build_gets_what_the_image_copies_and_no_more(reader, checkout):
    """By gcloud's rules and by docker's the upload is the two packages, the template's files and the packaging's."""
    uploaded = reader(checkout)
    assert uploaded == wanted(checkout)
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(), re.M):
        for source in line.split():
            for variant in VARIANTS:
                name = source.replace("${VARIANT}", variant)
                assert name in uploaded or any(other.startswith(f"{name}/") for other in uploaded), name


def check_image() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_image", FLEX / "check_image.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_image_is_looked_into():
    """CUDA on a CPU image, none on a GPU image, and a job that is the uploaded checkout, each fail the build."""
    faults = check_image().faults
    here = [line for line in faults("cpu", ["torch", "apache-beam"]) if "not below" in line]
    assert len(here) == 2, "this checkout is no installed package"
    assert any("the cpu variant has nvidia-cublas" in line for line in faults("cpu", ["torch", "nvidia-cublas"]))
    assert any("no CUDA packages" in line for line in faults("gpu", ["torch"]))
    assert not [line for line in faults("gpu", ["torch", "nvidia-cublas"]) if "CUDA" in line]
    assert not list(filter(None, (name for name in lock("cpu") if name.startswith(check_image().CUDA))))


def test_the_image_check_says_sizes_and_its_code():
    """Run as the build runs it, it prints what packages weigh, and its exit code tells the build."""
    asked = [sys.executable, "-P", FLEX / "check_image.py", "cpu"] if sys.version_info >= (3, 11) else None
    if asked is None:
        pytest.skip("python -P is of Python 3.11, which the image has")
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert re.search(r"MB in \d+ packages", done.stdout) and re.search(r"[\d.]+ MB  torch", done.stdout)
    assert done.returncode == (1 if done.stderr else 0)


def test_the_drivers_asked_for_are_those_of_the_wheels():
    """The lock's torch is for CUDA 13, so no driver of the 4xx line is asked for, and the docs say which it needs."""
    assert lock("gpu")["nvidia-cuda-runtime"][0].startswith("13.")
    job = (TEMPLATES / "terraform" / "variables.tf").read_text("utf-8")
    assert re.search(r'driver\s+= optional\(string, "5xx"\)', job)
    assert "580" in (ROOT / "docs" / "image.md").read_text("utf-8")


def test_hadolint():
    """The Dockerfile passes hadolint."""
    done = subprocess.run([found("hadolint"), FLEX / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_cloud_build():
    """Each substitution is used and known to deploy.sh; the installed job is tried, and Cloud Build itself pushes."""
    build = yaml.safe_load((FLEX / "cloudbuild.yaml").read_text("utf-8"))
    text = json.dumps([build["steps"], build["images"]])
    assert set(build["substitutions"]) == set(re.findall(r"\$\{(\w+)\}", text))
    # Of an image that a step pushes there is no provenance, and the build that asked for it fails or has none.
    assert build["images"] == ["${_IMAGE}"] and build["options"]["requestedVerifyOption"] == "VERIFIED"
    assert not [step for step in build["steps"] if "push" in step["args"]]
    tried = [step for step in build["steps"] if step["name"] == "${_IMAGE}"]
    assert [step["args"][0] for step in tried] == ["-P", "-P"], "else the uploaded checkout is what is imported"
    given = dict(
        pair.split("=", 1) for pair in flags_of(deploy("build", LAUNCHER="l")[:1])["--substitutions"].split(",")
    )
    assert set(given) == set(build["substitutions"])
    default = re.search(r"^ARG LAUNCHER=(\S+)", dockerfile(), re.M)[1]
    assert build["substitutions"]["_LAUNCHER"] == default


def test_the_template_is_written_after_the_push():
    """The spec is a command of its own, after the build that pushes, and names the image that was built."""
    submit, template = deploy("build", "--variant=gpu")
    assert submit[1:3] == ["builds", "submit"]
    assert template[1:5] == [
        "dataflow",
        "flex-template",
        "build",
        f"gs://my-bucket/templates/inference-gpu-{__version__}.json",
    ]
    assert flags_of([template])["--image"] in flags_of([submit])["--substitutions"]


def test_gcloud_drops_the_streaming_modes(tmp_path):
    """What gcloud makes of the metadata has all parameters and no mode, which is why every launch says its mode.

    Should this fail, a newer gcloud keeps them: then deploy.sh may leave the mode to the template.
    """
    _, template = deploy("build")
    asked = [found("gcloud"), *template[1:], "--print-only"]
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    spec = json.loads(done.stdout[done.stdout.index("{") :])
    assert [parameter["name"] for parameter in spec["metadata"]["parameters"]] == [flag.name for flag in FLAGS]
    assert not {"streaming", "supportsAtLeastOnce", "defaultStreamingMode"} & spec["metadata"].keys()
    assert "--additional-experiments" in flags_of(deploy("run", "--model=a/b"))


# deploy.sh

PLACE = {
    "PROJECT": "my-project",
    "REGION": "europe-west4",
    "BUCKET": "my-bucket",
    "REPOSITORY": "inference",
    "WORKER_SERVICE_ACCOUNT": "worker@my-project.iam.gserviceaccount.com",
}


#: Shells that deploy.sh must run on: what is here, and bash 3.2, which macOS has, where BASH_3_2 says there is one.
SHELLS = [shell for shell in ("bash", os.environ.get("BASH_3_2")) if shell]


def deploy(*arguments: str, code: int = 0, shell: str = "bash", **environment: str) -> list[list[str]]:
    """The commands that a dry run prints, as the shell would read them."""
    done = subprocess.run(
        [shell, TEMPLATES / "deploy.sh", "--dry-run", *arguments],
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


def listed(flag: str) -> list[str]:
    """The values of a flag with the separator of its own that gcloud's ``^DELIMITER^`` gives it."""
    empty, separator, values = flag.split("^", 2)
    assert empty == "" and separator
    return values.split(separator)


def test_deploy_run_passes_flags_as_parameters():
    """Every flag becomes a parameter as it is, commas, quotes and spaces included, beside the workers' image."""
    parameters = '--inference_params={"top_k": 3, "truncation": true}'
    flags = flags_of(deploy("run", "--model=a/b", parameters))
    assert listed(flags["--parameters"]) == [
        f"sdk_container_image=europe-west4-docker.pkg.dev/my-project/inference/cpu:{__version__}",
        "model=a/b",
        parameters[2:],
    ]
    assert flags["--template-file-gcs-location"] == f"gs://my-bucket/templates/inference-cpu-{__version__}.json"
    assert flags["--service-account-email"] == PLACE["WORKER_SERVICE_ACCOUNT"]
    assert flags["--additional-experiments"] == "streaming_mode_exactly_once"
    assert "--update" not in flags


def test_deploy_keeps_beams_flags_apart():
    """Beam's own flags are no parameters, which the service would refuse; each that is let through is one of Beam's."""
    own = ["--experiments=a,b", "--dataflow_service_options=x", "--number_of_worker_harness_threads=4"]
    flags = flags_of(deploy("run", "--model=a/b", *own))
    assert listed(flags["--additional-pipeline-options"]) == ["disk_size_gb=50", *(flag[2:] for flag in own)]
    assert listed(flags["--parameters"])[1:] == ["model=a/b"]
    allowed = re.findall(r"^BEAM_FLAGS\+?='(.*)'", (TEMPLATES / "deploy.sh").read_text("utf-8"), re.M)
    names = " ".join(allowed).split()
    beams = {option.lstrip("-") for action in beam_parser()._actions for option in action.option_strings}
    assert names and set(names) <= beams and not set(names) & {flag.name for flag in FLAGS}


def beam_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser


def test_every_flag_of_the_job_is_a_parameter():
    """deploy.sh finds each flag in metadata.json: none is refused, or taken for one of Beam's."""
    flags = flags_of(deploy("run", *(f"--{flag.name}=x" for flag in FLAGS)))
    assert [pair.partition("=")[0] for pair in listed(flags["--parameters"])[1:]] == [flag.name for flag in FLAGS]


def test_deploy_sizes_fit_a_model():
    """Machine, disk, workers and the launcher's machine have defaults that hold a model, and each can be set."""
    flags = flags_of(deploy("run", "--model=a/b"))
    assert (flags["--worker-machine-type"], flags["--max-workers"]) == ("n2-standard-4", "4")
    assert flags["--launcher-machine-type"] == "n2-standard-2"
    more = {"MACHINE_TYPE": "m", "MAX_WORKERS": "9", "MIN_WORKERS": "2", "UTILIZATION": "0.7", "DISK_GB": "200"}
    flags = flags_of(deploy("run", "--model=a/b", LAUNCHER_MACHINE_TYPE="l", WORKER_IMAGE="w", **more))
    assert (flags["--worker-machine-type"], flags["--max-workers"]) == ("m", "9")
    assert flags["--launcher-machine-type"] == "l" and listed(flags["--parameters"])[0] == "sdk_container_image=w"
    assert listed(flags["--additional-pipeline-options"]) == [
        "disk_size_gb=200",
        "dataflow_service_options=min_num_workers=2",
        "dataflow_service_options=worker_utilization_hint=0.7",
    ]


def test_deploy_gpu_at_least_once_private():
    """Accelerator with its driver, mode, private network and key are each passed on."""
    more = {"VARIANT": "gpu", "ACCELERATOR": "nvidia-l4", "MODE": "at_least_once", "SUBNETWORK": "s", "KMS_KEY": "k"}
    flags = flags_of(deploy("run", "--model=a/b", **more))
    accelerator = "dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    assert listed(flags["--additional-pipeline-options"])[1:] == [f"{accelerator}:5xx"]
    assert flags["--additional-experiments"] == "streaming_mode_at_least_once"
    assert flags["--worker-machine-type"] == "g2-standard-8"
    assert (flags["--subnetwork"], flags["--dataflow-kms-key"]) == ("s", "k") and "--disable-public-ips" in flags
    assert "/gpu:" in flags["--parameters"]
    flags = flags_of(deploy("run", "--model=a/b", DRIVER="580.95.05", MACHINE_TYPE="m", **more))
    assert listed(flags["--additional-pipeline-options"])[1:] == [f"{accelerator}:580.95.05"]


@pytest.mark.parametrize(
    ("strategy", "experiments"),
    [
        ("in_place", ["streaming_mode_exactly_once"]),
        ("stop_and_replace", ["update_strategy_parallel_job_update", "parallel_replace_job_max_stop_duration=5m"]),
        (
            "parallel",
            [
                "update_strategy_parallel_job_update",
                "parallel_replace_job_max_stop_duration=5m",
                "parallel_replace_job_min_parallel_pipelines_duration=1m",
            ],
        ),
    ],
)
def test_deploy_update_strategies(strategy, experiments):
    """An update in place, one that drains the old job first, and one beside it, are each a choice."""
    flags = flags_of(deploy("update", "--model=a/b", UPDATE=strategy, STOP_WITHIN="5m", OVERLAP="1m"))
    assert "--update" in flags and flags["--additional-experiments"].split(",")[-len(experiments) :] == experiments


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("command", "more"),
    [
        (["build"], {}),
        (["build", "--model=a/b", "--revision=c"], {"BUILD_SERVICE_ACCOUNT": "b", "LAUNCHER": "l"}),
        (["run"], {}),
        (["run", "--model=a/b", "--experiments=x"], {"SUBNETWORK": "s", "KMS_KEY": "k"}),
        (["update", "--model=a/b"], {}),
        (["update", '--inference_params={"a": "b c"}'], {"VARIANT": "gpu", "ACCELERATOR": "nvidia-l4"}),
        (["drain"], {}),
    ],
)
def test_deploy_on_every_shell(shell, command, more):
    """Each command prints the same on bash 3.2, where an empty array counts as unset, as on the bash here."""
    assert deploy(*command, shell=shell, **more) == deploy(*command, **more)


@pytest.mark.parametrize("script", sorted(TEMPLATES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_keep_to_bash_3(script):
    """No construct of bash 4 or later, and no array that may be empty expanded without a guard."""
    text = re.sub(r"(?m)(^|\s)#.*", "", script.read_text("utf-8"))
    later = r"\b(mapfile|readarray|coproc)\b|(declare|local|typeset) -\w*[An]|\$\{\w+(\^|,|@\w)|\|&|&>>|wait -n|\[\[ -v"
    assert not re.search(later, text), re.search(later, text)[0]
    empty = set(re.findall(r"(\w+)=\(\)", text))
    for name in empty:
        bare = re.sub(rf'\$\{{{name}\[@\]\+"\$\{{{name}\[@\]\}}"\}}', "", text)
        assert f"${{{name}[@]}}" not in bare, f'{name} may be empty: write ${{{name}[@]+"${{{name}[@]}}"}}'


@pytest.fixture
def dataflow(tmp_path, monkeypatch) -> Iterator[Recorder]:
    """A Dataflow API that keeps what gcloud asks of it; gcloud needs no credentials here."""
    job = {
        "id": "job-1",
        "name": "inference",
        "type": "JOB_TYPE_STREAMING",
        "currentState": "JOB_STATE_RUNNING",
        "createTime": "2026-01-31T12:00:00Z",
        "currentStateTime": "2026-01-31T12:00:00Z",
        "location": "europe-west4",
    }
    with recording({"job": job, "jobs": [job]}) as api:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW", f"http://{api.address}/")
        monkeypatch.setenv("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "true")
        monkeypatch.setenv("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
        yield api


def test_gcloud_sends_what_deploy_means(dataflow):
    """The real gcloud, run by the real script, asks the API for the launch that was meant: nothing lost in quoting."""
    found("gcloud")
    more = {"VARIANT": "gpu", "ACCELERATOR": "nvidia-l4", "SUBNETWORK": "s", "UPDATE": "parallel", "MIN_WORKERS": "1"}
    parameters = '{"top_k": 3, "labels": ["a,b", "c=d"]}'
    command = [TEMPLATES / "deploy.sh", "update", f"--inference_params={parameters}", "--experiments=x,y"]
    subprocess.run(command, env={**os.environ, **PLACE, **more}, capture_output=True, check=True, timeout=120)
    ((method, path, body),) = dataflow.requests
    launch = json.loads(body)["launchParameter"]
    assert (method, path.partition("?")[0]) == (
        "POST",
        "/v1b3/projects/my-project/locations/europe-west4/flexTemplates:launch",
    )
    assert launch["update"] is True and launch["parameters"]["inference_params"] == parameters
    environment = launch["environment"]
    assert environment["additionalExperiments"] == [
        "streaming_mode_exactly_once",
        "update_strategy_parallel_job_update",
        "parallel_replace_job_max_stop_duration=30m",
        "parallel_replace_job_min_parallel_pipelines_duration=10m",
    ]
    assert environment["additionalPipelineOptions"] == [
        "disk_size_gb=50",
        "experiments=x,y",
        "dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver:5xx",
        "dataflow_service_options=min_num_workers=1",
    ]
    assert environment["ipConfiguration"] == "WORKER_IP_PRIVATE" and environment["enableStreamingEngine"] is True
    assert (environment["machineType"], environment["launcherMachineType"]) == ("g2-standard-8", "n2-standard-2")


def test_gcloud_drains_the_job_of_that_name(dataflow):
    """drain, with the real gcloud, asks for the running job's id and then for its drain."""
    found("gcloud")
    command = [TEMPLATES / "deploy.sh", "drain"]
    subprocess.run(command, env={**os.environ, **PLACE}, capture_output=True, check=True, timeout=120)
    method, path, body = dataflow.requests[-1]
    assert (method, path.partition("?")[0]) == ("PUT", "/v1b3/projects/my-project/locations/europe-west4/jobs/job-1")
    assert json.loads(body)["requestedState"] == "JOB_STATE_DRAINED"


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
        (["run", "--modle=a/b"], {}, "--modle=a/b: no flag of the job, nor one of Beam"),
        (["run", "--model=a/b", "--runner=X"], {}, "--runner=X: no flag of the job"),
        (["run", "--model=a/b"], {"VARIANT": "gpu", "ACCELERATOR": "nvidia-tesla-t4"}, "set MACHINE_TYPE"),
        (["update", "--model=a/b"], {"UPDATE": "now"}, "use in_place, stop_and_replace or parallel"),
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
