"""The console in a real headless Chromium, over the embedded servers and a real job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from console_data import OWN_PROCESS, fail, letter, publish_results, view
from streams import ROOT, job

from pipeline import publish
from pipeline.emulators.process import spawn
from transforms.records import Message


@pytest.fixture
def fake_job(resources, tmp_path) -> Iterator[None]:
    """A real job whose model answers every text, and fails on what is none."""
    log = (tmp_path / "job.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tests" / "support" / "run_fake_job.py"),
            *resources.flags(),
            "--model=fake",
            "--task=fake",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])},
        stdout=log,
        stderr=log,
    )
    # The page gives a message up after a minute; on a busy machine a job may take that long to start.
    deadline = time.monotonic() + 300
    while b"running; " not in (tmp_path / "job.log").read_bytes() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "job.log").read_text()
        time.sleep(0.1)
    yield
    process.kill()
    process.wait()
    log.close()
    mended_file(resources).unlink(missing_ok=True)


def test_a_ticket_typed_becomes_a_prediction(page, fake_job):
    """A text typed on the page comes back as its prediction, with the time of each stage and its audit row."""
    view(page, "try")
    page.fill("#text", "Where is my parcel?")
    page.click(".try .primary")
    page.wait_for_selector(".journey .answer >> text=TEXT")
    assert "TEXT" in page.inner_text(".journey")
    page.wait_for_selector(".timeline")
    assert "model" in page.inner_text(".timeline")
    page.click(".journey .link")
    page.wait_for_selector("#story dl.row")
    words = page.inner_text("#story")
    assert "input_sha256" in words and "trace_id" in words and "Where is my parcel?" in words


def test_a_picture_chosen_becomes_a_prediction(page, resources, tmp_path):
    """A PNG chosen on the page is shown, and comes back with a real vision model's labels and scores."""
    chosen = tmp_path / "noise.png"
    chosen.write_bytes(tiny_models.png(tiny_models.picture()))
    flags = (f"--model={tiny_models.animals()}", "--task=image-classification", "--device=cpu")
    with job(resources, *flags, log=tmp_path / "job.log"):
        view(page, "try")
        page.set_input_files("#file", chosen)
        page.wait_for_selector(".chosen img")
        page.click(".try .primary")
        page.wait_for_selector(".journey .answer .bar-row >> nth=4")
        answer = page.inner_text(".journey .answer")
        assert any(animal in answer for animal in ("cat", "dog", "cow", "bird", "fish", "bee")) and "%" in answer
        assert page.evaluate("document.querySelector('.journey img').naturalWidth") == 40
        page.click(".journey .link")
        page.wait_for_selector("#story .part:last-child >> text=image-classification")
        assert page.evaluate("document.querySelector('#story img').naturalWidth") == 40


def test_a_broken_message_is_replayed_once_its_cause_is_mended(page, resources, fake_job):
    """A message that fails is a dead letter with its reason; replayed under a mended model, it becomes a result."""
    view(page, "try")
    page.check("#raw")
    page.fill("#text", '{"inputs": {"ticket": "mend me"}}')
    page.click(".try .primary")
    page.wait_for_selector(".journey .failed")
    assert "InvalidInput" in page.inner_text(".journey .failed")
    view(page, "dead-letters")
    page.wait_for_selector(".letter >> text=mend me")
    mended_file(resources).touch()
    page.click(".letter .buttons >> text=Replay")
    assert "Published again" in page.inner_text("#confirm")
    page.click("#confirm .primary")
    page.wait_for_selector(".letter >> text=became a result")
    assert page.inner_text(".letter-side .pill") == "mended"
    view(page, "results")
    page.wait_for_selector(".item >> text=mend me")


def mended_file(resources) -> Path:
    """The file that tells the fake model that its fault is mended."""
    return Path(os.environ.get("TMPDIR", "/tmp")) / f"mended-{resources.audit_table.dataset}"


ATTACKS = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "</pre></section><h1 id=owned>owned</h1>",
    "javascript:document.title='owned'",
]


def test_html_in_a_message_is_shown_as_text(page, resources):
    """Markup and script in a text, a label, an attribute and an error are letters on the page and nothing more."""
    publish_results(resources, ATTACKS)
    hostile = {f"dead_letter_{key}": ATTACKS[0] for key in ("stage", "error_type", "error")}
    publish.publish_all(
        resources.dead_letter_topic, [Message(ATTACKS[1].encode(), {**hostile, "dead_letter_message_id": "7"})]
    )
    view(page, "results")
    page.wait_for_selector(".item >> nth=3")
    shown = page.inner_text(".list")
    assert all(attack in shown for attack in ATTACKS)
    page.click(".item .link >> nth=0")
    page.wait_for_selector("#story .part")
    page.keyboard.press("Escape")
    page.wait_for_selector("#story", state="hidden")
    view(page, "dead-letters")
    page.wait_for_selector(".letter")
    page.click(".cause-name")
    page.wait_for_selector(".cause-name[aria-pressed=true]")
    assert ATTACKS[1] in page.inner_text(".letter pre")
    assert page.query_selector("#owned") is None and page.query_selector("main img, main script") is None
    assert page.title() != "owned"


def test_ten_thousand_results_do_not_grow_the_page(page, resources):
    """After 10,000 results the page holds a hundred rows and no more, and finds any one of them."""
    view(page, "results")

    def elements() -> int:
        return page.evaluate("document.querySelectorAll('*').length")

    def frame_ms() -> float:
        """Median time from a key press to the next frame."""
        return page.evaluate(
            """async () => { const times = []; for (let i = 0; i < 15; i++) { const from = performance.now();
            document.getElementById('search').dispatchEvent(new KeyboardEvent('keydown'));
            await new Promise((done) => requestAnimationFrame(done)); times.push(performance.now() - from); }
            return times.sort((a, b) => a - b)[7]; }"""
        )

    publish_results(resources, [f"ticket {n}" for n in range(200)])
    page.wait_for_selector(".item >> nth=99")
    small, quick = elements(), frame_ms()
    for start in range(200, 10_000, 700):
        publish_results(resources, [f"ticket {n}" for n in range(start, min(10_000, start + 700))], start)
    page.wait_for_selector("text=10,000 since")
    assert page.evaluate("document.querySelectorAll('.item').length") == 100
    print(f"elements {small} -> {elements()}, frame {quick:.1f} -> {frame_ms():.1f} ms")
    assert elements() < small + 60
    page.fill("#search", "number=4321")
    page.wait_for_selector(".item:only-child >> text=ticket 4321")


def test_every_view_has_its_empty_state_and_the_keyboard_reaches_it(page):
    """With nothing published, each view says so in words, and Tab and Enter alone get to it."""
    for name, words in (
        ("flow", "nothing to show yet"),
        ("try", "Nothing published"),
        ("results", "No results yet"),
        ("dead-letters", "No dead letters"),
        ("windows", "No summary table"),
        ("audit", "Nothing asked yet"),
    ):
        page.focus(f"nav a[data-view='{name}']")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"main >> text={words} >> visible=true >> nth=0")
        assert page.get_attribute(f"nav a[data-view='{name}']", "aria-current") == "page"


def test_the_keyboard_keeps_its_place_among_dead_letters(page, resources):
    """While dead letters go on arriving, the button that has the focus keeps it; Enter replays one, then the rest."""
    fail(resources, letter("odd-1"))
    view(page, "dead-letters")
    page.wait_for_selector(".letter:has-text('odd-1')")
    page.focus(".letter .buttons >> text=Replay")
    fail(resources, letter("odd-2"))
    page.wait_for_selector(".more >> text=1 more came in")
    assert page.evaluate("document.activeElement.dataset.key") == "replay odd-1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#confirm[open]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".letter:has-text('odd-1') >> text=replayed, on its way")
    page.focus(".more")
    page.keyboard.press("Enter")
    page.wait_for_selector(".letter:has-text('odd-2')")
    page.focus(".bulk .primary:has-text('Replay all: 1')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#confirm >> text=Replay this message?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".letter:has-text('odd-2') >> text=replayed, on its way")


@OWN_PROCESS
def test_it_says_so_when_the_console_is_gone_and_goes_on_with_the_next(page, console, resources):
    """With the server stopped the page says that what it shows is old; the next one on the port is live, and obeyed."""
    console.stop()
    page.wait_for_selector("#notice >> text=does not answer")
    assert "not live" in page.inner_text("#status")
    port = console.address.split(":")[1]
    topics = (f"--input_topic={resources.input_topic}", f"--output_topic={resources.output_topic}")
    with spawn("pipeline.console", f"--port={port}", *topics):
        page.wait_for_selector(".status.live")
        assert not page.is_visible("#notice")
        view(page, "try")
        page.fill("#text", "Still there?")
        page.click(".try .primary")
        page.wait_for_selector(".journey >> text=on its way")
