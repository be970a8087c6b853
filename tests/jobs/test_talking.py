"""What a job says of itself: a line a minute, one when a service goes away and one when it is back, its health."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from fake_job import Behaviour, Job, fake_job
from faults import Answer, GrpcProxy, HttpProxy, TcpProxy
from google.pubsub_v1 import SubscriberClient
from streams import PATIENCE_S, collect, fresh, pull, text_message
from test_summaries import flags_of, new_topic, rows_of, table_of

from pipeline import clients, outage, publish
from transforms.records import Message

TALKATIVE = Behaviour(status_s=0.5)


@contextmanager
def behind_proxies(
    servers, resources, tmp_path, *flags: str, how=TALKATIVE
) -> Iterator[tuple[Job, TcpProxy, TcpProxy]]:
    """A running job that reaches Pub/Sub and BigQuery through proxies."""
    pubsub, tables = TcpProxy(servers.pubsub.address), TcpProxy(servers.bigquery.address.rpartition("/")[2])
    environment = {"PUBSUB_EMULATOR_HOST": pubsub.address, "BIGQUERY_EMULATOR_HOST": f"http://{tables.address}"}
    with fake_job([*resources.flags(), *flags], tmp_path / "log", how, environment) as job:
        job.until_running()
        try:
            yield job, pubsub, tables
        finally:
            pubsub.down()
            tables.down()


def lines_on(job: Job, service: str) -> list[str]:
    return [
        line
        for line in job.words().splitlines()
        if f" {service}" in line and (" is away" in line or " is back" in line) and " results;" not in line
    ]


def outlast(job: Job, proxy: TcpProxy, service: str, provoke: Callable[[], object], seconds: float = 0.0) -> None:
    """Takes ``service`` away until the job has said so, and for ``seconds`` at the least, and gives it back."""
    proxy.down()
    went = time.monotonic()
    provoke()
    job.until(f"{service} is away: ")
    time.sleep(max(0.0, seconds - (time.monotonic() - went)))
    proxy.up()
    job.until(f"{service} is back")


def check_outages(job: Job, pubsub: TcpProxy, tables: TcpProxy, resources, seconds: float) -> None:
    """The table goes away, then Pub/Sub: two lines on each, whatever was tried meanwhile, and nothing is lost."""
    publish.publish_all(resources.input_topic, [text_message("before")])
    collect(resources, 1)

    def send() -> None:
        publish.publish_all(resources.input_topic, [text_message(f"{n}") for n in range(20)])

    table = f"table {resources.audit_table}"
    outlast(job, tables, table, send, seconds)
    away, back = lines_on(job, table)
    assert re.search(r"is away: .+; \d+ rows held, tried again until it is back", away), away
    assert re.search(r"is back after \d+ s; \d+ rows held", back), back
    collect(resources, 20)
    subscription = f"subscription {resources.input_subscription}"
    outlast(job, pubsub, subscription, lambda: None, seconds)
    assert len(lines_on(job, subscription)) == 2
    send()
    collect(resources, 20)


def test_a_service_that_goes_away_is_two_lines(servers, tmp_path):
    """One when the table, or Pub/Sub, is away, with why and what is held; one when it is back, with for how long."""
    resources = fresh("talk")
    with behind_proxies(servers, resources, tmp_path) as (job, pubsub, tables):
        check_outages(job, pubsub, tables, resources, 0)
        assert job.drain() == 0
    status = re.findall(r"INFO pipeline: (.* results; .*)", job.words())
    assert sum(int(each.split()[0]) for each in status) == 41, status
    shape = r"\d+ results; 0 dead letters; [\d.,]+/s; p95 (-|[\d,]+ ms); backlog [\d,]+(, the oldest [\d,]+ s)?(; .*)?"
    assert all(re.fullmatch(shape, each) for each in status), status
    assert any(f"table {resources.audit_table} is away" in each for each in status), status
    assert "Traceback" not in job.words()


@pytest.mark.slow
def test_an_outage_of_a_minute_is_two_lines(servers, tmp_path):
    """So it is after a minute, and the line a minute tells of it too."""
    resources = fresh("minute")
    with behind_proxies(servers, resources, tmp_path, how=Behaviour(status_s=20.0)) as (job, pubsub, tables):
        check_outages(job, pubsub, tables, resources, 60)
        print(job.words())
        assert re.search(r" is back after [67]\d s", job.words()) and job.drain() == 0


def check_sinks(servers, tmp_path, how: Behaviour, seconds: float, every: bool) -> str:
    """The output topic, or ``every`` sink after it, takes nothing until the job says so, and for ``seconds``; its log.

    One after the other: who waits for the one has not come to the next.
    """
    resources = fresh("sinks")
    topic, subscription = new_topic()
    table = table_of(resources)
    flags = flags_of(resources, "--window=fixed:1", f"--summary_topic={topic}") if every else resources.flags()
    sinks = [f"topic {resources.output_topic}"]
    sinks += [f"topic {resources.dead_letter_topic}", f"table {table}", f"topic {topic}"] if every else []
    failing: list[str] = []
    with GrpcProxy(servers.pubsub.address) as pubsub, HttpProxy(servers.bigquery.address) as tables:

        def publishes(method: str, request: bytes) -> grpc.StatusCode | None:
            hit = method == "Publish" and any(name.removeprefix("topic ").encode() in request for name in failing)
            return grpc.StatusCode.UNAVAILABLE if hit else None

        pubsub.fault = publishes
        tables.fault = lambda method, path: (
            Answer(503, "backendError") if f"table {table}" in failing and "/summary/insertAll" in path else None
        )
        environment = {"PUBSUB_EMULATOR_HOST": pubsub.address, "BIGQUERY_EMULATOR_HOST": tables.address}
        with fake_job(flags, tmp_path / "log", how, environment) as job:
            job.until_running()
            for name in sinks:
                failing.append(name)
                went = time.monotonic()
                publish.publish_all(resources.input_topic, [text_message("x"), Message(b"no JSON")])
                job.until(f"{name} is away: ")
                time.sleep(max(0.0, seconds - (time.monotonic() - went)))
                failing.clear()
                job.until(f"{name} is back after ")
                ledger = collect(resources, 2)
                assert (len(ledger.results), len(ledger.dead_letters)) == (1, 1)
            assert job.drain() == 0
            lines = job.words()
    for name in sinks:
        away, back = lines_on(job, name)
        assert re.search("is away: .*; 1 (messages|rows) held, tried again until it is back", away), away
        assert re.search(r"is back after \d+ s; 1 (messages|rows) held", back), back
    if every:
        rows = rows_of(table)
        assert sum(row["messages"] for row in rows) == 2 * len(sinks)
        assert len(pull(subscription, len(rows), PATIENCE_S)) == len(rows)
    assert len(re.findall("is away: |is back after ", lines)) == 2 * len(sinks) and "Traceback" not in lines
    return lines


def test_a_topic_that_takes_nothing_is_two_lines(servers, tmp_path):
    """Only publishing fails, and the line names the topic; the other topic and the subscription are not blamed."""
    check_sinks(servers, tmp_path, TALKATIVE, 0.0, every=False)


@pytest.mark.slow
def test_a_minute_without_each_sink_is_two_lines_each(servers, tmp_path):
    """Results, dead letters, summary rows and summary messages: held for a minute, and none is lost."""
    print(check_sinks(servers, tmp_path, Behaviour(status_s=20.0), 60.0, every=True))


def test_short_failures_are_not_worth_a_line(monkeypatch, caplog):
    """Tried again within seconds, nothing is said; later it is, once, however often it fails, with what was held."""
    now = [100.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    service = outage.Service("table t", "rows")

    def request(*failures: float) -> None:
        with service.request(7) as failed:
            for seconds in failures:
                now[0] += seconds
                failed(ConnectionError("gone"))

    request(0.1, 0.2)
    assert not caplog.records
    request(0.1, 2.0, 2.0, 5.0)
    assert [r.getMessage() for r in caplog.records] == [
        "table t is away: gone; 7 rows held, tried again until it is back",
        "table t is back after 9 s; 7 rows held",
    ]
    caplog.clear()
    with pytest.raises(RuntimeError), service.request(3) as failed:
        now[0] += 4.0
        failed(ConnectionError("gone"))
        raise RuntimeError("given up")
    assert service.away_s() == 4.0
    request()
    assert [r.getMessage().split(";")[0] for r in caplog.records] == [
        "table t is away: gone",
        "table t is back after 4 s",
    ]
    assert service.away_s() == 0.0


def ask(port: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_health_port(servers, tmp_path):
    """Alive and ready while it runs, not ready while Pub/Sub is away; metrics count what came of the messages."""
    resources = fresh("health")
    with behind_proxies(servers, resources, tmp_path, "--health_port=0", "--log_format=json") as (job, pubsub, _):
        said = [json.loads(line) for line in job.words().splitlines() if line.startswith("{")]
        (port,) = [
            re.search(r"http://(127\.0\.0\.1:\d+)/live", line["message"])[1]
            for line in said
            if "/live" in line["message"]
        ]
        assert ask(port, "/live") == (200, '{"status": "alive"}\n')
        assert ask(port, "/ready") == (200, '{"status": "ready"}\n')
        assert ask(port, "/")[0] == 404
        publish.publish_all(resources.input_topic, [text_message("x"), text_message("y"), Message(b"no JSON")])
        collect(resources, 3)
        wanted = {"beam_hf_results_total 2.0", 'beam_hf_dead_letters_total{stage="decode"} 1.0', "beam_hf_ready 1.0"}
        wanted.add("beam_hf_latency_seconds_count 2.0")
        deadline = time.monotonic() + PATIENCE_S
        while not wanted <= set((metrics := ask(port, "/metrics")[1]).splitlines()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert wanted <= set(metrics.splitlines()), metrics
        assert "process_resident_memory_bytes" in metrics and "beam_hf_backlog_messages" in metrics
        pubsub.down()
        subscription = f"subscription {resources.input_subscription}"
        job.until(f"{subscription} is away: ")
        assert ask(port, "/ready")[0] == 503 and f"{subscription} is away" in ask(port, "/ready")[1]
        assert ask(port, "/live")[0] == 200
        pubsub.up()
        job.until(f"{subscription} is back")
        assert ask(port, "/ready")[0] == 200
        assert job.drain() == 0
    status = [
        line["status"]
        for line in map(json.loads, filter(lambda x: x.startswith("{"), job.words().splitlines()))
        if "status" in line
    ]
    assert sum(each["results"] for each in status) == 2 and sum(each["dead_letters"] for each in status) == 1


def test_a_health_port_that_is_taken_is_one_line(servers, tmp_path):
    """Before anything else is done: exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with fake_job([*fresh("taken").flags(), f"--health_port={port}"], tmp_path / "log") as job:
            assert job.wait(120) == 2
    (line,) = [line for line in job.words().splitlines() if "error" in line]
    assert line == f"error: --health_port 127.0.0.1:{port}: Address already in use; use another, or stop what has it"


def test_a_failure_that_ends_the_job_is_one_line(servers, tmp_path):
    """A subscription that is deleted under it ends the job with 1 and one line of why."""
    resources = fresh("ends")
    with fake_job(resources.flags(), tmp_path / "log") as job:
        job.until_running()
        publish.publish_all(resources.input_topic, [text_message("x")])
        collect(resources, 1)
        clients.pubsub(SubscriberClient).delete_subscription(subscription=resources.input_subscription)
        assert job.wait(120) == 1
    ends = [line for line in job.words().splitlines() if " ERROR " in line]
    assert len(ends) == 1 and "the job failed" in ends[0] and resources.input_subscription in ends[0], job.words()
    assert "Traceback" not in job.words()
