"""The job under faults, with load: after each, every message is one result or one dead letter and has its audit row."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import grpc
import pytest
import tiny_models
from chaos import Account, Collector, Load, account, seeded
from fake_job import Behaviour, fake_job
from faults import Answer, DropHalf, GrpcProxy, Hang, HttpProxy, RejectRows
from model_stores import Storage, serve
from streams import collect, drain, fresh, job, text_message, use_pubsub

from pipeline.emulators.pubsub import start as start_pubsub
from pipeline.publish import publish_all
from transforms.records import Message

#: Leases as short as the service allows, so that what a killed job held comes back soon.
QUICK = Behaviour(lease_s=10)


def assert_kept(found: Account, log: str = "") -> None:
    assert found.kept, f"{found}\n{log[-4000:]}"


def test_sigkill_at_random_moments(servers, tmp_path):
    """Four jobs killed under load and one drained: nothing lost, nothing without a row, every repeat recognisable."""
    resources, how = fresh("kill"), Behaviour(delay_ms=2, lease_s=10)
    with seeded(5) as random, Load(resources.input_topic, 150) as load, Collector(resources) as collected:
        for _ in range(4):
            with fake_job(resources.flags(), tmp_path / "log", how) as job:
                job.until_running()
                time.sleep(random.uniform(0, 1))
                job.kill()
        with fake_job(resources.flags(), tmp_path / "log", how) as job:
            load.stop()
            collected.wait_for(load.sent, 120)
            assert job.drain() == 0, job.words()
        found = account(resources, load.sent, collected)
    assert_kept(found)
    assert found.dead_letters == 0


def test_sigterm_under_load_hands_over_without_a_repeat(servers, tmp_path):
    """Jobs drained one after the other under load exit 0 and leave each message to exactly one of them."""
    resources, how = fresh("term"), Behaviour(delay_ms=1)
    with Load(resources.input_topic, 200) as load, Collector(resources) as collected:
        for _ in range(2):
            with fake_job(resources.flags(), tmp_path / "log", how) as job:
                job.until_running()
                time.sleep(1)
                assert job.drain() == 0, job.words()
        with fake_job(resources.flags(), tmp_path / "log", how) as job:
            load.stop()
            assert collected.wait_for(load.sent, 120)
            assert job.drain() == 0
        found = account(resources, load.sent, collected)
    assert_kept(found)
    assert (found.repeated_results, found.repeated_rows) == (0, 0)


def test_bigquery_fails_in_every_way(servers, tmp_path):
    """500, 503, 429, cut answers and silence hold the work back: no healthy message is lost or dead-lettered."""
    resources = fresh("bq")
    faults = [
        Answer(500, "internalError"),
        Answer(503, "backendError"),
        Answer(429, "rateLimitExceeded"),
        DropHalf(),
        Hang(0.3),
        Hang(0.0, forwarded=True),
    ]
    with (
        HttpProxy(servers.bigquery.address) as proxy,
        Load(resources.input_topic, 150) as load,
        Collector(resources) as collected,
        fake_job(resources.flags(), tmp_path / "log", QUICK, {"BIGQUERY_EMULATOR_HOST": proxy.address}) as job,
    ):
        with seeded(6) as random:
            job.until_running()
            proxy.fault = lambda method, path: random.choice(faults) if "insertAll" in path else None
            time.sleep(3)
            proxy.fault = lambda method, path: None
        load.stop()
        collected.wait_for(load.sent, 120)
        assert job.drain() == 0, job.words()
        found = account(resources, load.sent, collected)
    assert proxy.faults > 0
    assert_kept(found, job.words())
    assert (found.dead_letters, found.repeated_results) == (0, 0)


def test_rejected_rows_are_dead_letters_of_their_own(servers, tmp_path):
    """Messages whose rows the table refuses become dead letters of stage audit, alone; the job goes on."""
    resources = fresh("rows")
    with (
        HttpProxy(servers.bigquery.address) as proxy,
        fake_job(resources.flags(), tmp_path / "log", QUICK, {"BIGQUERY_EMULATOR_HOST": proxy.address}) as job,
    ):
        proxy.fault = lambda method, path: RejectRows(
            lambda row: row["status"] == "ok" and "poison" in (row["attributes"] or "")
        )
        job.until_running()
        good = publish_all(resources.input_topic, [text_message(f"healthy {n}") for n in range(200)])
        bad = publish_all(resources.input_topic, [text_message(f"bad {n}", kind="poison") for n in range(5)])
        ledger = collect(resources, 205, 120)
        assert job.drain() == 0
    assert {message.attributes["message_id"] for message in ledger.results} == set(good)
    stages = {m.attributes["dead_letter_message_id"]: m.attributes["dead_letter_stage"] for m in ledger.dead_letters}
    assert stages == dict.fromkeys(bad, "audit")
    assert set(ledger.audited()) == {*good, *bad}
    assert {row["status"] for row in ledger.rows if row["message_id"] in bad} == {"dead_letter"}


@pytest.mark.parametrize("sink", ["output_topic", "dead_letter_topic"])
def test_a_topic_that_refuses(servers, tmp_path, sink):
    """While a topic refuses every publish nothing is acknowledged; when it takes them again, all arrive, once."""
    resources = fresh("refuse")
    topic = getattr(resources, sink).encode()

    def make(n: int):
        return text_message(f"message {n}") if n % 3 else Message(b"not json %d" % n, {"n": str(n)})

    with (
        GrpcProxy(servers.pubsub.address) as proxy,
        Load(resources.input_topic, 150, make) as load,
        Collector(resources) as collected,
        fake_job(resources.flags(), tmp_path / "log", QUICK, {"PUBSUB_EMULATOR_HOST": proxy.address}) as job,
    ):
        job.until_running()
        proxy.fault = lambda method, request: (
            grpc.StatusCode.UNAVAILABLE if method == "Publish" and topic in request[:300] else None
        )
        time.sleep(3)
        assert job.alive
        proxy.fault = lambda method, request: None
        load.stop()
        assert collected.wait_for(load.sent, 120), job.words()
        assert job.drain() == 0, job.words()
        found = account(resources, load.sent, collected)
    assert proxy.faults > 0
    assert_kept(found, job.words())
    assert found.dead_letters == len([n for n in range(found.sent) if n % 3 == 0])


def test_pubsub_restarts(servers, tmp_path):
    """Pub/Sub is killed and started again under load: the job goes on by itself and nothing is lost."""
    state = tmp_path / "state"
    server = start_pubsub(0, state)
    port = int(server.address.rpartition(":")[2])
    use_pubsub(server.address)
    try:
        resources = fresh("restart")
        with (
            Load(resources.input_topic, 150) as load,
            Collector(resources) as collected,
            fake_job(resources.flags(), tmp_path / "log", QUICK) as job,
        ):
            job.until_running()
            time.sleep(1)
            server.process.kill()
            server.process.wait()
            time.sleep(1)
            server = start_pubsub(port, state)
            time.sleep(1)
            load.stop()
            assert collected.wait_for(load.sent, 120), job.words()
            assert job.drain() == 0, job.words()
            found = account(resources, load.sent, collected)
    finally:
        server.stop()
        use_pubsub(servers.pubsub.address)
    assert_kept(found, job.words())
    assert found.dead_letters == 0


@pytest.mark.slow
def test_a_model_that_hangs_is_ended_by_a_second_sigterm(servers, tmp_path):
    """A forward that never returns holds its bundle unacknowledged; two SIGTERMs end the job, the next has it all."""
    resources = fresh("hang")
    ids = publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(20)])
    ids += publish_all(resources.input_topic, [text_message("hang")])
    with fake_job(resources.flags(), tmp_path / "log", Behaviour(hang="hang", lease_s=10)) as job:
        job.until("the model hangs")
        assert job.drain(timeout=1) is None
        assert job.drain() == -signal.SIGTERM
    with Collector(resources) as collected, fake_job(resources.flags(), tmp_path / "log", QUICK) as job:
        assert collected.wait_for(ids, 120)
        assert job.drain() == 0
        found = account(resources, ids, collected)
    assert_kept(found)


def test_memory_that_runs_out(servers, tmp_path):
    """A job whose model cannot get its memory fails with one error line and acknowledges nothing."""
    resources = fresh("memory")
    ids = publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(50)])
    how = Behaviour(allocate_mb=1 << 20, lease_s=10)
    with fake_job(resources.flags(), tmp_path / "log", how) as job:
        assert job.wait(120) == 1, job.words()
        assert "the job failed; what it had not finished will be delivered again" in job.words()
    with Collector(resources) as collected, fake_job(resources.flags(), tmp_path / "log", QUICK) as job:
        assert collected.wait_for(ids, 120)
        assert job.drain() == 0
        found = account(resources, ids, collected)
    assert_kept(found)
    assert (found.repeated_results, found.repeated_rows) == (0, 0)


@pytest.mark.slow
def test_the_real_model_killed_at_work(servers, minilm, tmp_path: Path):
    """The real job with the real model, killed once in the middle of its work: every embedding arrives all the same."""
    resources = fresh("real")
    flags = [f"--model={minilm}", "--task=feature-extraction"]
    with Load(resources.input_topic, 300) as load, Collector(resources) as collected:
        with job(resources, *flags, log=tmp_path / "log"):
            assert wait_for_any(collected)
        load.stop()
        with job(resources, *flags, log=tmp_path / "log") as process:
            collected.wait_for(load.sent, 120)
            assert drain(process) == 0
        found = account(resources, load.sent, collected)
    assert_kept(found)
    assert found.dead_letters == 0


def wait_for_any(collected: Collector, timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not collected.first and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(collected.first)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_under_the_model_cache(servers, tmp_path, small_disk, monkeypatch):
    """A model that its cache has no room for fails the job in one clear line; with room, every message is answered."""
    resources = fresh("disk")
    ids = publish_all(resources.input_topic, [text_message(f"message {n}") for n in range(20)])
    flags = ["--model=gs://models/tiny", "--task=text-classification"]
    with serve(Storage, tiny_models.sentiment()) as (url, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
        with job(resources, *flags, log=tmp_path / "full") as process:
            assert process.wait(90) == 1
        assert "No space left on device" in (tmp_path / "full").read_text().splitlines()[-1]
        assert not any(small_disk.rglob("*.safetensors"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with Collector(resources) as collected, job(resources, *flags, log=tmp_path / "log") as process:
            assert collected.wait_for(ids, 120), (tmp_path / "log").read_text()
            assert drain(process) == 0
            found = account(resources, ids, collected)
    assert_kept(found)
    assert (found.dead_letters, found.repeated_results, found.repeated_rows) == (0, 0, 0)
