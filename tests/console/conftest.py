"""A real headless Chromium on the console, over the embedded servers; skipped, and said so, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from console_data import flags_of
from console_served import Served, served
from streams import fresh

from pipeline.emulators.process import Server, spawn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 180_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with driver.sync_playwright() as started:
        # Chromium's own sandbox does not work as root in a container.
        flags = ["--no-sandbox", "--disable-background-networking"]
        running = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture
def resources(servers):
    return fresh("console")


@pytest.fixture
def console(resources, request) -> Iterator[Served | Server]:
    """The console on the topics and the table of ``resources``; ``OWN_PROCESS`` for a test that halts or ends it."""
    if getattr(request, "param", None) == "process":
        started = spawn("pipeline.console", "--port=0", *flags_of(resources))
    else:
        started = served(*flags_of(resources))
    with started as server:
        yield server


@pytest.fixture
def page(browser, console) -> Iterator[Any]:
    """A page on the console; it fails the test if a script raised or the policy blocked something."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    outside: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda line: problems.append(line.text) if line.type == "error" and "Failed to load" not in line.text else None,
    )
    page.on("request", lambda asked: outside.append(asked.url) if console.address not in asked.url else None)
    page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
    page.goto(f"http://{console.address}/")
    page.wait_for_selector(".status.live")
    yield page
    context.close()
    assert problems == []
    assert [url for url in outside if not url.startswith(("data:", f"blob:http://{console.address}"))] == []
