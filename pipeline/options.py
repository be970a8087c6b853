"""Every flag: its type, default, help and validation. README and template metadata are checked against this table."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jmespath
import jmespath.exceptions
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from transforms.window import Windowing

_LOGGER = logging.getLogger(__name__)


class UsageError(ValueError):
    """Something about the flags or what they name is wrong; its text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``parse`` turns its text into its value, or raises ValueError with the cause and the way out.

    A wrong value is not repeated in the error where it may be a ``secret`` pasted by mistake. ``regex`` is for the
    template's form, where it differs from what ``parse`` knows of itself.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = str
    default: str | None = None
    required: bool = False
    choices: tuple[str, ...] = ()
    group: str = "Model"
    secret: bool = False
    regex: str | None = None


@dataclass(frozen=True, slots=True)
class TableName:
    """A BigQuery table."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"


@dataclass(frozen=True, slots=True)
class _matching:
    """Takes text that matches ``pattern`` whole."""

    kind: str
    pattern: str
    use: str

    def __call__(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"not a {self.kind}; use {self.use}")
        return text


_PROJECT = r"[a-z][-a-z0-9:.]{4,61}[a-z0-9]"
#: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_RESOURCE = r"(?!goog)[A-Za-z][A-Za-z0-9._~%+-]{2,254}"
_topic = _matching("topic", f"projects/{_PROJECT}/topics/{_RESOURCE}", "projects/PROJECT/topics/TOPIC")
_subscription = _matching(
    "subscription", f"projects/{_PROJECT}/subscriptions/{_RESOURCE}", "projects/PROJECT/subscriptions/SUBSCRIPTION"
)
_endpoint = _matching(
    "URL", r"https?://[^\s/]+(/\S*)?|provider:[a-z][a-z0-9-]*", "https://HOST/PATH, provider:auto or provider:NAME"
)
_attribute = _matching(
    "Pub/Sub attribute key", r"(?!goog)[^\s]{1,256}", "up to 256 characters that do not begin with goog"
)
_token_source = _matching(
    "token source",
    r"env:[A-Za-z_]\w*|file:\S+|secret:projects/[^/]+/secrets/[^/]+/versions/[^/]+",
    "env:NAME, file:PATH or secret:projects/PROJECT/secrets/SECRET/versions/latest; never the token itself",
)


_TABLE = rf"({_PROJECT})[:.]([A-Za-z0-9_]{{1,1024}})\.([\w-]{{1,1024}})"


def table_name(text: str) -> TableName:
    found = re.fullmatch(_TABLE, text)
    if not found:
        raise ValueError("not a table; use PROJECT:DATASET.TABLE")
    return TableName(*found.groups())


@dataclass(frozen=True, slots=True)
class _integer:
    """Takes a whole number from ``least`` to ``most``."""

    least: int
    most: int
    pattern: ClassVar[str] = r"[+-]?\d{1,18}"

    def __call__(self, text: str) -> int:
        if not re.fullmatch(self.pattern, text) or not self.least <= int(text) <= self.most:
            raise ValueError(f"use a whole number from {self.least} to {self.most}")
        return int(text)


#: A plain decimal number; Python's own notation for floats is accepted too, where there is no form to fill in.
_DECIMAL = r"\d+(\.\d+)?"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ValueError("use seconds, more than 0 and up to 86400")
    return value


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f'not JSON ({error}); use an object such as {{"top_k": 3}}') from None
    if not isinstance(value, dict):
        raise ValueError('not a JSON object; use one such as {"top_k": 3}')
    return value


def _jmespath(text: str) -> str:
    try:
        jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as error:
        words = " ".join(str(error).split())
        raise ValueError(f"not a JMESPath expression ({words}); see https://jmespath.org") from None
    return text


_IO, _BATCH, _AUDIT, _WATCH = "Messages", "Windows and batches", "Audit", "Watching"
_REMOTE = "Remote endpoint"

FLAGS: tuple[Flag, ...] = (
    Flag("input_subscription", "Pub/Sub subscription to read", _subscription, required=True, group=_IO),
    Flag("output_topic", "Pub/Sub topic for results", _topic, required=True, group=_IO),
    Flag(
        "dead_letter_topic",
        "Pub/Sub topic for messages that could not become a result",
        _topic,
        required=True,
        group=_IO,
    ),
    Flag("input_path", "JMESPath that picks the model's input out of any JSON body", _jmespath, group=_IO),
    Flag(
        "id_attribute",
        "attribute that identifies a message; repeats within ten minutes are dropped",
        _attribute,
        group=_IO,
    ),
    Flag(
        "timestamp_attribute",
        "attribute with the event time, in RFC 3339 or milliseconds since the epoch; without it, the publish time",
        _attribute,
        group=_IO,
    ),
    Flag("model", "hub id, local folder or gs:// folder; with --endpoint, the id that the endpoint knows the model by"),
    Flag("revision", "branch, tag or commit of a hub model"),
    Flag(
        "task", "Hugging Face task, such as text-classification; inferred from the model's configuration when left out"
    ),
    Flag(
        "inference_params",
        "parameters for every message, as a JSON object; a message's own override them",
        _json_object,
    ),
    Flag(
        "device",
        "where the model runs; auto takes CUDA where there is one",
        default="auto",
        choices=("auto", "cpu", "cuda"),
    ),
    Flag(
        "dtype",
        "number format; auto takes bfloat16 where it is faster than float32",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Flag(
        "on_too_long",
        "what becomes of an input over the model's maximum length",
        default="truncate",
        choices=("truncate", "dead_letter"),
    ),
    Flag("model_copies", "copies of the model a worker loads, sharing its cores", _integer(1, 64), "1"),
    Flag("time_limit_s", "longest a text generation may take, in seconds", _seconds, regex=_DECIMAL),
    Flag(
        "window",
        "event-time windows: fixed:SECONDS, sliding:SIZE:PERIOD, session:GAP or global",
        Windowing.parse,
        "fixed:60",
        regex=rf"(fixed|session):{_DECIMAL}|sliding:{_DECIMAL}:{_DECIMAL}|global",
        group=_BATCH,
    ),
    Flag("max_batch_size", "most elements in one forward of the model", _integer(1, 10_000), "512", group=_BATCH),
    Flag(
        "max_batch_tokens",
        "most tokens in one forward, padding included; without it, 1024 on a CPU and 65536 on a GPU",
        _integer(16, 10_000_000),
        group=_BATCH,
    ),
    Flag(
        "max_batch_latency_ms",
        "longest a message waits for others to share its batch; without it, a batch is what is there",
        _integer(1, 600_000),
        group=_BATCH,
    ),
    Flag(
        "audit_table",
        "BigQuery table, PROJECT:DATASET.TABLE, that gets one row a message",
        table_name,
        group=_AUDIT,
        regex=_TABLE,
    ),
    Flag(
        "audit_input",
        "what the audit row holds of the input: nothing, its SHA-256, or all of it",
        default="hash",
        choices=("none", "hash", "full"),
        group=_AUDIT,
    ),
    Flag(
        "summary_table",
        "BigQuery table, PROJECT:DATASET.TABLE, with one row a window: counts, quantiles, drift; needs --audit_table",
        table_name,
        group=_WATCH,
        regex=_TABLE,
    ),
    Flag("metrics_file", "file that a job on this machine keeps Beam's metrics in, as JSON", group=_WATCH),
    Flag(
        "log_format",
        "lines for a person, or JSON objects as Cloud Logging reads them",
        default="text",
        choices=("text", "json"),
        group=_WATCH,
    ),
    Flag(
        "endpoint",
        "endpoint to ask in place of local weights: its URL, or provider:NAME (provider:auto) for Inference Providers",
        _endpoint,
        group=_REMOTE,
    ),
    Flag(
        "hf_token_source",
        "where the Hugging Face token is read at run time: env:NAME, file:PATH or secret:projects/…/versions/latest",
        _token_source,
        group=_REMOTE,
        secret=True,
    ),
    Flag(
        "endpoint_timeout_s", "longest one request may take, in seconds", _seconds, "30", group=_REMOTE, regex=_DECIMAL
    ),
    Flag(
        "endpoint_max_wait_s",
        "longest a bundle waits for a stalled endpoint before it fails and is delivered again",
        _seconds,
        "600",
        group=_REMOTE,
        regex=_DECIMAL,
    ),
    Flag(
        "endpoint_concurrency",
        "most requests under way at once, per worker process",
        _integer(1, 1024),
        "16",
        group=_REMOTE,
    ),
)


class InferenceOptions(PipelineOptions):
    """The flags of :data:`FLAGS` as Beam options, so that they travel with the job; values stay text."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        groups = {name: parser.add_argument_group(name) for name in dict.fromkeys(flag.group for flag in FLAGS)}
        for flag in FLAGS:
            groups[flag.group].add_argument(f"--{flag.name}", default=flag.default, help=help_text(flag))


def help_text(flag: Flag) -> str:
    """``flag``'s help with its choices and default."""
    notes = [
        *([" | ".join(flag.choices)] if flag.choices else []),
        *([f"default {flag.default}"] if flag.default else []),
    ]
    return f"{flag.help} ({'; '.join(notes)})" if notes else flag.help


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags, parsed; a field is named as its flag. ``local`` says whether this machine runs the job."""

    input_subscription: str
    output_topic: str
    dead_letter_topic: str
    model: str | None = None
    revision: str | None = None
    task: str | None = None
    inference_params: Mapping[str, Any] = field(default_factory=dict)
    input_path: str | None = None
    id_attribute: str | None = None
    timestamp_attribute: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    on_too_long: str = "truncate"
    model_copies: int = 1
    time_limit_s: float | None = None
    window: Windowing = Windowing("fixed", 60.0)
    max_batch_size: int = 512
    max_batch_tokens: int | None = None
    max_batch_latency_ms: int | None = None
    audit_table: TableName | None = None
    audit_input: str = "hash"
    summary_table: TableName | None = None
    metrics_file: str | None = None
    log_format: str = "text"
    endpoint: str | None = None
    hf_token_source: str | None = None
    endpoint_timeout_s: float = 30.0
    endpoint_max_wait_s: float = 600.0
    endpoint_concurrency: int = 16
    job: str = ""
    local: bool = True


def settings(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """Parses flag texts by name; absent ones are left out.

    Raises:
        UsageError: a value is wrong, or a required flag is missing.
    """
    values = {}
    for flag in FLAGS:
        text = texts.get(flag.name)
        if not text:
            if flag.required:
                raise UsageError(f"--{flag.name} is missing: {flag.help}")
            continue
        if flag.choices and text not in flag.choices:
            raise UsageError(f"--{flag.name} {text!r}: use {' or '.join(flag.choices)}")
        try:
            values[flag.name] = flag.parse(text)
        except ValueError as error:
            raise UsageError(f"--{flag.name}{'' if flag.secret else f' {text!r}'}: {error}") from None
    return values


def parse(argv: Sequence[str]) -> tuple[Settings, PipelineOptions]:
    """The job's settings, and Beam's options with streaming on.

    Raises:
        UsageError: naming the flag, its value and the way out.
    """
    _refuse_unknown(argv)
    # Streaming must be set before the run, or Dataflow keeps the writes as plain steps. No main session: nothing in
    # the graph lives in __main__, and a pickled one would carry whatever the launcher had there.
    options = PipelineOptions(list(argv), streaming=True, save_main_session=False)
    values = settings({flag.name: getattr(options.view_as(InferenceOptions), flag.name) for flag in FLAGS})
    _check_together(values)
    runner = options.view_as(StandardOptions).runner
    local = runner is None or runner.rpartition(".")[2] in ("DirectRunner", "BundleBasedDirectRunner")
    job = options.view_as(GoogleCloudOptions).job_name or values["input_subscription"].rpartition("/")[2]
    if "metrics_file" in values and not local:
        raise UsageError(
            f"--metrics_file {values['metrics_file']!r}: for a job on this machine; a service keeps its metrics"
        )
    return Settings(**values, job=job, local=local), options


def _check_together(values: Mapping[str, Any]) -> None:
    if "model" not in values and "endpoint" not in values:
        raise UsageError("set one of --model (local weights) and --endpoint (a remote Hugging Face endpoint)")
    if "model" not in values and values["endpoint"].startswith("provider:"):
        raise UsageError(f"--endpoint {values['endpoint']!r} needs --model: the hub id that it shall run")
    if "endpoint" in values and "task" not in values:
        raise UsageError("--endpoint needs --task: a URL does not say what its model does")
    if values["output_topic"] == values["dead_letter_topic"]:
        raise UsageError(
            f"--dead_letter_topic {values['dead_letter_topic']!r}: it is also --output_topic; use another topic"
        )
    if "summary_table" in values:
        if "audit_table" not in values:
            raise UsageError("--summary_table needs --audit_table: summaries are made from its rows")
        if values["window"].kind not in ("fixed", "sliding"):
            raise UsageError(f"--summary_table does not go with --window {values['window'].kind}; use fixed or sliding")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(message)


def _refuse_unknown(argv: Sequence[str]) -> None:
    """Beam drops flags it does not know with a warning; a misspelt one must stop the launch."""
    parser = _Parser(prog="python -m pipeline.main", allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)  # type: ignore[arg-type] # any parser will do
    known, unknown = parser.parse_known_args(list(argv))
    if not unknown:
        return
    if getattr(known, "template_location", None):
        # The template service has checked the user's flags against the metadata, and its launcher may add its own.
        _LOGGER.warning("left out, as Beam does not know them: %s", " ".join(unknown))
        return
    names = [option for action in parser._actions for option in action.option_strings]
    name = unknown[0].partition("=")[0]
    near = difflib.get_close_matches(name, names, 1)
    raise UsageError(f"{unknown[0]!r}: no such flag" + (f"; did you mean {near[0]}?" if near else "; see --help"))


def print_help() -> None:
    """Prints the pipeline's own flags; Beam's are added to them."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.main",
        description="Streams messages through a Hugging Face model. Beam's own flags (--runner, …) work too.",
        add_help=False,
    )
    InferenceOptions._add_argparse_args(parser)
    parser.print_help(sys.stdout)
