"""Metrics, logs and traces: names as documented, figures that are true, and nothing of a message's contents."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time

import pytest
from streams import ROOT, collect, drain, fresh, job, text_message

from pipeline import logs, publish
from transforms import metrics, tracing
from transforms.records import Message, ModelInfo, Prediction, Request

#: Imports every module, and prints the metrics that they declare.
_DECLARED = """
import importlib, json, pkgutil
from apache_beam.metrics import Metrics
found = []
for kind in ("counter", "distribution", "gauge"):
    def declare(namespace, name, *rest, kind=kind, make=getattr(Metrics, kind), **more):
        found.append((namespace, name, kind))
        return make(namespace, name, *rest, **more)
    setattr(Metrics, kind, staticmethod(declare))
import pipeline, transforms
for package in (transforms, pipeline):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps(found))
"""


def test_the_page_and_the_code_name_the_same_metrics():
    """docs/metrics.md has every metric that any module declares, under its namespace and kind, and no other."""
    done = subprocess.run(
        [sys.executable, "-c", _DECLARED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    declared = {tuple(each) for each in json.loads(done.stdout.splitlines()[-1]) if "." not in each[0]}
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    documented = set()
    for namespace, table in re.findall(r"^Namespace `(\w+)`.*?\n\n(.*?)\n\n", page, re.M | re.S):
        documented |= {(namespace, *row) for row in re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.M)}
    assert documented == declared


def test_a_jobs_metrics_are_those_of_its_messages(servers, minilm, tmp_path):
    """Over several bundles the file has the ledger's counts: results, dead letters by stage, one model load."""
    resources = fresh("metrics")
    path = tmp_path / "metrics.json"
    flags = (f"--model={minilm}", "--task=feature-extraction", f"--metrics_file={path}", "--log_format=json")
    with job(resources, *flags, log=tmp_path / "log") as process:
        for _ in range(3):
            texts = [text_message("word " * (1 + n), n=str(n)) for n in range(20)]
            publish.publish_all(resources.input_topic, [*texts, Message(b"not json"), Message(b'{"inputs": 17}')])
            collect(resources, 22)
        assert drain(process) == 0
    found = json.loads(path.read_text())
    counters, distributions = found["counters"], found["distributions"]
    assert (counters["results"], counters["predictions"]) == (60, 60)
    assert (counters["dead_letters_decode"], counters["dead_letters_predict"], counters["failures"]) == (3, 3, 3)
    assert distributions["latency_ms"]["count"] == 60 and distributions["latency_ms"]["min"] >= 0
    assert distributions["model_load_ms"]["count"] == 1
    assert counters["tokens"] == 3 * sum(n + 3 for n in range(20))
    assert abs(found["time"] - time.time()) < 60
    job_card = found["job"]
    assert (job_card["subscription"], job_card["task"]) == (resources.input_subscription, "feature-extraction")
    assert (
        job_card["model"] == minilm and job_card["device"].startswith("cpu, ") and job_card["started"] < found["time"]
    )
    assert (job_card["engine"], job_card["summaries"]) == ("torch", False)
    assert job_card["revision"].startswith("sha256:")
    assert any(line.endswith("INFO pipeline: drained") for line in found["log"])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert any(line["message"] == "drained" and line["severity"] == "INFO" for line in lines)


def test_a_json_line_says_which_message_and_not_what_was_in_it(caplog):
    """A dead letter's debug line has its message id, stage and trace, and nothing of its body or attributes."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    attributes = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "customer": "secret-name"}
    notes = {"dead_letter_message_id": "17", "dead_letter_stage": "decode", "dead_letter_error_type": "InvalidBody"}
    with caplog.at_level(logging.DEBUG, "transforms.metrics"):
        metrics.Ended().add(Message(b"secret-body", {**attributes, **notes}))
    (record,) = caplog.records
    line = logs.JsonFormatter().format(record)
    assert "secret" not in line and "\n" not in line
    said = json.loads(line)
    assert {key: said[key] for key in ("message_id", "stage", "error_type", "trace_id", "severity")} == {
        "message_id": "17",
        "stage": "decode",
        "error_type": "InvalidBody",
        "trace_id": trace,
        "severity": "DEBUG",
    }


def test_an_exception_is_one_line(caplog):
    """A traceback stays within its line, as a field."""
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("pipeline").exception("it failed")
    line = logs.JsonFormatter().format(caplog.records[0])
    assert "\n" not in line and "ValueError" in json.loads(line)["exception"]


def test_retries_are_told_with_the_next_bundle():
    """A retry in a thread without a bundle is kept until a bundle can tell of it, and told once."""
    before = metrics._retried["publish"]
    metrics.retried("publish")
    assert metrics._retried["publish"] == before + 1
    metrics.Ended().tell()
    assert metrics._retried["publish"] == 0


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "a" * 32),
        ({"googclient_traceparent": f"00-{'c' * 32}-{'d' * 16}-00"}, "c" * 32),
        ({"traceparent": "00-short-b-01"}, None),
        ({"traceparent": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_trace_is_read_or_there_is_none(attributes, expected):
    """The trace id of W3C's and of Pub/Sub's attribute; anything else is no trace and no error."""
    assert tracing.trace_id(attributes) == expected


def test_spans_have_the_messages_trace_and_true_times(monkeypatch):
    """With a tracer provider a result gives two spans, in the message's own trace, from the times that were taken."""
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    message = Message(b"x", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "17", publish_time=100.0)
    info = ModelInfo("text-classification", "m", "r", "cpu", "float32")
    tracing.record(Prediction(Request("x", message=message), [], info, 5, False, 8, 250.0, 101.0), 102.0)
    forward, whole = exporter.get_finished_spans()
    assert (whole.name, whole.start_time, whole.end_time) == ("inference", 100 * 10**9, 102 * 10**9)
    assert (forward.name, forward.start_time, forward.end_time) == ("forward", int(100.75 * 10**9), 101 * 10**9)
    assert whole.context.trace_id == forward.context.trace_id == int("a" * 32, 16)
    assert whole.parent.span_id == int("b" * 16, 16) and forward.parent.span_id == whole.context.span_id
    assert dict(forward.attributes) == {"batch_size": 8, "tokens": 5, "truncated": False}


def test_tracing_is_off_and_unimported_unless_asked_for():
    """Without OTEL_TRACES_EXPORTER no span is made; an exporter that is not installed is one warning, not a failure."""
    code = "from transforms import tracing; import sys; print(tracing.on())"
    for value, words in (("", ""), ("none", ""), ("no_such", "OTEL_TRACES_EXPORTER=no_such")):
        environment = {"PATH": "", "PYTHONPATH": str(ROOT), "OTEL_TRACES_EXPORTER": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout == "False\n" and words in done.stderr, done
    console = {"PATH": "", "PYTHONPATH": str(ROOT), "OTEL_TRACES_EXPORTER": "console"}
    done = subprocess.run([sys.executable, "-c", code], env=console, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done
