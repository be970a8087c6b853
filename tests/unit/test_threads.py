"""Threads: how long they spin, settled before torch loads OpenMP, and how many there are in a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.internal import pickler
from apache_beam.ml.inference.base import RunInference

from pipeline import dataflow
from pipeline.options import parse
from transforms.models import threads
from transforms.models.backends import device
from transforms.models.handler import HuggingFaceModelHandler

FLAGS = [
    "--input_subscription=projects/my-project/subscriptions/some",
    "--output_topic=projects/my-project/topics/some",
    "--dead_letter_topic=projects/my-project/topics/other",
    "--model=some/model",
]

#: Writes what OpenMP will read at the moment that torch is first imported.
_WATCH = """
import os, sys
def watch(event, details):
    if event == "import" and details[0] == "torch":
        os.write(1, f"spins {os.environ.get('GOMP_SPINCOUNT')} {os.environ.get('OMP_WAIT_POLICY')}".encode())
        os._exit(0)
sys.addaudithook(watch)
"""


def spins(code: str, **environ: str) -> str:
    """What a process that runs ``code`` has settled once it asks for torch."""
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _WATCH + code], env=plain | environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def worker() -> str:
    """A worker of Dataflow's, which starts with what the launch put into its options and unpickles the steps."""
    flags = [*FLAGS, "--runner=DataflowRunner", "--sdk_container_image=image", "--beam_plugins=json"]
    settings, options = parse(flags)
    dataflow.prepare(settings, options)
    told = {"beam:option:beam_plugins:v1": options.get_all_options(drop_default=True)["beam_plugins"]}
    environment = {"PIPELINE_OPTIONS": json.dumps(told), "CONTROL_API_SERVICE_DESCRIPTOR": 'url: "127.0.0.1:9"'}
    step = pickler.dumps(RunInference(HuggingFaceModelHandler("some/model", "fill-mask")))
    return (
        "from apache_beam.runners.worker import sdk_worker_main\n"
        "from apache_beam.internal import pickler\n"
        f"sdk_worker_main.create_harness({environment!r}, dry_run=True)\n"
        f"pickler.loads({step!r})"
    )


JOB = f"from pipeline import main; main.main({FLAGS})"
DEMO = "from pipeline.demo import classifier; classifier._train(None, None, [], None, None)"
LIBRARY = "from transforms import HuggingFaceModelHandler"


@pytest.mark.parametrize("start", [JOB, DEMO, LIBRARY, worker()], ids=["job", "demo", "library", "worker"])
def test_threads_yield_wherever_the_process_starts(start: str) -> None:
    """The spin count is in the environment before torch is imported, in the job, its worker, the demo and a library."""
    assert spins(start) == "spins 1000 None"


def test_a_users_own_setting_stands() -> None:
    """Who sets either of OpenMP's variables keeps it, and the other is left alone."""
    assert spins(LIBRARY, GOMP_SPINCOUNT="7") == "spins 7 None"
    assert spins(LIBRARY, OMP_WAIT_POLICY="active") == "spins None active"


def test_a_users_own_number_of_threads_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS is what torch uses, whatever the machine has; what OpenMP would not read is not read here."""
    used: list[int] = []
    monkeypatch.setattr(device.torch, "set_num_threads", used.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "37,2")
    assert device.share_threads(2) == 37 and used == [37]
    for text in ("", "0", "-1", "all"):
        assert threads.chosen({"OMP_NUM_THREADS": text}) is None


#: A machine's files, and the cores that they leave of sixty-four.
CONTAINERS = {
    "not bounded": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    "two": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "one and a half": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    "less than one": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
    "a slice above is narrower": (
        {
            "proc/self/cgroup": "0::/user.slice/job.scope\n",
            "sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000\n",
        },
        3,
    ),
    "version 1, the path the host's": (
        {
            "proc/self/cgroup": "4:memory:/docker/1a\n3:cpu,cpuacct:/docker/1a\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "version 1, not bounded": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
    "both, version 2 beside": (
        {"proc/self/cgroup": "1:cpu:/\n0::/\n", "sys/fs/cgroup/unified/cpu.max": "500000 100000\n"},
        5,
    ),
    "no control groups": ({}, 64),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_threads_are_what_the_container_may_use(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota, of either version of control groups and at any height, counts before the machine's cores."""
    files, expected = CONTAINERS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert threads.cores(tmp_path) == expected


def test_threads_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that is bound to three cores uses three."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5})
    assert threads.cores(tmp_path) == 3
