"""What the console says is so: waiting and repeats, three states, Pub/Sub away, gone and back; and it ends at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from console_data import flags_of, publish_results
from streams import ROOT, fresh

from pipeline import clients
from pipeline.console import settings, vitals
from pipeline.console.book import Book
from pipeline.console.observer import Observer
from pipeline.console.waiting import Waiting
from pipeline.emulators import setup
from pipeline.emulators.process import spawn
from transforms.records import Message

PATIENCE_S = 60.0


def until(done, words: str):
    """Waits for a condition, for as long as a busy machine may need."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := done():
            return found
        time.sleep(0.05)
    raise AssertionError(words)


def message(message_id: str, at: float, **attributes: str) -> Message:
    return Message(b"{}", attributes, message_id, publish_time=at)


def ended(message_id: str, at: float, **attributes: str) -> Message:
    return Message(
        b'{"prediction": []}', {"message_id": message_id, **attributes}, f"out-{message_id}", publish_time=at
    )


@pytest.mark.parametrize("taken", ["1", "2"])
def test_repeats_that_the_job_drops_do_not_wait(taken):
    """Of two messages of one identifier the job takes either; the other is a repeat, and nothing is on its way."""
    book = Book(id_attribute="order")
    book.published(message("1", 100.0, order="a"))
    book.published(message("2", 101.0, order="a"))
    assert book.on_their_way() == (1, 100.0, 1)
    book.result(ended(taken, 102.0, order="a"))
    book.published(message("3", 400.0, order="a"))
    assert book.on_their_way() == (0, None, 2)


def test_repeats_are_known_as_the_job_knows_them():
    """After ten minutes it is a message again; a replayed dead letter is none of the one that failed; others wait."""
    book = Book(id_attribute="order")
    book.published(message("1", 100.0, order="a"))
    notes = {"order": "a", "dead_letter_stage": "predict", "dead_letter_message_id": "1", "dead_letter_attempt": "1"}
    book.dead_letter(Message(b"{}", notes, "dead", publish_time=101.0))
    assert book.on_their_way()[0] == 0
    book.published(message("2", 102.0, order="a", dead_letter_attempt="1", dead_letter_first_message_id="1"))
    assert book.on_their_way()[0] == 1
    book.result(ended("2", 103.0, order="a", dead_letter_attempt="1"))
    assert book.on_their_way()[0] == 0
    book.published(message("3", 104.0))
    book.published(message("4", 105.0))
    book.published(message("5", 900.0, order="a"))
    assert book.on_their_way() == (3, 104.0, 0)


def test_without_an_identifier_each_message_waits():
    """Where the job drops no repeats, two messages of one attribute are two."""
    waiting = Waiting()
    for number in "12":
        waiting.published(message(number, 100.0, order="a"))
    assert (waiting.count(), waiting.repeats) == (2, 0)


def test_what_is_delivered_twice_is_counted_once():
    """Input, result or dead letter whose acknowledgement was lost come again under the same id, and change nothing."""
    book = Book()
    assert book.published(message("1", 100.0)) and not book.published(message("1", 100.0))
    assert book.result(ended("1", 101.0)) is not None and book.result(ended("1", 101.0)) is None


@pytest.mark.parametrize(
    ("arguments", "state", "words"),
    [
        ((1000, 999.0, 5, 998.0, None), "working", "results come"),
        ((1000, 960.0, 12, 950.0, None), "silent", "no result for 40 s, 12 waiting"),
        ((1000, None, 3, 900.0, None), "silent", "no result yet, 3 waiting"),
        ((1000, None, 3, 999.0, None), "waiting", "no result yet, 3 waiting"),
        ((1000, 980.0, 3, 999.0, 1.0), "waiting", "no result for 20 s, 3 waiting"),
        ((1000, 960.0, 0, None, 1.0), "idle", "no result for 40 s, nothing waits"),
        ((1000, 999.0, 12, 998.0, 300.0), "gone", "no metrics for 5 min; results come, 12 waiting"),
        (
            (1000, 960.0, 12, 950.0, 40.0, True),
            "gone",
            "no metrics for 40 s; no result for 40 s; what waits is not known",
        ),
        ((1000, 960.0, None, None, 1.0), "idle", "no result for 40 s; the input is not watched"),
        ((1000, 960.0, None, None, None), "unknown", "no result for 40 s; the input is not watched"),
        ((1000, None, 0, None, None), "unknown", "no result yet, nothing waits"),
        ((1000, 960.0, 0, None, 1.0, True), "unknown", "no result for 40 s; what waits is not known"),
        ((1000, 960.0, 12, 950.0, None, True), "unknown", "no result for 40 s; what waits is not known"),
    ],
)
def test_the_job_is_said_to_be_what_is_known_of_it(arguments, state, words):
    """Whether results come, messages wait or metrics are old; and where nothing tells, that."""
    assert vitals.job(*arguments) == {"state": state, "words": words}


def test_an_age_of_nothing_is_an_age(monkeypatch):
    """A message published this instant is the oldest that waits, and not no message."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:9")
    observer = Observer(settings.parse([]))
    observer.book.published(message("1", time.time() + 5))
    assert observer.figures()["oldest_s"] == 0.0


def test_shares_are_of_all_labels():
    """Of 200 equal labels an event carries 30, and how many results and labels there are in all."""
    observer = Observer(settings.parse(["--output_subscription=projects/my-project/subscriptions/results"]))
    for number in range(200):
        body = f'{{"prediction": [{{"label": "L{number}", "score": 0.5}}]}}'.encode()
        observer.book.result(Message(body, {"message_id": str(number)}, f"o{number}"))
    figures = observer.figures()
    assert len(figures["labels"]) == 30 and figures["labels_all"] == {"results": 200, "labels": 200}


@pytest.fixture
def pubsub(monkeypatch):
    """A Pub/Sub of its own, to be halted and ended."""
    with spawn("pipeline.emulators.pubsub", "--port=0") as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        clients.pubsub.cache_clear()
        yield server
        if server.process.poll() is None:
            os.kill(server.process.pid, signal.SIGCONT)
    clients.pubsub.cache_clear()


def create_topics() -> None:
    """The topics that a console without names watches."""
    for each in ("input", "output", "dead-letter"):
        setup.create_topic(f"projects/my-project/topics/inference-{each}")


def test_a_pubsub_that_hangs_is_not_one_without_messages(pubsub):
    """Halted, it gives no answer, and each watch says so; going on, it is well again."""
    create_topics()
    observer = Observer(settings.parse([]))
    observer.start()
    try:
        assert [watch.error for watch in observer.watches.values()] == [None, None, None]
        os.kill(pubsub.process.pid, signal.SIGSTOP)
        until(lambda: all(watch.error for watch in observer.watches.values()), "it hangs, and nothing is said")
        os.kill(pubsub.process.pid, signal.SIGCONT)
        until(lambda: not any(watch.error for watch in observer.watches.values()), "it goes on, and is not live")
    finally:
        observer.close()


def test_after_a_new_pubsub_it_watches_again(pubsub):
    """An emulator that is started anew has lost the console's subscriptions: they are made again, and messages seen."""
    port = pubsub.address.rsplit(":", 1)[1]
    create_topics()
    observer = Observer(settings.parse([]))
    observer.start()
    try:
        pubsub.stop()
        until(lambda: all(watch.error for watch in observer.watches.values()), "it is gone, and nothing is said")
        with spawn("pipeline.emulators.pubsub", f"--port={port}"):
            create_topics()
            until(lambda: not any(watch.error for watch in observer.watches.values()), "it is there, and not watched")
            publish_results(setup.Resources.named("my-project", "inference"), ["hello"])
            until(lambda: observer.flow.results == 1 and observer.flow.published == 1, "what came was not seen")
            observer.close()
    finally:
        observer.close()


def test_without_pubsub_the_page_is_there_and_ends_when_told():
    """With no Pub/Sub it starts, says of each topic that it cannot be reached, and ends within its own limits."""
    environment = {**os.environ, "PUBSUB_EMULATOR_HOST": "127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.console", "--port=0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None and process.stdout.readline().startswith("CONSOLE=")
    process.terminate()
    # 150 s were what its client's own repeats took.
    assert process.wait(PATIENCE_S) == 0


def test_a_halted_pubsub_does_not_hold_the_end(pubsub):
    """Told to end while Pub/Sub hangs, no request is waited for longer than its own deadline."""
    create_topics()
    with spawn("pipeline.console", "--port=0") as server:
        os.kill(pubsub.process.pid, signal.SIGSTOP)
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        os.kill(pubsub.process.pid, signal.SIGCONT)


def test_a_taken_port_is_one_line(servers):
    """Another program has the port: one line names it and the way out, and the exit code is 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "pipeline.console", f"--port={port}", *flags_of(fresh("console"))]
        ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    assert f"--port {port}" in ran.stderr and "use another" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
