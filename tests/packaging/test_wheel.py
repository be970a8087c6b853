"""The built wheel, without the checkout: what it carries, and that each extra brings what its part needs."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wheels
from fake_endpoint import FakeEndpoint
from streams import collect, fresh, text_message

from pipeline import __version__, publish

FLAGS = (
    "--input_subscription=projects/my-project/subscriptions/inbox",
    "--output_topic=projects/my-project/topics/results",
    "--dead_letter_topic=projects/my-project/topics/dead",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def endpoint_only(wheel, tmp_path_factory) -> Path:
    """Programs of an environment with the base and what an endpoint needs."""
    return wheels.install(wheel, tmp_path_factory.mktemp("endpoint"), "endpoint")


def run(programs: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the environment, from a folder that has nothing of ours in it."""
    return subprocess.run(
        [programs / command[0], *command[1:]],
        cwd=programs,
        env=wheels.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refusal is."""
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    return line


def test_what_it_carries(wheel):
    """The product with its data and types; no emulators, no demo, no tests."""
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        about = opened.read(f"beam_hf_inference-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in about
    assert {"pipeline/main.py", "pipeline/py.typed", "pipeline/audit_latest.sql", "transforms/records.py"} <= names
    assert any(name.startswith("pipeline/console/queries/") for name in names)
    assert any(name.startswith("pipeline/console/static/") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pipeline", "transforms", f"beam_hf_inference-{__version__}.dist-info"}
    assert not [name for name in names if name.startswith(("pipeline/emulators", "pipeline/demo"))]


def test_an_older_build_leaves_nothing_in_it(wheel, tmp_path):
    """A list of files left by an earlier build of the checkout does not bring the emulators back as data."""
    source = tmp_path / "again"
    source.mkdir()
    again = wheels.build(source, before="pipeline/emulators/process.py")
    with zipfile.ZipFile(again) as new, zipfile.ZipFile(wheel) as old:
        assert set(new.namelist()) == set(old.namelist())


def test_the_source_package_makes_the_same_wheel(wheel, tmp_path):
    """What ``--setup_file=./setup.py`` stages for Dataflow's workers installs the same files."""
    source = wheels.copy(tmp_path / "source")
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=source, check=True, timeout=300)
    (archive,) = (source / "dist").glob("*.tar.gz")
    again = wheels.build_from(archive, tmp_path)
    with zipfile.ZipFile(again) as new, zipfile.ZipFile(wheel) as old:
        assert set(new.namelist()) == set(old.namelist())


def test_help_and_version_need_the_base_alone(endpoint_only):
    """The commands answer from the installed package, and none of them has torch to import."""
    done = run(endpoint_only, "python", "-m", "pipeline.main", "--help")
    assert done.returncode == 0 and "--input_subscription" in done.stdout
    code = "import importlib.util as u, pipeline; print(pipeline.__file__, pipeline.__version__, u.find_spec('torch'))"
    file, version, torch = run(endpoint_only, "python", "-c", code).stdout.split()
    assert Path(file).is_relative_to(endpoint_only.parent) and (version, torch) == (__version__, "None")


def test_doctor_looks_without_torch(servers, endpoint_only):
    """Each look is told, the endpoint's too, where nothing of what is asked for is there."""
    done = run(
        endpoint_only, "python", "-m", "pipeline.doctor", *FLAGS, "--endpoint=http://127.0.0.1:9", "--task=fill-mask"
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "✗ --input_subscription" in done.stdout and "--endpoint" in done.stdout


def test_a_job_on_an_endpoint_needs_no_torch(servers, endpoint_only, tmp_path):
    """With the base and ``[endpoint]`` a whole job runs: results, a dead letter, rows, and a drain."""
    resources = fresh("wheel")
    messages = [text_message(f"Ticket {n}") for n in range(20)] + [text_message("poison")]
    publish.publish_all(resources.input_topic, messages)
    with FakeEndpoint("inference").running() as fake, (tmp_path / "log").open("ab") as log:
        flags = [*resources.flags(), f"--endpoint={fake.url}", "--task=feature-extraction"]
        process = subprocess.Popen(
            [endpoint_only / "python", "-m", "pipeline.main", *flags],
            cwd=tmp_path,
            env=wheels.environment(),
            stdout=log,
            stderr=log,
        )
        try:
            ledger = collect(resources, 21)
            assert process.poll() is None, (tmp_path / "log").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
    assert (len(ledger.results), len(ledger.dead_letters), len(ledger.rows)) == (20, 1, 21)


def test_a_model_without_torch_is_one_line(endpoint_only):
    """``--model`` says what is missing and which extra to install, before anything is asked of any service."""
    line = error_line(run(endpoint_only, "python", "-m", "pipeline.main", *FLAGS, "--model=a/b"))
    assert "--model=a/b needs torch" in line and "pip install 'beam-hf-inference[torch]'" in line


def test_the_console_without_its_extra_is_one_line(endpoint_only):
    """The console says which extra to install."""
    line = error_line(run(endpoint_only, "python", "-m", "pipeline.console", "--port=0", "--audit_table=p:d.t"))
    assert "pip install 'beam-hf-inference[console]'" in line


def test_the_console_has_its_ready_queries(wheel, tmp_path):
    """With ``[console]`` the page's application and its ready queries are there, without the documentation."""
    programs = wheels.install(wheel, tmp_path / "console", "console")
    code = (
        "import pipeline.console.app; from pipeline.console import audit; from pipeline.options import TableName\n"
        "for query in audit.ready_queries(TableName('p', 'd', 't')): audit.check(query.sql); print(query.name)"
    )
    done = run(programs, "python", "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    files = Path(__file__).parents[2] / "pipeline" / "console" / "queries"
    assert len(done.stdout.splitlines()) == len(list(files.iterdir())) > 5
    assert "Error rate by hour" in done.stdout
