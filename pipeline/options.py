"""Every flag of the job: type, default, help, validation. README's table and the template's metadata are made of it."""

from __future__ import annotations

import argparse
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import beam_flags, flags
from pipeline.flags import Flag, UsageError, help_text
from pipeline.matchers import (
    COUNT,
    DECIMAL,
    PORT,
    SERVICE_ACCOUNT,
    SUBSCRIPTION,
    TABLE,
    TOKEN_SOURCE,
    TOPIC,
    Attribute,
    Endpoint,
    Integer,
    TableName,
    jmespath_expression,
    json_object,
    path,
    positive,
    seconds,
    table_name,
)
from transforms.envelopes import FORMATS
from transforms.kept import KEPT
from transforms.windowing import Windowing

_IO, _MODEL, _BATCH, _AUDIT = "Messages", "Model", "Windows and batches", "Audit"
_WATCH, _REMOTE = "Watching", "Remote endpoint"


def attribute_names(given: str) -> frozenset[str] | None:
    """``all`` (None), ``none``, or names of attributes with commas between."""
    if given in ("all", "none"):
        return None if given == "all" else frozenset()
    names = [name.strip() for name in given.split(",")]
    if not all(names):
        raise ValueError("a name is empty; use all, none, or names such as customer,source")
    return frozenset(names)


_ADDRESS = r"([A-Za-z0-9.-]+:|\[[0-9A-Fa-f:]+\]:)?\d{1,5}"


def address(given: str) -> tuple[str, int]:
    """``PORT`` on loopback, or ``HOST:PORT``."""
    if not re.fullmatch(_ADDRESS, given, re.ASCII):
        raise ValueError("use a port, 0 for any free one, or HOST:PORT")
    host, _, port = given.rpartition(":")
    return host.strip("[]") or "127.0.0.1", PORT(port)


FLAGS: tuple[Flag, ...] = (
    Flag("input_subscription", "Pub/Sub subscription to read", SUBSCRIPTION, required=True, group=_IO),
    Flag("output_topic", "Pub/Sub topic for results", TOPIC, required=True, group=_IO),
    Flag(
        "dead_letter_topic",
        "Pub/Sub topic for messages that could not become a result",
        TOPIC,
        required=True,
        group=_IO,
    ),
    Flag(
        "input_format",
        "what messages come in: auto opens Pub/Sub schemas, CloudEvents and push envelopes, and json opens nothing",
        default="auto",
        choices=FORMATS,
        group=_IO,
    ),
    Flag("input_path", "JMESPath that picks the model's input out of any JSON body", jmespath_expression, group=_IO),
    Flag(
        "result_input",
        "what a result holds of its input: nothing, the model's inputs, or the message's whole body",
        default="none",
        choices=KEPT,
        group=_IO,
    ),
    Flag(
        "id_attribute",
        "attribute that identifies a message; repeats within ten minutes are dropped",
        Attribute(),
        group=_IO,
    ),
    Flag(
        "timestamp_attribute",
        "attribute with the event time, in RFC 3339 or milliseconds since the epoch; without it, the publish time",
        Attribute(),
        group=_IO,
    ),
    Flag(
        "model",
        "hub id, local folder or gs:// folder; with --endpoint, the id that the endpoint knows the model by",
        group=_MODEL,
    ),
    Flag(
        "models",
        "file on this machine or in gs:// that names several models and which answers what, in place of --model",
        group=_MODEL,
    ),
    Flag(
        "models_refresh_s",
        "seconds between two looks for new versions of --models",
        seconds,
        "60",
        group=_MODEL,
        regex=DECIMAL,
    ),
    Flag(
        "models_memory",
        "bytes of memory that the models of --models may take; without it, 60 % of the container's or of the GPU's",
        Integer(1, 10**15),
        group=_MODEL,
    ),
    Flag("revision", "branch, tag or commit of a hub model", group=_MODEL),
    Flag(
        "task",
        "Hugging Face task, such as text-classification; inferred from the model's configuration when left out",
        group=_MODEL,
    ),
    Flag(
        "inference_params",
        "parameters for every message, as a JSON object; a message's own override them",
        json_object,
        group=_MODEL,
    ),
    Flag(
        "engine",
        "what runs the model; auto takes OpenVINO where it is installed, faster than torch and of the same answers",
        default="auto",
        choices=("auto", "torch", "openvino"),
        group=_MODEL,
    ),
    Flag(
        "device",
        "where the model runs; auto takes CUDA where there is one",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        group=_MODEL,
    ),
    Flag(
        "dtype",
        "number format; auto takes bfloat16 where it is faster than float32",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        group=_MODEL,
    ),
    Flag(
        "on_too_long",
        "what becomes of an input over the model's maximum length; chunk gives each text's embeddings in pieces",
        default="truncate",
        choices=("truncate", "dead_letter", "chunk"),
        group=_MODEL,
    ),
    Flag("model_copies", "copies of the model a worker loads, sharing its cores", Integer(1, 64), "1", group=_MODEL),
    Flag("time_limit_s", "longest a text generation may take, in seconds", seconds, group=_MODEL, regex=DECIMAL),
    Flag(
        "max_deaths",
        "worker processes that a message may end before it is a dead letter",
        Integer(1, 100),
        "2",
        group=_MODEL,
    ),
    Flag(
        "max_forward_s",
        "longest one forward may take before its process is ended; without it, 600, and none for a generation on a CPU",
        seconds,
        group=_MODEL,
        regex=DECIMAL,
    ),
    Flag(
        "window",
        "event-time windows: fixed:SECONDS, sliding:SIZE:PERIOD, session:GAP or global",
        Windowing.parse,
        "fixed:60",
        regex=rf"(fixed|session):{DECIMAL}|sliding:{DECIMAL}:{DECIMAL}|global",
        group=_BATCH,
    ),
    Flag(
        "allowed_lateness",
        "seconds after its end for which a window still takes messages into its summary",
        Integer(0, 366 * 86_400),
        "3600",
        group=_BATCH,
    ),
    Flag(
        "window_early_s",
        "seconds between early panes of a window that is still open; without it, there are none",
        Integer(1, 86_400),
        group=_BATCH,
    ),
    Flag("max_batch_size", "most elements in one forward of the model", Integer(1, 10_000), "512", group=_BATCH),
    Flag(
        "max_batch_tokens",
        "most tokens in one forward, padding included; without it, 1024 on a CPU and 65536 on a GPU",
        Integer(16, 10_000_000),
        group=_BATCH,
    ),
    Flag(
        "max_bundle_ms",
        "about how long the model is kept by what is taken at once, on this machine; without it, it is what is there",
        Integer(1, 600_000),
        group=_BATCH,
    ),
    Flag(
        "max_batch_latency_ms",
        "longest a message waits for others to share its batch; without it, a batch is what is there",
        Integer(1, 600_000),
        group=_BATCH,
    ),
    Flag(
        "audit_table",
        "BigQuery table, PROJECT:DATASET.TABLE, that gets one row a message",
        table_name,
        group=_AUDIT,
        regex=TABLE,
    ),
    Flag(
        "audit_input",
        "what the audit row holds of the input: nothing, its SHA-256, or all of it",
        default="hash",
        choices=("none", "hash", "full"),
        group=_AUDIT,
    ),
    Flag(
        "audit_prediction",
        "whether the audit row holds what the model answered",
        default="full",
        choices=("full", "none"),
        group=_AUDIT,
    ),
    Flag(
        "audit_attributes",
        "which of the input's attributes the row holds: none, or names with commas between; without it, all",
        attribute_names,
        group=_AUDIT,
    ),
    Flag(
        "summary_table",
        "BigQuery table, PROJECT:DATASET.TABLE, with a row a pane of each window: counts, quantiles, drift",
        table_name,
        group=_WATCH,
        regex=TABLE,
    ),
    Flag("summary_topic", "Pub/Sub topic that gets the same, a message a pane", TOPIC, group=_WATCH),
    Flag("metrics_file", "file that a job on this machine keeps Beam's metrics in, as JSON", path, group=_WATCH),
    Flag(
        "health_port",
        "port, or HOST:PORT, where a job on this machine serves /live, /ready and /metrics (Prometheus); of 127.0.0.1 "
        "where no host is given",
        address,
        group=_WATCH,
        regex=_ADDRESS,
    ),
    Flag(
        "log_format",
        "lines of this machine or the launcher: text, or JSON as Cloud Logging reads it; workers' are Beam's to send",
        default="text",
        choices=("text", "json"),
        group=_WATCH,
    ),
    Flag(
        "endpoint",
        "endpoint to ask in place of local weights: its URL, vertex:projects/P/locations/L/endpoints/ID, or "
        "provider:NAME (provider:auto) for Inference Providers",
        Endpoint(),
        group=_REMOTE,
    ),
    Flag(
        "endpoint_auth",
        "what the endpoint is shown: --hf_token_source's token, the worker's Google access token or ID token, or "
        "nothing; without it, hf with such a source, google for Google's own hosts, google-id for Cloud Run, else none",
        choices=("hf", "google", "google-id", "none"),
        group=_REMOTE,
    ),
    Flag(
        "endpoint_impersonate",
        "service account to show the endpoint in place of the worker's own",
        SERVICE_ACCOUNT,
        group=_REMOTE,
    ),
    Flag(
        "hf_token_source",
        "where the Hugging Face token is read at run time: env:NAME, file:PATH or secret:projects/…/versions/latest",
        TOKEN_SOURCE,
        group=_REMOTE,
        secret=True,
    ),
    Flag("endpoint_timeout_s", "longest one request may take, in seconds", seconds, "30", group=_REMOTE, regex=DECIMAL),
    Flag(
        "endpoint_max_wait_s",
        "longest a bundle waits for a stalled endpoint before it fails and is delivered again",
        seconds,
        "600",
        group=_REMOTE,
        regex=DECIMAL,
    ),
    Flag(
        "endpoint_concurrency",
        "most requests under way at once, per worker process",
        Integer(1, 1024),
        "16",
        group=_REMOTE,
    ),
    Flag(
        "endpoint_requests_per_s",
        "most requests a second, per worker process",
        positive,
        group=_REMOTE,
        regex=DECIMAL,
    ),
    Flag(
        "endpoint_tokens_per_min", "most tokens a minute, read and generated, per worker process", COUNT, group=_REMOTE
    ),
    Flag(
        "endpoint_hedge_after_s",
        "seconds after which a request without an answer is sent once more, one in ten at the most; without it, never",
        seconds,
        group=_REMOTE,
        regex=DECIMAL,
    ),
    Flag(
        "endpoint_cache_mib",
        "MiB of answers kept per worker process, given again to the same question; without it, none",
        Integer(1, 65_536),
        group=_REMOTE,
    ),
)


class InferenceOptions(PipelineOptions):
    """The flags of :data:`FLAGS` as Beam options, so that they travel with the job; values stay text."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        for flag in FLAGS:
            parser.add_argument(f"--{flag.name}", default=flag.default, help=help_text(flag).replace("%", "%%"))


_BY_NAME = {flag.name: flag for flag in FLAGS}


def _default(name: str) -> Any:
    return _BY_NAME[name].default_value()


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags, parsed; a field is named as its flag. ``local`` says whether this machine runs the job."""

    input_subscription: str
    output_topic: str
    dead_letter_topic: str
    model: str | None = None
    models: str | None = None
    models_refresh_s: float = _default("models_refresh_s")
    models_memory: int | None = None
    revision: str | None = None
    task: str | None = None
    inference_params: Mapping[str, Any] = field(default_factory=dict)
    input_format: str = _default("input_format")
    input_path: str | None = None
    result_input: str = _default("result_input")
    id_attribute: str | None = None
    timestamp_attribute: str | None = None
    engine: str = _default("engine")
    device: str = _default("device")
    dtype: str = _default("dtype")
    on_too_long: str = _default("on_too_long")
    model_copies: int = _default("model_copies")
    time_limit_s: float | None = None
    max_deaths: int = _default("max_deaths")
    max_forward_s: float | None = None
    window: Windowing = _default("window")
    allowed_lateness: int = _default("allowed_lateness")
    window_early_s: int | None = None
    max_batch_size: int = _default("max_batch_size")
    max_batch_tokens: int | None = None
    max_bundle_ms: int | None = None
    max_batch_latency_ms: int | None = None
    audit_table: TableName | None = None
    audit_input: str = _default("audit_input")
    audit_prediction: str = _default("audit_prediction")
    audit_attributes: frozenset[str] | None = None
    summary_table: TableName | None = None
    summary_topic: str | None = None
    metrics_file: Path | None = None
    health_port: tuple[str, int] | None = None
    log_format: str = _default("log_format")
    endpoint: str | None = None
    hf_token_source: str | None = None
    endpoint_timeout_s: float = _default("endpoint_timeout_s")
    endpoint_max_wait_s: float = _default("endpoint_max_wait_s")
    endpoint_concurrency: int = _default("endpoint_concurrency")
    endpoint_auth: str | None = None
    endpoint_impersonate: str | None = None
    endpoint_requests_per_s: float | None = None
    endpoint_tokens_per_min: int | None = None
    endpoint_hedge_after_s: float | None = None
    endpoint_cache_mib: int | None = None
    job: str = ""
    #: One start of the job, unlike any other.
    run: str = field(
        compare=False, default_factory=lambda: f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    )
    local: bool = True


def settings(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """Parses flag texts by name; those that are None and have no default are left out.

    Raises:
        UsageError: a value is wrong, or a required flag is missing.
    """
    given = {name: [text] for name, text in texts.items() if text is not None}
    return {name: value for name, value in flags.values(FLAGS, given).items() if value is not None}


def parse(argv: Sequence[str]) -> tuple[Settings, PipelineOptions]:
    """The job's settings, and Beam's options with streaming on.

    Raises:
        UsageError: naming the flag, its value and the way out.
    """
    texts, others = flags.split(FLAGS, argv)
    last = {name: given[-1] for name, given in texts.items()}
    ours = [f"--{name}={text}" for name, text in last.items()]
    options = beam_flags.options(others, ours, (f"--{flag.name}" for flag in FLAGS))
    values = settings(last)
    _check_together(values)
    local = beam_flags.is_local(options)
    if "models" in values and not local and not values["models"].startswith("gs://"):
        raise UsageError(f"--models {values['models']!r}: workers do not see this machine's files; put it into gs://")
    for name in ("metrics_file", "health_port"):
        if name in values and not local:
            raise UsageError(f"--{name} {last[name]!r}: for a job on this machine; a service keeps its metrics")
    if "max_bundle_ms" in last and not (local and "model" in values and "endpoint" not in values):
        raise UsageError(
            f"--max_bundle_ms {last['max_bundle_ms']!r}: for a job on this machine with a model of its own"
        )
    job = beam_flags.job_name(options) or values["input_subscription"].rpartition("/")[2]
    return Settings(**values, job=job, local=local), options


def _check_models(values: Mapping[str, Any]) -> None:
    for name in ("model", "endpoint", "revision", "task", "endpoint_auth", "endpoint_impersonate"):
        if name in values:
            raise UsageError(f"--{name} {str(values[name])!r}: with --models it stands in the file; leave it out")
    if values.get("inference_params"):
        raise UsageError("--inference_params: with --models it stands in the file, as `parameters`; leave it out")
    if values["model_copies"] != 1:
        raise UsageError(f"--model_copies {values['model_copies']}: models of --models have one copy a worker")


def _check_together(values: Mapping[str, Any]) -> None:
    if "models" in values:
        _check_models(values)
    elif "model" not in values and "endpoint" not in values:
        raise UsageError(
            "set one of --model (local weights), --endpoint (a remote endpoint) and --models (a file that names some)"
        )
    elif "model" not in values and values["endpoint"].startswith("provider:"):
        raise UsageError(f"--endpoint {values['endpoint']!r} needs --model: the hub id that it shall run")
    if "endpoint" in values and values["on_too_long"] == "chunk":
        raise UsageError("--on_too_long 'chunk': an endpoint cuts no text into chunks; use truncate or dead_letter")
    if "endpoint" in values and "task" not in values:
        raise UsageError("--endpoint needs --task: a URL does not say what its model does")
    if values["output_topic"] == values["dead_letter_topic"]:
        raise UsageError(
            f"--dead_letter_topic {values['dead_letter_topic']!r}: it is also --output_topic; use another topic"
        )
    topics = {values["output_topic"]: "--output_topic", values["dead_letter_topic"]: "--dead_letter_topic"}
    if values.get("summary_topic") in topics:
        raise UsageError(
            f"--summary_topic {values['summary_topic']!r}: it is also {topics[values['summary_topic']]}; use another"
        )
    if "summary_table" in values and values["summary_table"] == values.get("audit_table"):
        raise UsageError(
            f"--summary_table {str(values['summary_table'])!r}: it is also --audit_table; use another table"
        )
    if values["window"].kind == "global" and ("summary_table" in values or "summary_topic" in values):
        raise UsageError("--window 'global' has no end to sum up at; use fixed, sliding or session with --summary_…")
