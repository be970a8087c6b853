"""The models file: what it may hold, what is told of faults by line, and which model a message goes to."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from transforms.models.fleet.agreement import MEASURES, agree
from transforms.models.fleet.file import FileErrors, ModelsFile, parse
from transforms.models.fleet.routes import Routes, Rule, Shadow, fits, point
from transforms.models.fleet.view import Reader
from transforms.models.task_table import TASKS
from transforms.records import Message, Request

EXAMPLE = """\
models:
  stable: {model: my-org/tickets, revision: 3f1c9a7, task: text-classification, parameters: {top_k: 1}}
  next:   {model: "gs://my-bucket/tickets-2026-11", task: text-classification}
  no:     {model: my-org/tickets-no, revision: main, refresh: true}
  large:  {endpoint: "https://models.example", task: text-generation}
serve:
  - {when: "attributes.language == 'no'", use: no}
  - {split: {stable: 90, next: 10}, by: attributes.customer}
shadow:
  - {model: next, share: 0.2}
checks:
  next: {file: checks/tickets.ndjson, at_least: 0.95}
"""


def read(text: str) -> ModelsFile:
    return parse(text.encode(), "models.yaml")


def seen(body: Any = None, message_id: str = "1", **attributes: str) -> Any:
    data = b"\xff\xd8" if body is None else json.dumps(body).encode()
    return Reader().view(Request("", {}, Message(data, attributes, message_id)))


def test_the_example_is_read() -> None:
    """Norway's code is a text, a bucket is followed, a branch where it says so, and shares are parts of one."""
    file = read(EXAMPLE)
    assert list(file.models) == ["stable", "next", "no", "large"]
    assert [each.follows for each in file.models.values()] == [False, True, True, False]
    assert file.routes.rules[1] == Rule(None, (("stable", 0.9), ("next", 0.1)), "attributes.customer")
    assert file.routes.shadows == (Shadow("next", 0.2),)
    assert file.checks["next"].at_least == 0.95
    assert read("models:\n  only: {model: my-org/tickets}\n").routes.always() == ["only"]


@pytest.mark.parametrize(
    ("change", "to", "line", "words"),
    [
        ("revision: 3f1c9a7", "revision: 1234567", 2, "1234567 must be a text; put it in quotes"),
        ("revision: 3f1c9a7", "revison: 3f1c9a7", 2, "'revison': no such key; did you mean 'revision'?"),
        ("task: text-classification}", "task: text-classifcation}", 3, "did you mean text-classification?"),
        ("my-org/tickets-no", "2026-11-01", 4, "is read as a date; put it in quotes"),
        (', task: text-generation', "", 5, "models.large: task is missing"),
        ("text-generation", "depth-estimation", 5, "no endpoint can be asked for depth-estimation"),
        ("use: no", "use: german", 7, "no model is named 'german'"),
        ("attributes.language ==", "attributes.language =", 7, "is not a JMESPath expression"),
        ("stable: 90, next: 10", "stable: 0, next: 0", 8, "the shares are all 0"),
        ("next: 10}", "nxet: 10}", 8, "did you mean 'next'?"),
        ("{when: \"attributes.language == 'no'\", use: no}", "{use: no}", 8, "never reached, as the rule on line 7"),
        ("share: 0.2", "share: 1.2", 10, "shadow.0.share: 1.2 must be at most 1"),
        ("next: {file:", "nxt: {file:", 12, "no model is named 'nxt'"),
        ("models:", "models: [", 3, "expected"),
        ("  next: ", "  stable: ", 3, 'found duplicate key "stable"'),
        ("stable:", "st/able:", 2, "not a model's name"),
        ("{file: checks/tickets.ndjson, at_least", "{at_least", 12, "file is missing"),
    ],
)  # fmt: skip
def test_a_fault_is_told_by_its_line(change: str, to: str, line: int, words: str) -> None:
    """Each has the line that it stands on, and the way out."""
    assert change in EXAMPLE
    with pytest.raises(FileErrors) as raised:
        read(EXAMPLE.replace(change, to, 1))
    assert any(at == line and words in said for at, said in raised.value.found), raised.value.lines()


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "models: &a [*a]", "models: {a: {<<: *b}}", "\0", "a: b: c", "models: {a: }", "[" * 5000, "1: 2"],
)
def test_what_is_no_models_file_is_one_line_each(text: str) -> None:
    """Nothing but ``FileErrors`` comes of any text, bombs of aliases among them."""
    with pytest.raises(FileErrors):
        read(text)
    bomb = "models:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    with pytest.raises(FileErrors, match="aliases of aliases"):
        read(bomb)


def test_an_entry_may_stand_on_another() -> None:
    """Anchors and merges are YAML's own way not to write a thing twice."""
    file = read(
        "models:\n  a: &a {model: o/m, task: ner}\n  b: {<<: *a, revision: v2}\nserve: [{split: {a: 1, b: 1}}]\n"
    )
    assert (file.models["b"].model, file.models["b"].task, file.models["b"].revision) == ("o/m", "ner", "v2")


def test_a_split_keeps_its_shares_and_its_keys() -> None:
    """Over 100,000 ids within half a percent of the shares, and the same id always at the same model."""
    views = [seen(message_id=f"id-{n}") for n in range(100_000)]
    for shares in ((90, 10), (50, 25, 25)):
        rule = Rule(None, tuple((str(i), share / sum(shares)) for i, share in enumerate(shares)))
        chosen = [rule.choose(view) for view in views]
        counted = Counter(chosen)
        for i, share in enumerate(shares):
            assert abs(counted[str(i)] / len(views) - share / sum(shares)) < 0.005
        assert [rule.choose(view) for view in views[::37]] == chosen[::37]


def test_a_canary_that_grows_moves_nobody_back() -> None:
    """From 90:10 to 60:40, every key of the canary stays with it."""
    small, large = (Rule(None, (("stable", 1 - share), ("next", share)), "attributes.customer") for share in (0.1, 0.4))
    for n in range(2_000):
        view = seen(customer=f"c{n}")
        assert small.choose(view) == "stable" or large.choose(view) == "next"


def test_a_split_by_what_a_message_holds() -> None:
    """The same value goes to the same model whatever the message's id; without the value, the id decides."""
    by = Rule(None, (("a", 0.5), ("b", 0.5)), "body.user.id")
    for n in range(50):
        assert len({by.choose(seen({"inputs": "x", "user": {"id": n}}, str(i))) for i in range(20)}) == 1
    assert {by.choose(seen({"inputs": "x"}, str(i))) for i in range(50)} == {"a", "b"}
    assert {by.choose(seen(None, str(i))) for i in range(50)} == {"a", "b"}


def test_a_rule_that_raises_does_not_fit() -> None:
    """Whatever a body holds, a rule is no more than one that does not fit; a file is no body."""
    for when in (
        "ceil(body.inputs)",
        "contains(body, 'x')",
        "max_by(body, &x)",
        "body.inputs > `1`",
        "sum(attributes)",
    ):
        for body in ({"inputs": "text"}, {"inputs": None}, [1, "a"], {"inputs": 1}, None):
            assert fits(when, seen(body)) in (True, False)
    view = seen({"inputs": "a secret"})
    assert not fits("ceil(body.inputs)", view)
    assert view.raised == {"ceil(body.inputs)": "ceil() takes number, and got string"}
    assert not fits("body", seen(None)) and fits("body", seen({"inputs": "x"}))
    assert fits("attributes.language == 'de'", seen(None, language="de"))
    assert not fits("attributes.language == 'de'", seen(None))


def test_rules_are_asked_in_order_and_may_all_miss() -> None:
    """The first that fits decides; without one for all others a message has no model."""
    text = EXAMPLE.replace("  - {split: {stable: 90, next: 10}, by: attributes.customer}\n", "")
    routes = read(text).routes
    assert routes.choose(seen(language="no")) == "no" and routes.choose(seen(language="de")) is None
    assert routes.always() == []


def test_shadows_take_their_shares_and_a_message_has_one_at_most() -> None:
    """Two shadows of a fifth and a tenth answer so many messages, drawn apart from the split."""
    routes = Routes((Rule(None, (("a", 0.5), ("b", 0.5))),), (Shadow("s", 0.2), Shadow("t", 0.1)))
    views = [seen(message_id=f"id-{n}") for n in range(10_000)]
    drawn = Counter((routes.choose(view), routes.shadow(view)) for view in views)
    for name, share in (("s", 0.2), ("t", 0.1)):
        for served in "ab":
            assert abs(drawn[served, name] / len(views) - share / 2) < 0.01
    assert 0 <= point("") < 1


@pytest.mark.parametrize(
    ("task", "one", "other", "expected"),
    [
        ("text-classification", [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.4}], "a", True),
        ("text-classification", [{"label": "a", "score": 0.6}], [{"label": "b", "score": 0.9}], False),
        ("zero-shot-classification", {"labels": ["x", "y"], "scores": [1, 0]}, {"labels": ["x", "y"]}, True),
        ("feature-extraction", [1.0, 0.0], [1.0, 0.1], True),
        ("feature-extraction", [1.0, 0.0], [0.0, 1.0], False),
        ("feature-extraction", [1.0, 0.0], [1.0, 0.0, 0.0], False),
        ("text-generation", [{"generated_text": "hi "}], "hi", True),
        ("translation", [{"translation_text": "hi"}], [{"translation_text": "ho"}], False),
        ("question-answering", {"answer": "Paris"}, {"answer": "Paris"}, True),
        ("sentence-similarity", [0.5, 0.1], [0.505, 0.1], True),
        ("text-ranking", [{"index": 1}], [{"index": 0}], False),
        ("token-classification", [{"entity_group": "PER", "start": 0, "end": 4}], [], False),
        ("object-detection", [{"label": "cat"}], [{"label": "cat"}], True),
        ("depth-estimation", {}, {}, None),
        ("text-classification", [], None, False),
    ],
)
def test_agreement_is_by_the_tasks_own_measure(task: str, one: Any, other: Any, expected: bool | None) -> None:
    """Labels, cosines, texts, orders and marks; what has another shape does not agree, and nothing raises."""
    assert agree(task, one, other) is expected
    assert agree(task, other, one) is expected or isinstance(other, str)


def test_only_pictures_and_sounds_that_are_made_have_no_measure() -> None:
    """Every other task has one."""
    assert TASKS.keys() - MEASURES.keys() == {"depth-estimation", "text-to-audio"}
