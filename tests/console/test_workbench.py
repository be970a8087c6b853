"""The workbench's requests: cases and their threads, a list that stands still, edits, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from console_data import fail, fail_again, flags_of, letter, result
from console_served import served
from streams import fresh, pull

from pipeline import publish
from pipeline.console.actions import Refused, draft, edited
from pipeline.console.book import Book
from pipeline.console.cases import Cases
from pipeline.console.filters import matcher
from transforms.records import Message


def as_published(message: Message, own_id: str, at: float = 100.0) -> Message:
    return Message(message.data, message.attributes, own_id, publish_time=at)


def test_a_failure_and_its_replays_are_one_case():
    """Failed, replayed, failed again, replayed, mended: one case, never counted as new, with the whole thread."""
    book = Book()
    first = letter("1")
    story = book.dead_letter(as_published(first, "d1"))
    book.replayed("1", "2")
    assert book.case_counts() == {"replayed": 1, "number": 1}
    again = book.dead_letter(as_published(fail_again(first, "2"), "d2"))
    assert book.case_counts() == {"waiting": 1, "number": 1}
    assert book.case(again) is book.case(story) and book.case(again).root == "1"
    book.replayed("2", "3", edited=True)
    book.result(as_published(result("3", [{"label": "A", "score": 1}], dead_letter_first_message_id="1"), "o3"))
    assert book.case_counts() == {"mended": 1, "number": 1}
    steps = [step["what"] for step in book.case(story).steps]
    assert steps == ["failed", "replayed", "failed", "edited and replayed", "became a result"]


def test_a_replay_may_end_before_it_is_noted():
    """The result of a replay can be there before the console has written down that it replayed: it is mended."""
    book = Book()
    story = book.dead_letter(as_published(letter("1"), "d1"))
    book.result(as_published(result("2", [], dead_letter_first_message_id="1"), "o2"))
    book.replayed("1", "2")
    case = book.case(story)
    assert case.state == "mended"
    assert [step["what"] for step in case.steps] == ["failed", "replayed", "became a result"]


def test_a_repeat_of_the_same_failure_is_one_step():
    """After a crash the same dead letter is published again, under another id: it failed once."""
    book = Book()
    story = book.dead_letter(as_published(letter("1"), "d1"))
    book.dead_letter(as_published(letter("1"), "d2"))
    assert len(book.case(story).steps) == 1 and book.case_counts() == {"waiting": 1, "number": 1}


def test_the_list_stands_still():
    """Asked as of a number, later cases are not in it, and a replay's failure does not move its case."""
    book = Book()
    letters = [letter(str(n)) for n in range(3)]
    for n, each in enumerate(letters):
        book.dead_letter(as_published(each, f"d{n}"))
    book.dead_letter(as_published(fail_again(letters[0], "9"), "d9"))
    found, _ = book.cases(matcher(""), until=2)
    assert [case.root for case in found] == ["1", "0"]
    assert [case.root for case in book.cases(matcher(""))[0]] == ["2", "1", "0"]


def test_groups_are_by_reason():
    """One stage and kind of error with two reasons are two causes."""
    book = Book()
    for n, error in enumerate(["field 'a' is no text", "field 'b' is no text", "inputs is missing"]):
        book.dead_letter(as_published(letter(str(n), error=error), f"d{n}"))
    _, groups = book.cases(matcher(""))
    assert [(group["reason"], group["count"]) for group in groups] == [
        ("field … is no text", 2),
        ("inputs is missing", 1),
    ]


def test_dismissing_has_a_reason_and_a_way_back():
    """Only what waits is dismissed; put back, it waits again; the thread tells both."""
    book, cases = Book(), Cases()
    story = book.dead_letter(as_published(letter("1"), "d1"))
    assert book.dismiss(["1", "none-such"], "a test customer") == 1 and book.dismiss(["1"], "again") == 0
    assert (book.case(story).state, book.case(story).why) == ("dismissed", "a test customer")
    assert book.dismiss(["1"], "") == 1 and book.case(story).state == "waiting"
    assert [step["what"] for step in book.case(story).steps] == ["failed", "dismissed", "put back"]
    assert cases.counts() == {}


def test_an_edit_names_the_old_and_keeps_the_notes():
    """Text and attributes are as edited; notes that are the job's cannot be set; unchanged is refused."""
    old = letter("1", b'{"inputs": 7}', {"colour": "green"}, attempt="2", first_message_id="0")
    assert draft(old) == {"text": '{"inputs": 7}', "attributes": {"colour": "green"}}
    new = edited(old, {"text": '{"inputs": "seven"}', "attributes": {"colour": "red", "dead_letter_attempt": "9"}})
    assert new.data == b'{"inputs": "seven"}' and new.attributes["colour"] == "red"
    assert (new.attributes["dead_letter_attempt"], new.attributes["dead_letter_first_message_id"]) == ("2", "0")
    for body in ({}, {"text": 7}, {"attributes": {"a": 1}}, {"text": old.data.decode()}):
        with pytest.raises(Refused):
            edited(old, body)
    assert draft(Message(b"\xff", {}))["text"] is None
    assert edited(Message(b"\xff", {}), {"attributes": {"a": "b"}}).data == b"\xff"


@pytest.fixture(scope="module")
def shop(servers):
    return fresh("bench")


@pytest.fixture(scope="module")
def client(shop) -> Iterator[httpx.Client]:
    with (
        served(*flags_of(shop)) as server,
        httpx.Client(base_url=f"http://{server.address}", trust_env=False, timeout=60) as client,
    ):
        client.headers["X-Console-Token"] = client.get("/api/about").json()["token"]
        yield client


def listed(client: httpx.Client, q: str, count: int) -> dict[str, Any]:
    for _ in range(600):
        found = client.get("/api/dead-letters", params={"q": q}).json()
        if found.get("count") == count:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_edited_and_replayed_over_http(client, shop):
    """What is edited on the page is published as a new message that names the old; the case is on its way."""
    fail(shop, letter("e-1", own={"batch": "edit"}))
    listed(client, "batch=edit", 1)
    assert client.get("/api/draft?id=e-1").json() == {"text": '{"inputs": 7}', "attributes": {"batch": "edit"}}
    edit = {"text": '{"inputs": "seven"}', "attributes": {"batch": "edit", "mended": "by hand"}}
    answer = client.post("/api/replay", json={"message_ids": ["e-1"], "edit": edit}).json()
    (sent,) = pull(shop.input_subscription, 1, 60)
    assert json.loads(sent.data) == {"inputs": "seven"} and sent.attributes["mended"] == "by hand"
    assert sent.attributes["dead_letter_first_message_id"] == "e-1"
    assert answer["replayed"] == [{"message_id": "e-1", "replayed_as": sent.message_id}]
    assert client.get("/api/dead-letters?q=batch=edit is:replayed").json()["count"] == 1
    publish.publish_all(shop.output_topic, [result(sent.message_id, [], **sent.attributes)])
    listed(client, "batch=edit is:mended", 1)
    thread = client.get(f"/api/message?id={sent.message_id}").json()["story"]["case"]
    assert thread["root"] == "e-1" and thread["steps"][-1]["what"] == "became a result"


def test_a_replay_by_filter_takes_what_was_listed(client, shop):
    """By filter and number: what came in later stays, and what is dismissed or on its way is not sent."""
    fail(shop, *(letter(f"f-{n}", own={"batch": "filter"}) for n in range(4)))
    until = listed(client, "batch=filter", 4)["until"]
    assert client.post("/api/dismiss", json={"message_ids": ["f-0"], "why": "a test"}).json() == {"done": 1}
    fail(shop, letter("f-9", own={"batch": "filter"}))
    listed(client, "batch=filter", 5)
    held = client.get("/api/dead-letters", params={"q": "batch=filter", "until": until}).json()
    assert (held["count"], held["new"]) == (4, 1)
    answer = client.post("/api/replay", json={"q": "batch=filter", "until": until}).json()
    assert {each["message_id"] for each in answer["replayed"]} == {"f-1", "f-2", "f-3"}
    assert client.post("/api/replay", json={"q": "batch=filter", "until": until}).json() == {"replayed": []}
    pull(shop.input_subscription, 3, 60)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/replay", {}, "which ones"),
        ("/api/replay", {"q": "score<x"}, "no number"),
        ("/api/replay", {"message_ids": [], "edit": {"text": "a"}}, "one waiting dead letter at a time"),
        ("/api/dismiss", {"message_ids": []}, "say why"),
        ("/api/dismiss", {"why": "because"}, "which ones"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(client, path, body, words):
    """Nothing chosen, a filter that is none, an edit of none, a dismissal without a reason."""
    answer = client.post(path, json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]


def test_samples_of_a_step(client, shop):
    """What failed at a step, and what passed it: also what failed later."""
    fail(
        shop,
        letter("s-1", own={"batch": "steps"}, stage="decode"),
        letter("s-2", own={"batch": "steps"}, stage="audit"),
    )
    publish.publish_all(shop.output_topic, [result("s-3", [], batch="steps")])
    listed(client, "batch=steps", 2)
    for _ in range(600):
        if client.get("/api/results?q=batch=steps").json()["count"]:
            break
        time.sleep(0.1)

    def at(step: str) -> tuple[set[str], set[str]]:
        found = client.get("/api/samples", params={"step": step, "q": "batch=steps"}).json()
        return tuple({each["message_id"] for each in found[key]} for key in ("passed", "failed"))

    assert at("decode") == ({"s-2", "s-3"}, {"s-1"})
    assert at("audit") == ({"s-3"}, {"s-2"})
    assert at("output") == ({"s-3"}, set()) and at("dead") == (set(), {"s-1", "s-2"})
