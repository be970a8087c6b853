"""Answers made ahead: the same as those made in turn, for whichever messages come, and none for those that do not."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from transforms.models.ahead import Ahead
from transforms.models.answers import Answers
from transforms.records import Message, ModelInfo, Prediction, Request

INFO = ModelInfo("text-classification", "m", "r", "cpu", "float32")


class Model:
    """Says of each request what it was asked, and writes down who was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.fails: set[str] = set()
        self.made = threading.Semaphore(0)

    def answer(self, requests: Sequence[Request]) -> Answers:
        names = [request.inputs for request in requests]
        self.asked.append(names)
        try:
            if self.fails & set(names):
                raise OSError("storage is away")
            outcomes = [Prediction(each, each.inputs.upper(), INFO) for each in requests]
            return Answers(outcomes, tokens=len(names), ms=1000.0)
        finally:
            self.made.release()


class Slow:
    """A clock of a runner whose sinks take a second each time."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def requests(*names: str) -> list[Request]:
    return [Request(name, {}, Message(name.encode(), {}, name)) for name in names]


def told(answers: Answers) -> list[str]:
    return [each.prediction for each in answers.outcomes if isinstance(each, Prediction)]


def again(request: Request) -> Request:
    """What the graph decodes of the same message."""
    return Request(request.inputs, {}, request.message)


def test_what_comes_next_is_made_while_nobody_waits() -> None:
    """The runner asks for a bundle whose answers lie ready; those that came after it was looked at are made then."""
    model, queue = Model(), requests("a", "b")
    ahead = Ahead(model.answer, lambda: queue, Slow())
    assert told(ahead.answers(requests("z"))) == ["Z"]
    for _ in range(2):
        assert model.made.acquire(timeout=60)
    assert model.asked == [["z"], ["a", "b"]]
    late = requests("c")[0]
    coming, queue = [late, again(queue[1]), again(queue[0])], []
    answers = ahead.answers(coming)
    assert told(answers) == ["C", "B", "A"] and answers.tokens == 3
    ahead.close()
    assert model.asked == [["z"], ["a", "b"], ["c"]]


def test_answers_that_nobody_comes_for_are_dropped() -> None:
    """A message given back, and one that only looks like another, have nothing of answers made ahead."""
    model = Model()
    ahead = Ahead(model.answer, lambda: requests("a"), Slow())
    ahead.answers(requests("z"))
    assert told(ahead.answers(requests("a"))) == ["A"]
    ahead.close()
    assert model.asked.count(["a"]) >= 2  # the other message of that name was not this one


def test_what_fails_ahead_fails_where_it_is_heard() -> None:
    """An error that is nobody's fault is raised to the runner when the bundle comes, and not before."""
    model, queue = Model(), requests("a")
    ahead = Ahead(model.answer, lambda: queue, Slow())
    model.fails = {"a"}
    assert told(ahead.answers(requests("z"))) == ["Z"]
    with pytest.raises(OSError, match="storage is away"):
        ahead.answers([again(queue[0])])
    model.fails = set()
    assert told(ahead.answers([again(queue[0])])) == ["A"]
    ahead.close()


def test_closing_waits_and_begins_no_more() -> None:
    """Nothing is in the model once it is closed: a process that ended then would be taken for one that died of it."""
    model, queue = Model(), requests("a")
    ahead = Ahead(model.answer, lambda: queue, Slow())
    ahead.answers(requests("z"))
    ahead.close()
    assert model.asked == [["z"], ["a"]]
    assert told(ahead.answers([again(queue[0])])) == ["A"]
    assert model.asked == [["z"], ["a"]]


def test_quick_sinks_are_not_waited_for() -> None:
    """Where the runner is back in a twentieth of the model's time, what comes is answered when it comes."""
    model, queue, now = Model(), requests("a"), 0.0
    ahead = Ahead(model.answer, lambda: queue, lambda: now)
    ahead.answers(requests("x"))  # nothing is known yet
    assert model.made.acquire(timeout=60) and model.made.acquire(timeout=60)
    now += 0.05
    ahead.answers(requests("y"))
    ahead.answers(requests("z"))
    ahead.close()
    assert model.asked == [["x"], ["a"], ["y"], ["z"]]
