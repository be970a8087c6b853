"""The workbench in a real Chromium: an operator's walk, and a list that stands still."""

from __future__ import annotations

import json

import pytest
from console_data import fail, fail_again, go, letter, result, view

from pipeline import publish

pytestmark = pytest.mark.usefixtures("servers")

CAUSES = (
    ("decode", "InvalidJson", "not JSON: expected a value at line 1, column {}", 120),
    ("predict", "InvalidInput", "inputs is 'dict{}', not a text", 90),
    ("predict", "TooLong", "{} tokens, and the model reads 512", 60),
    ("predict", "InvalidInput", "inputs is missing in message {}", 20),
    ("audit", "RowRefused", "no column 'extra{}'", 10),
)


def three_hundred():
    letters = []
    for stage, error_type, error, count in CAUSES:
        for _ in range(count):
            n = len(letters)
            own = {"customer": str(n % 7)}
            letters.append(
                letter(
                    f"m-{n}",
                    b'{"inputs": {"text": "a"}}',
                    own,
                    stage=stage,
                    error_type=error_type,
                    error=error.format(n),
                )
            )
    return letters


def test_an_operator_walks_through_three_hundred(page, resources):
    """Five causes among 300: one is found, three mended by hand, the rest replayed, two dismissed."""
    fail(resources, *three_hundred())
    clicks = 0

    def click(selector: str) -> None:
        nonlocal clicks
        page.click(selector)
        clicks += 1

    page.wait_for_selector("#dead-badge >> text=300")
    click("nav a[data-view='dead-letters']")
    page.wait_for_selector("h2:has-text('300 dead letters')")
    assert page.locator(".cause").count() == 5
    assert page.inner_text(".cause >> nth=0").startswith("decode")
    # One cause is found.
    click(".cause-name:has-text('inputs is missing')")
    page.wait_for_selector("h2:has-text('20 dead letters that fit')")
    assert page.locator(".letter").count() == 20
    # Three are mended by hand.
    for n in range(3):
        click(f".letter >> nth={n} >> .buttons >> text=Edit")
        page.wait_for_selector("#edit-text")
        page.fill("#edit-text", json.dumps({"inputs": f"mended {n}"}))
        click("#confirm .primary")
        page.wait_for_selector(f".letter >> nth={n} >> text=edited and replayed")
    # Two are dismissed.
    for n in (3, 4):
        click(f".letter >> nth={n} >> input[type=checkbox]")
    click(".bulk >> text=Dismiss 2")
    page.fill("#why", "a test customer")
    click("#confirm .primary")
    page.wait_for_selector(".tab:has-text('Dismissed 2')")
    # The rest of all causes is replayed.
    click(".filter >> text=Clear")
    page.wait_for_selector("h2:has-text('300 dead letters')")
    click(".bulk .primary:has-text('Replay all: 295')")
    page.wait_for_selector("#confirm >> text=Replay 295 messages?")
    click("#confirm .primary")
    page.wait_for_selector(".tab:has-text('On their way 298')")
    assert clicks == 15  # docs/console.md says so


def test_the_list_stands_still_and_a_thread_is_one(page, resources):
    """New ones are counted, not shown; a replay that fails again stays in its place and is no new one."""
    first = letter("t-1", error="because of a")
    fail(resources, first)
    view(page, "dead-letters")
    page.wait_for_selector(".letter:has-text('t-1')")
    fail(resources, letter("t-2"), letter("t-3"))
    page.wait_for_selector(".more:has-text('2 more came in')")
    assert page.locator(".letter").count() == 1
    page.click(".letter .buttons >> text=Replay")
    page.click("#confirm .primary")
    new_id = page.wait_for_selector(".thread .link").inner_text()
    fail(resources, fail_again(first, new_id))
    page.wait_for_selector(".letter-side >> text=failed 2 times")
    assert page.inner_text(".letter .pill") == "waiting" and page.locator(".letter").count() == 1
    page.wait_for_selector(".more:has-text('2 more came in')")
    page.click(".letter .buttons >> text=Replay")
    page.click("#confirm .primary")
    page.wait_for_selector(".letter .thread li >> nth=3")
    last = page.locator(".thread .link").last.inner_text()
    publish.publish_all(resources.output_topic, [result(last, [], dead_letter_first_message_id="t-1")])
    page.wait_for_selector(".letter >> text=became a result")
    page.click(".more")
    page.wait_for_selector(".letter >> nth=2")


def test_clicks_write_the_filter_and_the_address_holds_it(page, resources):
    """Causes, attributes and states are terms in the address; Back takes them out, and the address brings them back."""
    fail(resources, letter("c-1", own={"customer": "a b"}), letter("c-2", error_type="Other", own={"customer": "c"}))
    view(page, "dead-letters")
    page.wait_for_selector(".cause >> nth=1")
    page.click(".attribute >> text=customer=a b")
    page.wait_for_selector("h2:has-text('1 dead letter that fit')")
    assert page.input_value("#search") == 'customer="a b"'
    page.click(".tab:has-text('Waiting')")
    page.wait_for_function("() => location.hash.includes('is%3Awaiting')")
    page.reload()
    page.wait_for_selector("h2:has-text('1 dead letter that fit')")
    assert page.input_value("#search") == 'customer="a b" is:waiting'
    view(page, "results")
    page.wait_for_selector("main >> text=Nothing fits the filter")
    go(page, "dead-letters?q=score<x")
    page.wait_for_selector("main >> text=score: 'x' is no number")
    go(page, "dead-letters")
    page.wait_for_selector(".letter >> nth=1")
    go(page, "dead-letters?q=why?&")
    page.wait_for_function("() => document.getElementById('search').value === 'why?'")
