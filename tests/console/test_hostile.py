"""What nobody should send: the page and its stream go on, and what it is is shown as far as it can be."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from console_data import fail, go, letter, result
from streams import text_message

from pipeline import publish
from pipeline.console import audit, filters, settings
from pipeline.console.flow import read_metrics
from pipeline.console.observer import Observer
from pipeline.console.show import summary, whole
from transforms.records import Message

BOX = {"xmin": -50, "ymin": -50, "xmax": 9_000, "ymax": 10}
#: Predictions as bytes of JSON, or of none.
PREDICTIONS: dict[str, bytes] = {
    "deep": b"[" * 8_000 + b"]" * 8_000,
    "long label": orjson.dumps([{"label": "‮" + "שלום " * 2_000, "score": 0.5}]),
    "5,000 labels": orjson.dumps([{"label": f"L{n}", "score": n / 5_000} for n in range(5_000)]),
    "logits": orjson.dumps([{"label": "constructor", "score": 12.5}, {"label": "__proto__", "score": -3}]),
    "names": orjson.dumps([{"label": "\u202eevil", "score": 0.6}, {"label": " ", "score": 0.4}]),
    "boxes": orjson.dumps([{"label": "x" * 500, "score": 0.5, "box": BOX}, {"label": "y", "box": {"xmin": "1"}}]),
    "not a number": b'[{"label": "a", "score": NaN}]',
    "long vector": orjson.dumps([0.123456789012345 + n for n in range(20_000)]),
    "unknown": orjson.dumps({"__proto__": 1, "x" * 2_000: [None, True, {"deep": [[]]}], "": -0.0}),
    "a number": b"5",
    "nothing": b"null",
    "no JSON": b"\xff\xfe{",
}


def test_a_message_that_cannot_be_taken_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the others are taken; numbers that are none, long labels and skewed clocks are no such."""
    observer = Observer(settings.parse(["--output_subscription=projects/my-project/subscriptions/results"]))
    observer.book.know_repeats_by("n")
    odd = {"dead_letter_attempt": "²", "dead_letter_stage": "predict", "n": "1", "dead_letter_message_id": "d"}
    observer._dead_letters([Message(b"\xff", odd, "1", 4e9)])
    observer._published([Message(b"", {}, "2", 4e9), Message(b"\xff", {}, "3", -1.0)])
    for n, body in enumerate(PREDICTIONS.values()):
        observer._results([Message(b'{"prediction":%s}' % body, {"message_id": str(n)}, f"o{n}")])
    assert observer.flow.results == len(PREDICTIONS) and observer.flow.dead_letters["predict"] == 1
    assert not caplog.records

    def take(message: Message) -> Any:
        if message.message_id == "poison":
            raise RuntimeError("nobody thought of this")

    observer.book.result = take  # type: ignore[method-assign]
    observer._results([Message(b"", {}, "poison"), Message(b"", {}, "last")])
    assert [record.message for record in caplog.records] == ["message poison is left out"]
    stories, _ = observer.book.newest("ok", 100)
    event = orjson.dumps([observer.figures(), [summary(each) for each in stories], [whole(each) for each in stories]])
    assert len(orjson.dumps(observer.figures())) < 20_000 and b"NaN" in event


def test_metrics_of_any_text_are_shown(tmp_path: Any) -> None:
    """A log line with half a character, a file without counters, and one that is no JSON object."""
    file = tmp_path / "metrics.json"
    file.write_text('{"time": 1.0, "log": ["\\udcff \\ud83d\\ude00"]}')
    found = read_metrics(file)
    assert found is not None and found["log"] == ["? 😀"] and found["counters"] == {}
    assert orjson.dumps(found)
    for text in ("[1]", '{"time": "now"}', "{", ""):
        file.write_text(text)
        assert read_metrics(file) is None


def test_numbers_that_json_has_not_are_named() -> None:
    """A query's NaN and infinities, which JSON could not carry, and whole numbers that a browser would round."""
    assert json.dumps(audit.plain([float("nan"), float("inf"), 1.5]), allow_nan=False) == '["nan", "inf", 1.5]'
    assert audit.plain([2**53, 2**53 + 1, -(2**63)]) == [2**53, "9007199254740993", "-9223372036854775808"]


def test_any_result_has_its_story(page, resources) -> None:
    """Each opens, says what it is or shows its JSON, and widens nothing; so does one whose id is an address."""
    ids = publish.publish_all(resources.input_topic, [text_message("‮hostile <b>") for _ in PREDICTIONS])
    names = [*PREDICTIONS, "an address"]
    ids.append("a/b?c#d%/picture x")
    bodies = [*PREDICTIONS.values(), b'"said"']
    results = [
        Message(b'{"prediction":%s}' % body, {"message_id": each}) for each, body in zip(ids, bodies, strict=True)
    ]
    publish.publish_all(resources.output_topic, results)
    go(page, "results")
    page.locator(f".item >> nth={len(ids) - 1}").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    told = {}
    for name, each in zip(names, ids, strict=True):
        page.evaluate("id => { location.hash = `results/message/${encodeURIComponent(id)}`; }", each)
        page.locator("#story-title code", has_text=each).wait_for()
        shown = page.locator("#story .part", has_text="What went out")
        shown.wait_for()
        told[name] = shown.inner_text()
        assert page.evaluate("document.querySelector('#story').scrollWidth <= 820"), name
    assert "12.500" in told["logits"] and "and 4,992 more" in told["5,000 labels"]
    assert "20,000 numbers" in told["long vector"] and "NaN" in told["not a number"]
    assert "\\u202eevil" in told["names"] and "(blank)" in told["names"]
    assert "said" in told["an address"] and "NaN ×" not in told["boxes"]


#: Names and values that a click must find again.
HOSTILE = [
    'say "hi"',
    "a:b",
    "a<=b",
    "back\\slash\\",
    'both \\" of them',
    "two\nlines\r\nand\ttabs",
    "\\n is no line",
    "\u202eevil",
    "=cmd()|' /C calc'!A0",
    "-since",
    "since",
    "label",
    "nel\x85 unit\x1f nbsp\xa0 bom\ufeff",
    "__proto__",
    "100%",
    "a&q=b#c?d+e",
    "سلام 🙂",
    " blank ",
]


def test_a_click_writes_a_term_that_is_read_as_it_was_meant(page) -> None:
    """The page quotes, the console reads: field, sign and value come back; the box keeps all of it."""
    told = page.evaluate(
        """async (words) => { const { term, termsOf } = await import("/static/filter.js");
        const box = document.getElementById("search");
        return words.map((each, i) => {
          const terms = [term(each, words.at(i - 1), "="), term("label", each), term("reason", each)];
          box.value = terms.join(" ");
          return { q: box.value, same: JSON.stringify(termsOf(box.value)) === JSON.stringify(terms) }; }); }""",
        HOSTILE,
    )
    for i, (each, found) in enumerate(zip(HOSTILE, told, strict=True)):
        attribute, label, cause = filters.parse(found["q"])
        assert (attribute.key, attribute.op, attribute.value) == (each, "=", HOSTILE[i - 1])
        assert [(t.key, t.value, t.negated) for t in (label, cause)] == [
            ("label", each, False),
            ("reason", each, False),
        ]
        assert found["same"]


def test_what_is_clicked_is_what_is_found(page, resources) -> None:
    """A label, then an attribute of a dead letter: their rows and no others, after a reload, back and forward."""
    labels = [each for each in HOSTILE if each.strip() == each]
    ids = publish.publish_all(resources.input_topic, [text_message("x") for _ in labels])
    publish.publish_all(
        resources.output_topic,
        [result(each, [{"label": label, "score": 0.5}]) for each, label in zip(ids, labels, strict=True)],
    )
    own = {each: each for each in ('odd "key"', "a:b", "-x", "since")}
    other = dict.fromkeys(own, "another")
    fail(resources, letter("h-1", own=own, error='no "x\\'), letter("h-2", own=other, error="-error:Odd"))

    def shown(label: str) -> None:
        only = "label => document.querySelector('.item:only-child .plain')?.title === `${label}: show these`"
        page.wait_for_function(only, arg=label)

    go(page, "results")
    page.locator(f".item >> nth={len(labels) - 1}").wait_for()
    for each in labels:
        # Clicked from the page itself, one after the other: each takes the place of the one before.
        page.evaluate(
            """async (label) => { const { narrow, term } = await import("/static/filter.js");
            narrow(term("label", label)); }""",
            each,
        )
        shown(each)
    address, typed = page.url, page.input_value("#search")
    page.reload()
    shown(labels[-1])
    page.focus("#search")
    page.keyboard.press("Enter")
    assert (page.url, page.input_value("#search")) == (address, typed)
    page.go_back()
    shown(labels[-2])
    assert page.input_value("#search") != typed
    page.go_forward()
    shown(labels[-1])
    go(page, "dead-letters")
    page.locator(".letter >> nth=1").wait_for()
    for place in range(len(own)):
        page.locator(".letter", has_text="h-1").locator(".attribute").nth(place).click()
        page.locator(".letter:only-child", has_text="h-1").wait_for()
    assert len(filters.parse(page.input_value("#search"))) == len(own)
    page.click(".cause-name")
    page.locator(".cause-name[aria-pressed=true]").wait_for()
    page.locator(".letter:only-child", has_text="h-1").wait_for()
    page.click(".cause-name")
    page.locator(".cause-name[aria-pressed=false]").wait_for()
    assert len(filters.parse(page.input_value("#search"))) == len(own)


def test_no_id_is_another_path(page, resources) -> None:
    """A result that says it is of message ``..``, or of one whose name ends like an address of ours, has its story."""
    ids = ["..", ".", "x/picture", "message"]
    publish.publish_all(resources.output_topic, [result(each, [{"label": "L", "score": 0.5}]) for each in ids])
    go(page, "results")
    page.locator(f".item >> nth={len(ids) - 1}").wait_for()
    for place in range(len(ids)):
        page.locator(".item .what .link").nth(place).click()
        page.locator("#story .part", has_text="What went out").wait_for()
        page.keyboard.press("Escape")
        page.locator("#story").wait_for(state="hidden")
