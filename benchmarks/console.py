"""``python -m benchmarks.console``: the console's first paint and memory after a burst and an hour's worth of traffic.

The burst is ``--burst`` messages published as fast as it goes. The hour is simulated: as many inputs, results and dead
letters as ``--rate`` gives in it are published to the topics within ``--seconds``, while a page in a headless Chromium
goes from view to view. No job and no model run. Memory is the server's resident set (Linux) and the page's JavaScript
heap after a collection, before and after; the first contentful paint is the median of ten fresh pages, each with an
empty cache. The page is asked by plain expressions: a locator's own script would stay in it, with 0.7 MB of heap.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from pipeline import publish
from pipeline.demo.tickets import read_tickets
from pipeline.emulators import setup
from pipeline.emulators.process import Server, spawn
from transforms.records import Message

VIEWS = ("flow", "results", "dead-letters", "try", "windows", "audit")
LABELS = ("billing", "delivery", "bug", "account", "refund")
CHUNK = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--rate", type=int, default=20, help="messages a second of the simulated hour (default 20)")
    parser.add_argument("--seconds", type=float, default=180, help="time in which they are published (default 180)")
    parser.add_argument("--burst", type=int, default=12_000, help="messages of the burst before it (default 12000)")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        spawn("pipeline.emulators.pubsub", "--port=0") as pubsub,
        spawn("pipeline.emulators.bigquery", "--port=0", f"--data={Path(folder) / 'tables.duckdb'}") as bigquery,
        sync_playwright() as driver,
    ):
        os.environ.update({server.name: server.address for server in (pubsub, bigquery)})
        resources = setup.Resources.named("my-project")
        setup.create(resources)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        with spawn("pipeline.console", "--port=0") as console:
            page = opened(browser, console)
            report("before", console, page)
            print(f"first paint {first_paint(browser, console)}")
            seen = 0
            for when, total, seconds in (("burst", args.burst, 0.0), ("hour", 3600 * args.rate, args.seconds)):
                began = time.monotonic()
                seen = stream(resources, total, seconds, page, seen)
                print(f"{total:,} messages in {time.monotonic() - began:.0f} s, until the page had them all")
                report(f"after the {when}", console, page)
                print(f"first paint {first_paint(browser, console)}")
        browser.close()


def stream(resources: setup.Resources, total: int, seconds: float, page: Page, seen: int) -> int:
    """Publishes ``total`` inputs and what became of them, one in forty a dead letter, and waits until all are seen.

    ``seen`` is how many results the page had before; returns how many it has then.
    """
    began = time.monotonic()
    tickets = itertools.cycle([ticket for ticket in read_tickets() if "malformed" not in ticket.attributes])
    views, good = itertools.cycle(VIEWS), seen
    for start in range(0, total, CHUNK):
        inputs = [
            Message(ticket.data, dict(ticket.attributes))
            for ticket in itertools.islice(tickets, min(CHUNK, total - start))
        ]
        ids = publish.publish_all(resources.input_topic, inputs)
        ended = [
            outcome(number, message_id, each) for number, (message_id, each) in enumerate(zip(ids, inputs, strict=True))
        ]
        results = [message for is_result, message in ended if is_result]
        publish.publish_all(resources.output_topic, results)
        publish.publish_all(resources.dead_letter_topic, [message for is_result, message in ended if not is_result])
        good += len(results)
        page.evaluate(f"location.hash = '{next(views)}'")
        page.wait_for_timeout(max(0.0, 1000 * (began + seconds * start / total - time.monotonic())))
    page.evaluate("location.hash = 'flow'")
    until(page, f"document.querySelector('.tile:first-child strong')?.textContent === '{good:,}'", seconds=120)
    return good


def outcome(number: int, message_id: str, message: Message) -> tuple[bool, Message]:
    """A message's result, or its dead letter; as the job would publish it."""
    if number % 40 == 0:
        notes = {"stage": "predict", "error_type": "InvalidInput", "error": "not a text", "message_id": message_id}
        return False, Message(
            message.data, {**message.attributes, **{f"dead_letter_{key}": text for key, text in notes.items()}}
        )
    body = {
        "schema_version": "1",
        "message_id": message_id,
        "task": "text-classification",
        "model": "my-org/tickets",
        "prediction": [{"label": LABELS[number % len(LABELS)], "score": 0.5 + number % 500 / 1000}],
        "processed_time": "2026-01-31T12:00:00.000000Z",
    }
    return True, Message(
        json.dumps(body).encode(), {**message.attributes, "message_id": message_id, "task": body["task"]}
    )


def opened(browser: Browser, console: Server) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"http://{console.address}/")
    until(page, "document.querySelector('.tile') !== null")
    return page


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Waits until ``expression`` is true in the page."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {seconds} s: {expression}")
        page.wait_for_timeout(10)


def first_paint(browser: Browser, console: Server) -> str:
    """Medians of ten fresh pages: the first contentful paint, and the first figures on the page."""
    paints: list[float] = []
    figures: list[float] = []
    for _ in range(10):
        page = opened(browser, console)
        figures.append(page.evaluate("performance.now()"))
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        page.context.close()
    return f"{statistics.median(paints):.0f} ms, figures by {statistics.median(figures):.0f} ms"


def report(when: str, console: Server, page: Page) -> None:
    status = Path(f"/proc/{console.process.pid}/status").read_text()
    resident = {line.split()[0]: int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("Vm")}
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    print(
        f"{when}: server {resident['VmRSS:']:.0f} MB (peak {resident['VmHWM:']:.0f}), page's heap "
        f"{metrics['JSHeapUsedSize'] / (1 << 20):.1f} MB, {metrics['Nodes']:.0f} nodes"
    )


if __name__ == "__main__":
    main()
