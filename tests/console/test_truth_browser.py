"""The page says no more than it knows: in a real Chromium."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from console_data import OWN_PROCESS, flags_of, go, publish_results, result, view
from console_served import served
from streams import fresh, text_message, waited

from pipeline import publish

pytestmark = pytest.mark.usefixtures("servers")


def test_shares_are_of_all_labels(page, resources):
    """Two hundred equal labels have half a per cent each, and what is not shown is said as others."""
    publish_results(resources, [f"label {n}" for n in range(200)])
    view(page, "results")
    page.wait_for_selector(".bar-row >> text=192 others")
    assert {each.strip() for each in page.locator(".bars .bar-value small").all_inner_texts()[:8]} == {"0.5 %"}


def test_what_came_in_is_not_what_went_out(browser, servers):
    """Where the input topic is not watched, a result's story says so, or shows what the result tells of its input."""
    resources = fresh("console")
    with served(f"--output_topic={resources.output_topic}") as server:
        told = result("2", [{"label": "B", "score": 0.5}])
        told = type(told)(json.dumps({**json.loads(told.data), "inputs": "as asked"}).encode(), told.attributes)
        publish.publish_all(resources.output_topic, [result("1", [{"label": "A", "score": 0.5}]), told])
        assert waited(lambda: server.observer.book.get("2"))
        page = browser.new_page()
        page.goto(f"http://{server.address}/#results/message/1")
        page.wait_for_selector("#story .part:has-text('What came in') >> text=the input topic is not watched")
        assert "prediction" not in page.inner_text("#story .part:has-text('What came in')")
        go(page, "results/message/2")
        page.wait_for_selector("#story .part:has-text('What came in') pre >> text=as asked")
        page.close()


@OWN_PROCESS
def test_three_lights_tell_console_pubsub_and_job_apart(page, console, resources):
    """With no job at work, messages wait and the job's light is red, while console and Pub/Sub are well."""
    publish.publish_all(resources.input_topic, [text_message(f"waits {n}") for n in range(3)])
    page.wait_for_selector(".light.bad[data-of=job] >> text=no result yet, 3 waiting")
    assert page.is_visible(".light.good[data-of='Pub/Sub']") and page.is_visible(".light.good[data-of=console]")
    os.kill(console.process.pid, signal.SIGSTOP)
    page.wait_for_selector(".light.bad[data-of=console]")
    assert "does not answer" in page.inner_text("#notice")
    os.kill(console.process.pid, signal.SIGCONT)
    page.wait_for_selector(".light.good[data-of=console]")


def test_a_job_that_was_killed_is_not_said_to_run(browser, servers, tmp_path):
    """Its metrics get old and messages wait: it was started, and is last heard of, until another job writes again."""
    resources, metrics = fresh("console"), tmp_path / "metrics.json"

    def write(age: float) -> None:
        job = {"started": time.time() - 60, "device": "cpu"}
        metrics.write_text(json.dumps({"time": time.time() - age, "job": job, "counters": {}, "distributions": {}}))

    write(0)
    with served(*flags_of(resources), f"--metrics_file={metrics}") as server:
        page = browser.new_page()
        page.goto(f"http://{server.address}/")
        page.locator(".light.good[data-of=job]", has_text="no result yet, nothing waits").wait_for()
        assert "Running since" in page.inner_text(".facts")
        height = page.evaluate("document.querySelector('header').offsetHeight")
        publish.publish_all(resources.input_topic, [text_message(f"waits {n}") for n in range(3)])
        write(20)
        page.locator(".light.bad[data-of=job]", has_text="no result yet, 3 waiting").wait_for()
        shown = page.inner_text(".facts")
        assert "Running since" not in shown and "Started" in shown and "Last heard of" in shown
        assert page.is_visible(".tile.bad >> text=On their way")
        assert page.evaluate("document.querySelector('header').offsetHeight") == height
        write(0)
        page.locator(".light:not(.bad)[data-of=job]").wait_for()
        assert "Running since" in page.inner_text(".facts")
        page.close()


@pytest.mark.parametrize(
    ("typed", "said", "published"),
    [
        (
            '{"inputs": "hello", "parameters": {"top_k": 1}}',
            "sent as it is",
            '{"inputs": "hello", "parameters": {"top_k": 1}}',
        ),
        ("hello", "A text", '{"inputs": "hello"}'),
        ('{"input": "hello"}', "A text", '{"inputs": "{\\"input\\": \\"hello\\"}"}'),
    ],
)
def test_a_body_is_not_wrapped_again(page, typed, said, published):
    """JSON with inputs is the message's body; anything else is a text. The page says which before it is sent."""
    view(page, "try")
    page.fill("#text", typed)
    page.wait_for_selector(f"#how >> text={said}")
    page.click(".try .primary")
    page.wait_for_selector(".journey details pre", state="attached")
    assert page.text_content(".journey details pre") == published


def test_times_are_of_one_zone_and_it_is_said(browser, servers):
    """Everything is in UTC, or by one switch in this machine's zone, and the page says which; charts and lists too."""
    resources = fresh("console")
    with served(*flags_of(resources)) as server:
        context = browser.new_context(timezone_id="Asia/Kolkata")
        page = context.new_page()
        publish_results(resources, ["hello"])
        page.goto(f"http://{server.address}/#results")
        page.wait_for_selector(".item")
        assert page.inner_text("#zone") == "Times: UTC"
        utc = page.inner_text(".item .when")
        assert page.get_attribute(".item .when", "title").endswith(f"{utc} UTC")
        page.click("#zone")
        page.wait_for_selector("#zone >> text=UTC+05:30")
        there = page.inner_text(".item .when")
        hours, minutes = (int(each) for each in utc.split(":")[:2])
        later = (hours * 60 + minutes + 330) % 1440
        assert there[:5] == f"{later // 60:02d}:{later % 60:02d}"
        view(page, "flow")
        page.wait_for_selector("figcaption .zone >> text=UTC+05:30")
        page.reload()
        page.wait_for_selector("#zone >> text=UTC+05:30")
        context.close()


def test_a_time_before_the_clocks_change_is_told_in_the_zone_that_is_said(browser, console):
    """Where clocks change, times of winter and summer are in the one offset that the page names."""
    context = browser.new_context(timezone_id="Europe/Berlin")
    page = context.new_page()
    page.goto(f"http://{console.address}/")
    page.click("#zone")
    told = page.evaluate(
        """async () => { const { full, zone } = await import("/static/time.js");
        return [1784116800, 1800014400].map((moment) => {
          const [date, time, offset] = full(moment).split(" ");
          return offset === zone() && Date.parse(`${date}T${time}${offset.slice(3)}`) === 1000 * moment; }); }"""
    )
    assert told == [True, True]
    context.close()


def test_chance_alone_is_no_shift(page):
    """An index of 0.12 from eight labels of sixty messages is what chance makes; from sixty thousand it is a shift."""
    verdicts = page.evaluate(
        """async () => { const { byChance, verdict } = await import("/static/drift.js");
        return [[0.12, 60], [0.12, 60000], [0.3, 60], [0.3, 600], [0.05, 60]]
          .map(([psi, n]) => verdict(psi, byChance(n, 10 * n, 8))[1]); }"""
    )
    assert verdicts == ["too few to tell", "moving", "too few to tell", "shifted", "steady"]


def test_chance_is_as_often_as_it_is_said_to_be(page):
    """Of 3,000 indices of samples with nothing but chance between them, next to none passes the bar."""
    passed = page.evaluate(
        """async () => { const { byChance } = await import("/static/drift.js"); let seed = 7, passed = 0;
        const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
        const k = 8, n = 60, m = 600;
        const draw = (messages) => { const counts = Array(k).fill(0.5);
          for (let i = 0; i < messages; i++) counts[Math.floor(random() * k)]++;
          return counts.map((count) => count / (messages + k / 2)); };
        for (let run = 0; run < 3000; run++) { const now = draw(n), before = draw(m);
          const psi = now.reduce((sum, p, i) => sum + (p - before[i]) * Math.log(p / before[i]), 0);
          if (psi > byChance(n, m, k)) passed++; }
        return passed; }"""
    )
    assert passed <= 12
