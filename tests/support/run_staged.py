"""Runs a staged pipeline on worker processes: ``python run_staged.py PIPELINE.pb MESSAGES OUT PYTHON``.

The pipeline is the very proto that was staged for Dataflow. Only its two kinds of endpoint are exchanged: the native
read becomes the messages in the file MESSAGES (a pickled list of serialised PubsubMessages), the native writes become
files in the folder OUT, one for each topic and worker process. Its code runs in two processes of PYTHON; when one of
them dies the run ends with 1, for the runner would wait for it.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

READ, WRITE = "beam:transform:pubsub_read:v1", "beam:transform:pubsub_write:v1"


class Keep(beam.DoFn):
    """Appends what would be published to a file; pickled by value, as this is ``__main__``."""

    def __init__(self, folder: str):
        self.folder = folder

    def process(self, data: bytes) -> None:
        with Path(self.folder, str(os.getpid())).open("ab") as file:
            pickle.dump(data, file)


class Source(beam.PTransform):
    """``messages``, spread over the workers, each with its publish time as the native source gives it."""

    def __init__(self, messages: list[bytes]):
        super().__init__()
        self.messages = messages

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[bytes]:
        return (
            pbegin
            | beam.Create(self.messages)
            | beam.Map(lambda data: beam.window.TimestampedValue(data, 1_700_000_000)).with_output_types(bytes)
            | beam.Reshuffle()
        )


def stand_ins(messages: list[bytes], folders: list[str]) -> beam_runner_api_pb2.Pipeline:
    """A pipeline with the source and a sink for each folder, in the order of their names."""
    pipeline = beam.Pipeline()
    source = pipeline | "Source" >> Source(messages)
    for number, folder in enumerate(folders):
        source | f"Sink{number}" >> beam.ParDo(Keep(folder))
    return pipeline.to_runner_api(context=PipelineContext(namespace="stand_in"))


def exchange(staged: beam_runner_api_pb2.Pipeline, messages: list[bytes], out: Path) -> None:
    """Exchanges the endpoints of ``staged``, in place."""
    transforms = staged.components.transforms
    (read,) = (name for name, transform in transforms.items() if transform.spec.urn == READ)
    writes = {transform.unique_name: transform for transform in transforms.values() if transform.spec.urn == WRITE}
    folders = []
    for name in sorted(writes):
        payload = beam_runner_api_pb2.PubSubWritePayload.FromString(writes[name].spec.payload)
        folders.append(out / payload.topic.rpartition("/")[2])
        folders[-1].mkdir(parents=True)
    stand_in = stand_ins(messages, [str(folder) for folder in folders])
    found = {transform.unique_name: (key, transform) for key, transform in stand_in.components.transforms.items()}
    for number, name in enumerate(sorted(writes)):
        writes[name].spec.CopyFrom(found[f"Sink{number}"][1].spec)
    key, source = found["Source"]
    (environment,) = staged.components.environments
    added = stand_in.components
    sinks = [key for name, (key, _) in found.items() if name.startswith("Sink")]
    for name in [*sinks, *(i for i, t in added.transforms.items() if not t.unique_name.startswith("Source"))]:
        added.transforms.pop(name, None)
    for transform in added.transforms.values():
        transform.environment_id = environment if transform.environment_id else ""
    for windowing in added.windowing_strategies.values():
        windowing.environment_id = environment
    for kind in ("transforms", "pcollections", "windowing_strategies", "coders"):
        for name, component in getattr(added, kind).items():
            getattr(staged.components, kind)[name].CopyFrom(component)
    staged.root_transform_ids.append(key)
    (before,), (after,) = transforms[read].outputs.values(), source.outputs.values()
    del transforms[read]
    for transform in transforms.values():
        if read in transform.subtransforms:
            transform.subtransforms.remove(read)
        for mapping in (transform.inputs, transform.outputs):
            for tag in [tag for tag, pcollection in mapping.items() if pcollection == before]:
                mapping[tag] = after
    for pcollection in staged.components.pcollections.values():
        pcollection.is_bounded = beam_runner_api_pb2.IsBounded.BOUNDED


def end_with_workers() -> None:
    run = SubprocessSdkWorker.run

    def run_or_end(worker: SubprocessSdkWorker) -> None:
        try:
            run(worker)
        except RuntimeError as error:
            logging.error("%s", error)
            os._exit(1)

    SubprocessSdkWorker.run = run_or_end


def main(pipeline_file: str, messages_file: str, out: str, python: str) -> None:
    logging.basicConfig(level=logging.INFO)
    end_with_workers()
    staged = beam_runner_api_pb2.Pipeline.FromString(Path(pipeline_file).read_bytes())
    exchange(staged, pickle.loads(Path(messages_file).read_bytes()), Path(out))
    for environment in staged.components.environments.values():
        environment.urn = python_urns.SUBPROCESS_SDK
        environment.payload = f"{python} -m apache_beam.runners.worker.sdk_worker_main".encode()
        del environment.dependencies[:]
        environment.capabilities.remove(common_urns.protocols.DATA_SAMPLING.urn)
    options = PipelineOptions(direct_num_workers=2, direct_running_mode="multi_processing")
    runner = FnApiRunner()
    runner._num_workers = 2  # which run_pipeline would read from the options, but not run_via_runner_api
    runner.run_via_runner_api(staged, options).wait_until_finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
