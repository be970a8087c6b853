"""The real job as its own process, with the real model, over real protocols."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import streams
from google.cloud import bigquery
from pubsub_emulators import google_emulator
from streams import ROOT, collect, drain, fresh, job, read_cases, text_message

from pipeline import clients
from pipeline.main import main
from pipeline.publish import publish_all as publish

pytestmark = pytest.mark.usefixtures("servers")


def check_cases(cases, ids, ledger) -> None:
    """Each case ended as it says, once, with its audit row; dead letters are byte for byte what came in."""
    results = {message.attributes["message_id"]: message for message in ledger.results}
    letters = {message.attributes["dead_letter_message_id"]: message for message in ledger.dead_letters}
    rows = {row["message_id"]: row for row in ledger.rows}
    assert ledger.ended() == Counter(ids)
    assert ledger.audited() == Counter(ids)
    for case, message_id in zip(cases, ids, strict=True):
        expect, message, row = case["expect"], case["message"], rows[message_id]
        if expect["outcome"] == "result":
            result = results[message_id]
            assert row["status"] == "ok", (case["name"], row)
            assert dict(message.attributes).items() <= {**result.attributes, **message.attributes}.items()
            assert result.ordering_key == message.ordering_key, case["name"]
            assert len(json.loads(result.data)["prediction"]) == 384, case["name"]
        else:
            letter = letters[message_id]
            notes = {key: value for key, value in letter.attributes.items() if key.startswith("dead_letter_")}
            assert letter.data == message.data, case["name"]
            assert {k: v for k, v in letter.attributes.items() if k not in notes} == message.attributes, case["name"]
            assert (notes["dead_letter_stage"], notes["dead_letter_error_type"]) == (
                expect["stage"],
                expect["error_type"],
            ), (case["name"], notes)
            assert expect["error"] in notes["dead_letter_error"], (case["name"], notes)
            assert (row["status"], row["stage"], row["error_type"]) == (
                "dead_letter",
                expect["stage"],
                expect["error_type"],
            )


@pytest.fixture(params=["embedded", "google"])
def pubsub(request, servers, tmp_path) -> Iterator[str]:
    """Our Pub/Sub, and Google's emulator in its place where the Google Cloud CLI is."""
    if request.param == "embedded":
        yield request.param
        return
    with google_emulator(tmp_path) as address:
        streams.use_pubsub(address)
        yield request.param
        streams.use_pubsub(servers.pubsub.address)


def test_every_message_is_accounted_for(pubsub, minilm, tmp_path):
    """400 texts and all malformed cases end as exactly one result or dead letter, with one row; the job lives on."""
    cases = read_cases("embeddings")
    resources = fresh()
    ids = publish(resources.input_topic, [case["message"] for case in cases])
    texts = [text_message(f"Ticket {n}: my parcel number {n} has not come.", n=str(n)) for n in range(400)]
    text_ids = publish(resources.input_topic, texts)
    with job(resources, f"--model={minilm}", "--task=feature-extraction", log=tmp_path / "log") as process:
        ledger = collect(resources, len(cases) + 400)
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert drain(process) == 0
    assert set(text_ids) <= {message.attributes["message_id"] for message in ledger.results}
    ours = set(ids)
    ledger.results = [m for m in ledger.results if m.attributes["message_id"] in ours]
    assert Counter(row["message_id"] for row in ledger.rows) == Counter([*ids, *text_ids])
    ledger.rows = [row for row in ledger.rows if row["message_id"] in ours]
    check_cases(cases, ids, ledger)
    query = f"SELECT status, model, COUNT(*) AS n FROM `{resources.audit_table}` GROUP BY status, model"
    counts = {
        (row["status"], row["model"] is None): row["n"]
        for row in clients.bigquery_client("my-project").query(query).result()
    }
    failed = [case["expect"]["stage"] for case in cases if case["expect"]["outcome"] == "dead_letter"]
    assert counts == {
        ("ok", False): 400 + len(cases) - len(failed),
        ("dead_letter", True): failed.count("decode"),
        ("dead_letter", False): failed.count("predict"),
    }


def test_two_jobs_in_a_chain(minilm, tmp_path):
    """The second job reads the first's results with --input_path, and its own lead back to the first input."""
    first, second = fresh("first"), fresh("second")
    streams.setup.create_topic(first.output_topic, second.input_subscription + "-chained")
    ids = publish(first.input_topic, [text_message(f"Where is parcel {n}?", customer=f"c-{n}") for n in range(20)])
    flags = [flag for flag in second.flags() if not flag.startswith("--input_subscription")]
    chained = [*flags, f"--input_subscription={second.input_subscription}-chained", "--input_path=model"]
    common = [f"--model={minilm}", "--task=feature-extraction"]
    with (
        job(first, *common, log=tmp_path / "first"),
        job(second, *common, *chained, log=tmp_path / "second", resource_flags=False),
    ):
        ledger = collect(second, 20)
    origins = {m.attributes["origin_message_id"]: m.attributes["customer"] for m in ledger.results}
    assert origins == {message_id: f"c-{n}" for n, message_id in enumerate(ids)}
    middle = {
        json.loads(row["attributes"])["message_id"]
        if isinstance(row["attributes"], str)
        else row["attributes"]["message_id"]
        for row in ledger.rows
    }
    assert middle == set(ids)


def assert_one_line(code: int, stderr: str, *words: str) -> None:
    """One clear line, exit code 2, no traceback."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 2, stderr
    assert len(lines) == 1 and "Traceback" not in stderr, stderr
    for word in words:
        assert word in lines[0], lines[0]


def run_main(*flags: str) -> subprocess.CompletedProcess:
    """The command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.main", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_wrong_usage_is_one_clear_line(minilm, tmp_path, capsys):
    """A bad flag, a missing folder, topic, subscription or table, a table of another schema: one line, exit code 2."""
    resources = fresh()
    good = {
        flag.partition("=")[0]: flag for flag in [*resources.flags(), f"--model={minilm}", "--task=feature-extraction"]
    }
    table = f"{resources.audit_table.project}:{resources.audit_table.dataset}"
    clients.bigquery_client("my-project").create_table(
        bigquery.Table(f"{table.replace(':', '.')}.other", [bigquery.SchemaField("message_id", "INTEGER")])
    )
    no_weights = tmp_path / "no-weights"
    shutil.copytree(minilm, no_weights, ignore=shutil.ignore_patterns("*.safetensors"))

    def refuses(flag: str, *words: str) -> None:
        code = main(list({**good, flag.partition("=")[0]: flag}.values()))
        assert_one_line(code, capsys.readouterr().err, *words)

    refuses("--window=fixd:60", "--window 'fixd:60'", "unknown kind 'fixd'")
    refuses("--model=/no/such/folder", "/no/such/folder")
    refuses(f"--model={no_weights}", "safetensors")
    refuses("--task=text-clasification", "text-clasification")
    refuses("--output_topic=projects/my-project/topics/nowhere", "topics/nowhere", "does not exist")
    refuses("--input_subscription=projects/my-project/subscriptions/nowhere", "does not exist", "emulators create")
    refuses(f"--audit_table={table}.nowhere", "does not exist", "emulators create --audit_table=")
    refuses(f"--audit_table={table}.other", "'message_id' is INTEGER", "is missing")


def test_the_command_says_so_too():
    """As a process of its own: one line, exit code 2, no traceback."""
    done = run_main("--input_subscription=nonsense")
    assert_one_line(done.returncode, done.stderr, "--input_subscription 'nonsense'", "projects/PROJECT/subscriptions")


def test_help_is_about_this_pipeline():
    """--help prints our flags and exits 0."""
    done = run_main("--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "--input_subscription" in words and "default fixed:60" in words


def test_embeddings_are_the_models(minilm, tmp_path):
    """What arrives at the output topic is, to float precision, what sentence-transformers computes."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["Where is my parcel?", "I was charged twice for the same order.", "¡Gracias!"]
    resources = fresh()
    ids = publish(resources.input_topic, [text_message(text) for text in texts])
    with job(resources, f"--model={minilm}", "--task=feature-extraction", "--dtype=float32", log=tmp_path / "log"):
        ledger = collect(resources, len(texts))
    found = {m.attributes["message_id"]: np.array(json.loads(m.data)["prediction"]) for m in ledger.results}
    expected = sentence_transformers.SentenceTransformer(minilm, device="cpu").encode(texts)
    for message_id, vector in zip(ids, expected, strict=True):
        assert np.dot(found[message_id], vector) / np.linalg.norm(found[message_id]) / np.linalg.norm(vector) > 0.9999
