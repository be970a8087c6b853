"""What a job on Dataflow needs set, and cannot have together, beyond its own flags."""

from __future__ import annotations

import dataclasses

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

import transforms
from pipeline.flags import UsageError
from pipeline.options import Settings
from transforms.models.gather import KEYS

#: Threads of the one process beside a GPU: one for each key that gathers, so that the model always has a batch, and as
#: many to write rows. Each may hold a batch, so more of them cost memory and gain nothing.
GPU_THREADS = 2 * KEYS

_AT_LEAST_ONCE = "streaming_mode_at_least_once"
_PROCESSES = ("use_multiple_sdk_containers", "no_use_multiple_sdk_containers")


def prepare(settings: Settings, options: PipelineOptions) -> Settings:
    """Completes ``options`` for a job on Dataflow, and does nothing for others; what the user set stays.

    Returns the settings: a job that pays for accelerators runs on them, or fails at start.

    Raises:
        UsageError: two of them do not go together.
    """
    if (options.view_as(StandardOptions).runner or "").rpartition(".")[2] != "DataflowRunner":
        return settings
    asked = services(options)
    if settings.id_attribute and _AT_LEAST_ONCE in asked:
        raise UsageError(
            f"--id_attribute {settings.id_attribute!r}: nothing is deduplicated in at-least-once mode; "
            "leave the flag out, or run with exactly-once"
        )
    setup, worker = options.view_as(SetupOptions), options.view_as(WorkerOptions)
    if not (worker.sdk_container_image or setup.setup_file or setup.extra_packages):
        raise UsageError(
            "--sdk_container_image is missing: workers would not have this package; "
            "give the image that templates/deploy.sh build made, or --setup_file=./setup.py"
        )
    brings_torch = worker.sdk_container_image or setup.requirements_file or setup.extra_packages
    if not (settings.endpoint or brings_torch):
        raise UsageError(
            f"--setup_file {setup.setup_file!r}: it installs no torch on the workers, which --model needs; add "
            "--requirements_file=FILE with the lines torch, transformers and safetensors, or give an image in its place"
        )
    # A worker imports it before it unpickles Beam's RunInference, which imports torch.
    setup.beam_plugins = [*(setup.beam_plugins or []), transforms.__name__]
    debug = options.view_as(DebugOptions)
    accelerator = _accelerator(options)
    if accelerator and (settings.endpoint or settings.device == "cpu"):
        unused = "--endpoint" if settings.endpoint else "--device=cpu"
        raise UsageError(f"{accelerator!r}: {unused} makes no use of it; leave one of them out")
    if accelerator:
        # A process a core would each put a model of its own on the one GPU.
        if not any(debug.lookup_experiment(name) for name in _PROCESSES):
            debug.add_experiment("no_use_multiple_sdk_containers")
        if debug.number_of_worker_harness_threads is None:
            debug.number_of_worker_harness_threads = GPU_THREADS
        # Not "auto": on a worker whose driver does not fit, the job would run on the CPU, at a GPU's price.
        return dataclasses.replace(settings, device="cuda")
    return settings


def _accelerator(options: PipelineOptions) -> str | None:
    """What asks for accelerators: a service option, or a hint for all steps."""
    hints = options.view_as(StandardOptions).resource_hints or []
    asked = [each for each in services(options) if each.startswith("worker_accelerator=")]
    asked += [each for each in hints if "accelerator" in each.partition("=")[0]]
    return asked[0] if asked else None


def services(options: PipelineOptions) -> list[str]:
    """Service options, some of which used to be experiments and are still accepted as such."""
    return [
        *(options.view_as(GoogleCloudOptions).dataflow_service_options or []),
        *(options.view_as(DebugOptions).experiments or []),
    ]
