"""``gcloud`` and ``terraform`` as far as templates/smoke.sh goes: ``python fake_programs.py PROGRAM ARGUMENTS``.

What Terraform would make is made in the embedded servers, and the job that Dataflow would run is the real one on
DirectRunner, started with just the parameters that the launch passes. State and a list of all commands are in the
folder FAKE_STATE. FAKE_BREAK names a fault: build (fails), launch (the job fails), destroy (fails), repeats (the job is
given no --id_attribute), stuck (the job never runs).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STATE = Path(os.environ["FAKE_STATE"])
BROKEN = os.environ.get("FAKE_BREAK", "")


def flag(arguments: list[str], name: str) -> str:
    return next((a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")), "")


def jobs() -> list[dict[str, Any]]:
    path = STATE / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else []


def keep(found: list[dict[str, Any]]) -> None:
    (STATE / "jobs.json").write_text(json.dumps(found))


def stop(job: dict[str, Any], state: str) -> None:
    """SIGTERM, which drains, and waits for the end."""
    if job["pid"]:
        os.kill(job["pid"], signal.SIGTERM)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{job['pid']}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    job.update(state=state, pid=0)


def launch(arguments: list[str]) -> int:
    _, separator, given = flag(arguments, "--parameters").split("^", 2)
    flags = [f"--{pair}" for pair in given.split(separator) if not pair.startswith("sdk_container_image=")]
    if BROKEN == "repeats":
        flags = [flag for flag in flags if not flag.startswith("--id_attribute=")]
    found = jobs()
    for job in found:
        if job["state"] == "JOB_STATE_RUNNING":
            assert "--update" in arguments, "a second job of that name"
            stop(job, "JOB_STATE_UPDATED")
    pid = 0
    if BROKEN not in ("launch", "stuck"):
        with (STATE / "job.log").open("ab") as log:
            command = [sys.executable, "-m", "pipeline.main", "--runner=DirectRunner", "--engine=torch", *flags]
            pid = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True).pid
    state = {"launch": "JOB_STATE_FAILED", "stuck": "JOB_STATE_QUEUED"}.get(BROKEN, "JOB_STATE_RUNNING")
    keep([*found, {"id": f"job-{len(found)}", "state": state, "pid": pid}])
    return 0


def gcloud(arguments: list[str]) -> int:
    words = " ".join(a for a in arguments if not a.startswith("-"))
    if words.startswith("builds submit"):
        return 1 if BROKEN == "build" else 0
    if words.startswith("dataflow flex-template build"):
        (STATE / "spec.json").write_text(
            json.dumps({"image": flag(arguments, "--image"), "metadata": {"parameters": [1, 2, 3]}})
        )
    elif words.startswith("storage cat"):
        print((STATE / "spec.json").read_text())
    elif words.startswith("artifacts docker images describe"):
        print("[{'build': 'sha256:0'}]")
    elif words.startswith("dataflow flex-template run"):
        return launch(arguments)
    elif words.startswith("dataflow jobs list"):
        found = [job for job in jobs() if "--status=all" in arguments or job["state"] == "JOB_STATE_RUNNING"]
        print("\n".join(job["id"] for job in found[-1:]))
    elif words.startswith("dataflow jobs describe"):
        print(next(job["state"] for job in jobs() if job["id"] == arguments[3]))
    elif words.startswith(("dataflow jobs drain", "dataflow jobs cancel")):
        found = jobs()
        job = next(job for job in found if job["id"] == arguments[3])
        stop(job, "JOB_STATE_DRAINED" if "drain" in words else "JOB_STATE_CANCELLED")
        keep(found)
    return 0


def terraform(arguments: list[str]) -> int:
    command = next(a for a in arguments if not a.startswith("-"))
    if command == "apply":
        from pipeline.emulators import setup

        resources = setup.Resources.named(os.environ["PROJECT"], os.environ["NAME"])
        setup.create(resources)
        (STATE / "flags").write_text(" ".join(resources.flags()))
    elif command == "destroy":
        return 1 if BROKEN == "destroy" else 0
    elif command == "output" and arguments[-1] == "flags":
        print((STATE / "flags").read_text(), end="")
    elif command == "output":
        print(f"export PROJECT={os.environ['PROJECT']} REGION=r NAME={os.environ['NAME']}")
        print("export BUCKET=b REPOSITORY=images\nexport WORKER_SERVICE_ACCOUNT=worker@example.com", end="")
    return 0


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    with (STATE / "commands").open("a") as file:
        file.write(shlex.join([program, *rest]) + "\n")
    sys.exit({"gcloud": gcloud, "terraform": terraform}[program](rest))
