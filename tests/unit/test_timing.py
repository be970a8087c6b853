"""A row's stage times: each second between a message's publishing and its row is in one of four, by its cause."""

from __future__ import annotations

import dataclasses
import os
import pickle
import time

from fakes import INFO

from pipeline.clients import LIMITS
from transforms import timing
from transforms.audit_row import AuditContext, row
from transforms.encode import encode
from transforms.records import Failure, Message, Prediction, Request
from transforms.windowing import Windowing

CONTEXT = AuditContext(Windowing("fixed", 60.0), "job", "0.1.0")


def stages(message: Message, answered: float, now: float) -> tuple[float | None, ...]:
    made = encode(Prediction(Request("x", {}, message), [1], INFO, 3, False, 8, 500.0, answered), LIMITS)
    found = row(made, CONTEXT, now)
    return found.waiting_ms, found.batch_ms, found.inference_ms, found.sink_ms


def test_the_stages_add_up_to_the_whole():
    """Published at 100, held by sinks for 4 s until it is begun at 110, answered at 113, its row made at 115."""
    message = Message(b"x", {}, "1", 100.0, 100.0, taken=110.0, held=4.0)
    assert stages(message, 113.0, 115.0) == (6000.0, 2500.0, 500.0, 6000.0)


def test_an_answer_made_ahead_costs_its_message_nothing():
    """Answered before its bundle was begun: no time of a batch, and the sink's begins with the bundle."""
    message = Message(b"x", {}, "1", 100.0, 100.0, taken=110.0)
    assert stages(message, 109.0, 111.0) == (10000.0, 0.0, 500.0, 1000.0)


def test_what_was_not_noted_is_not_made_up():
    """A message of a release that noted no begin has no stages, and a failure none but its waiting."""
    assert stages(Message(b"x", {}, "1", 100.0, 100.0), 113.0, 115.0) == (None, None, 500.0, None)
    found = row(Failure(Message(b"x", {}, "1", 100.0, 100.0, taken=101.0), "decode", "X", "x", 102.0), CONTEXT, 103.0)
    assert (found.waiting_ms, found.batch_ms, found.sink_ms) == (1000.0, None, None)


def test_a_bundle_is_told_how_long_sinks_held_the_one_before():
    """Their time goes to the next bundle, once, and never more than a message has waited."""
    timing.begin([Message(b"x", {}, "0", time.time())])
    with timing.sink():
        time.sleep(0.05)
    old, new, later = (Message(b"x", {}, "1", time.time() - age) for age in (60.0, 0.0, 60.0))
    timing.begin([old, new])
    timing.begin([later])
    assert 0.05 <= old.held <= 60 and 0 <= new.held < old.held and later.held == 0
    assert old.taken == new.taken <= later.taken


def test_the_begin_travels_and_makes_no_other_message():
    """It stays where a record is written for the shuffle, and two deliveries of one message are still equal."""
    message = Message(b"x", {}, "1", 100.0, 100.0, taken=101.0, held=0.5)
    again = pickle.loads(pickle.dumps(message))
    assert (again.taken, again.held) == (101.0, 0.5)
    assert message == dataclasses.replace(message, taken=7.0)


def test_workers_of_one_subscription_have_names():
    """A row says which host and process wrote it."""
    message = Message(b"x", {}, "1", 100.0, 100.0)
    found = row(Failure(message, "decode", "X", "x", 102.0), CONTEXT, 103.0).worker
    assert found == timing.worker() and found.rpartition("-")[2] == str(os.getpid())
