"""What only a job in the cloud needs: project, region, quota, a bucket nearby, and workers with this package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions, WorkerOptions
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage  # type: ignore[attr-defined]

from pipeline import dataflow
from pipeline.checks.finding import Finding, Wrong, asking, flag
from pipeline.checks.identity import credentials
from pipeline.checks.resources import TIMEOUT_S
from pipeline.clients import words
from pipeline.flags import UsageError
from pipeline.options import Settings

#: Quotas of a region that a worker draws on, besides GPUs: https://cloud.google.com/dataflow/quotas#compute-engine-quotas
_QUOTAS = ("CPUS", "DISKS_TOTAL_GB", "IN_USE_ADDRESSES", "INSTANCES")


def check(settings: Settings, options: PipelineOptions) -> Iterator[Finding]:
    """Nothing for a job on this machine."""
    if settings.local:
        return
    given = options.view_as(GoogleCloudOptions)
    for name in ("project", "region", "temp_location"):
        if not getattr(given, name):
            yield Finding(False, f"--{name}", "is missing", "Dataflow needs it")
    try:
        dataflow.prepare(settings, options)
        image = options.view_as(WorkerOptions).sdk_container_image
        yield Finding(True, "workers", f"run {image or options.view_as(SetupOptions).setup_file}")
    except UsageError as error:
        # A flex template brings its own image; a launch without one is refused whatever the doctor says.
        templated = "--sdk_container_image is missing" in str(error)
        yield Finding(
            None if templated else False,
            "workers",
            f"would not run without a template: {error}" if templated else f"would not run: {error}",
        )
    for name, bucket in buckets(options):
        yield from _bucket(name, bucket, given.region)
    if given.project and given.region:
        yield from _region(given.project, given.region, [s for s in dataflow.services(options) if "accelerator" in s])


def buckets(options: PipelineOptions) -> list[tuple[str, str]]:
    """The buckets that the job stages to, each with the flag that names it first."""
    given = options.view_as(GoogleCloudOptions)
    found: dict[str, str] = {}
    for name in ("temp_location", "staging_location"):
        location = getattr(given, name) or ""
        if location.startswith("gs://"):
            found.setdefault(location.removeprefix("gs://").partition("/")[0], name)
    return [(name, bucket) for bucket, name in found.items()]


def storage_client() -> storage.Client:
    """A client with the application default credentials, on the emulator if there is one."""
    return storage.Client(project="unused", credentials=credentials())


def _bucket(name: str, bucket: str, region: str | None) -> Iterator[Finding]:
    subject = flag(name, f"gs://{bucket}")
    create = f"create it with: gcloud storage buckets create gs://{bucket} --location={region or 'REGION'}"
    try:
        with asking(subject, create, "Cloud Storage"):
            location = storage_client().get_bucket(bucket, timeout=TIMEOUT_S, retry=None).location.lower()
    except Wrong as wrong:
        yield wrong.finding
        return
    if region and "-" in location and location != region:
        yield Finding(False, subject, f"is in {location}, the job in {region}: slow, and egress is paid for", create)
    else:
        yield Finding(True, subject, f"is in {location}")


def _region(project: str, region: str, accelerators: list[str]) -> Iterator[Finding]:
    subject = flag("region", region)
    api = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", "https://compute.googleapis.com/compute/v1/")
    try:
        session = AuthorizedSession(credentials())
        answer = session.get(f"{api}projects/{project}/regions/{region}", timeout=TIMEOUT_S)
    except (GoogleAuthError, OSError) as error:
        yield Finding(None, subject, f"could not be asked: {words(error)}")
        return
    if answer.status_code == 404:
        yield Finding(False, subject, f"does not exist in {project}", "gcloud compute regions list shows those that do")
    elif not answer.ok:
        yield Finding(None, subject, f"could not be asked: {answer.status_code} {answer.reason}")
    else:
        yield from _quotas(subject, answer.json().get("quotas", []), accelerators)


def _quotas(subject: str, quotas: list[dict[str, Any]], accelerators: list[str]) -> Iterator[Finding]:
    left = {quota["metric"]: quota["limit"] - quota["usage"] for quota in quotas}
    wanted = [metric for metric in _QUOTAS if metric in left]
    wanted += [metric for service in accelerators for metric in left if metric == _gpu_metric(service)]
    used_up = [metric for metric in wanted if left[metric] < 1]
    if used_up:
        way_out = "ask for more at https://console.cloud.google.com/iam-admin/quotas, or use another region"
        yield Finding(False, subject, f"has no quota left: {', '.join(used_up)}", way_out)
    else:
        rest = ", ".join(f"{left[metric]:g} {metric}" for metric in wanted)
        yield Finding(True, subject, f"has quota left: {rest}" if rest else "exists")


def _gpu_metric(service: str) -> str:
    """``worker_accelerator=type:nvidia-l4;count:1`` → ``NVIDIA_L4_GPUS``, as Compute Engine calls it."""
    kind = service.partition("type:")[2].partition(";")[0]
    name = kind.removeprefix("nvidia-tesla-").removeprefix("nvidia-").upper().replace("-", "_")
    return f"NVIDIA_{name}_GPUS"
