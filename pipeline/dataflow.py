"""What a job on Dataflow needs set, and cannot have together, beyond its own flags."""

from __future__ import annotations

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

#: Threads of the one process beside a GPU: one runs the model, one prepares the next batch, the others wait for the
#: audit table. Each holds a batch, so more of them cost memory and gain nothing.
GPU_THREADS = 4

_AT_LEAST_ONCE = "streaming_mode_at_least_once"
_PROCESSES = ("use_multiple_sdk_containers", "no_use_multiple_sdk_containers")


def prepare(settings: Settings, options: PipelineOptions) -> None:
    """Completes ``options`` for a job on Dataflow, and does nothing for others; what the user set stays.

    Raises:
        UsageError: two of them do not go together.
    """
    if (options.view_as(StandardOptions).runner or "").rpartition(".")[2] != "DataflowRunner":
        return
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
    if any(service.startswith("worker_accelerator=") for service in asked):
        # A process a core would each put a model of its own on the one GPU.
        if not any(debug.lookup_experiment(name) for name in _PROCESSES):
            debug.add_experiment("no_use_multiple_sdk_containers")
        if debug.number_of_worker_harness_threads is None:
            debug.number_of_worker_harness_threads = GPU_THREADS


def services(options: PipelineOptions) -> list[str]:
    """Service options, some of which used to be experiments and are still accepted as such."""
    return [
        *(options.view_as(GoogleCloudOptions).dataflow_service_options or []),
        *(options.view_as(DebugOptions).experiments or []),
    ]
