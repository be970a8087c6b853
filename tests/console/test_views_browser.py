"""Every view for every reader: axe-core in light and dark, wide and narrow; predictions, copies, what is kept."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from console_data import fail, flags_of, go, letter, result, view
from console_served import Served, served
from streams import fresh, text_message

from pipeline import clients, publish, summary_sink
from pipeline.matchers import TableName
from transforms.records import Message

pytestmark = pytest.mark.usefixtures("servers")
VIEWS = ("flow?step=predict", "try", "results", "dead-letters", "windows", "audit")
PERSON = '{"inputs": "Ann Lee lives in Zürich"}'
MASK = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGM8ISfHwMDAxMDAwMDAAAANBAEIfXHKZgAAAABJRU5ErkJggg=="
PREDICTIONS: dict[str, Any] = {
    "labels": [{"label": "refund", "score": 0.75}, {"label": "billing", "score": 0.25}],
    "entities": [
        {"entity_group": "PER", "score": 0.99, "word": "ann lee", "start": 0, "end": 7},
        {"entity_group": "LOC", "score": 0.98, "word": "zürich", "start": 17, "end": 23},
    ],
    "boxes": [{"score": 0.9, "label": "van", "box": {"xmin": 4, "ymin": 4, "xmax": 30, "ymax": 20}}],
    "masks": [{"score": None, "label": "road", "mask": MASK}],
    "vector": [[0.6, 0.8]],
    "transcript": {"text": "HELLO", "chunks": [{"text": "HELLO", "timestamp": [0.1, 0.4]}]},
    "generated": [{"generated_text": "It is on its way."}],
    "zero-shot": {"sequence": "a", "labels": ["billing", "delivery"], "scores": [0.97, 0.03]},
    "similar": [0.71, -0.12],
    "ranked": [{"index": 1, "score": 0.97}, {"index": 0, "score": 0.02}],
    "json": {"cells": {"a": [1, 2, {"deep": "value"}]}},
}


def windows(table: TableName) -> None:
    """Summaries of a stream that is quiet for a while and then shifts."""
    summary_sink.create_table(table)
    began = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
    rows = []
    for n in (*range(12), *range(15, 20)):
        start = began + datetime.timedelta(seconds=10 * n)
        labels = {"billing": 40, "refund": 60 if n > 17 else 10}
        rows.append(
            {
                "job": "tickets",
                "run": "a",
                "pane": "on_time",
                "pane_index": 0,
                "stages": "{}",
                "window_start": start.isoformat(),
                "window_end": (start + datetime.timedelta(seconds=10)).isoformat(),
                "computed_time": start.isoformat(),
                "messages": 100,
                "ok": 100,
                "dead_letters": 0,
                "truncated": 0,
                "labels": json.dumps(labels),
                "score_bins": "{}",
                "input_bytes_bins": "{}",
                "latency_p50_ms": 40.0,
                "psi_label": 0.5 if n > 17 else 0.01,
            }
        )
    # What an earlier pane of the first window had, and what a recount of the second found.
    before = {"computed_time": (began - datetime.timedelta(minutes=1)).isoformat(), "pane_index": -1}
    rows.append({**rows[0], **before, "pane": "early", "messages": 1})
    rows.append({**rows[1], "run": "b", "pane": "recount", "messages": 101})
    assert clients.bigquery_client(table.project).insert_rows_json(str(table), rows) == []


@pytest.fixture(scope="module")
def filled(servers, tmp_path_factory) -> Iterator[tuple[Served, dict[str, str]]]:
    """A console with something in every view, and the message ids of ``PREDICTIONS`` by name."""
    resources = fresh("views")
    table = TableName("my-project", resources.audit_table.dataset, "summary")
    windows(table)
    metrics = tmp_path_factory.mktemp("metrics") / "metrics.json"
    job = {
        "subscription": resources.input_subscription,
        "device": "cpu",
        "engine": "torch",
        "started": time.time() - 60,
        "model": "a/b",
    }
    stable = {"model": "my-org/tickets", "revision": "c" * 40, "task": "text-classification", "share": 0.9}
    models = {
        "file": "gs://my-bucket/models.yaml",
        "models_version": "aaaaaaaa-bbbbbb",
        "since": time.time() - 30,
        "memory": {"bytes": 90_000_000, "most": 4_000_000_000, "models": 1},
        "serve": [
            {"when": "attributes.language == 'de'", "shares": {"b": 1.0}, "by": None},
            {"when": None, "shares": {"stable": 0.9, "b": 0.1}, "by": "attributes.customer"},
        ],
        "models": {
            "stable": stable | {"loaded": True, "bytes": 90_000_000, "messages": 90, "failures": 2, "checks": 0.975},
            "b": {"model": "/models/b", "task": "object-detection", "loaded": False}
            | {"shadow": 0.2, "shadowed": 4, "agreed": 3, "disagreed": 1},
        },
        "rule_errors": {"ceil(body)": {"errors": 7, "error": "ceil() takes number, and got string"}},
        "refused": {"since": time.time() - 5, "why": "model 'c': 1 of 3 checks hold, <b>0.95</b> must"},
    }
    metrics.write_text(
        json.dumps(
            {
                "models": models,
                "time": time.time(),
                "counters": {"summary_panes": 19, "summary_shifted": 2},
                "distributions": {},
                "job": job,
                "log": ["12:00:00 INFO ready"],
            }
        )
    )
    flags = [
        *flags_of(resources),
        f"--summary_table={table.project}:{table.dataset}.summary",
        f"--metrics_file={metrics}",
    ]
    with served(*flags) as server:
        png = tiny_models.png(tiny_models.picture())
        bodies = {
            "similar": Message(
                b'{"inputs": {"source_sentence": "Where is it?", "sentences": ["It is late", "Thanks"]}}'
            ),
            "ranked": Message(b'{"inputs": {"query": "Where is it?", "texts": ["Thanks", "It was sent"]}}'),
            "entities": Message(PERSON.encode()),
            "boxes": Message(png, {"content-type": "image/png"}),
        }
        inputs = [bodies.get(name, text_message(f"<b>{name}</b> שלום")) for name in PREDICTIONS]
        ids = dict(zip(PREDICTIONS, publish.publish_all(resources.input_topic, inputs), strict=True))
        notes = {"model": "my-org/tickets", "model_revision": "sha256:" + "0123456789abcdef" * 4, "variant": "b"}
        publish.publish_all(
            resources.output_topic, [result(ids[name], each, **notes) for name, each in PREDICTIONS.items()]
        )
        fail(
            resources, *(letter(f"v-{n}", own={"customer": "4711"}, error=f"field '{n}' is no text") for n in range(3))
        )
        yield server, ids


def opened(browser: Any, server: Served, address: str = "", **context: Any) -> Any:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(180_000)
    page.goto(f"http://{server.address}/#{address}")
    page.wait_for_selector(".status.live")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_in_any_view(browser, filled, scheme, width):
    """axe-core, every rule it runs by default: no violation in any view, in a message's story and in a question."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    server, ids = filled
    page = opened(browser, server, viewport={"width": width, "height": 900}, color_scheme=scheme)
    found: list[str] = []

    def look(where: str) -> None:
        page.wait_for_timeout(0)
        for each in axe.Axe().run(page).response["violations"]:
            nodes = [f"{node['html'][:160]} {node['failureSummary'][:200]}" for node in each["nodes"][:3]]
            found.append(f"{where}: {each['id']}: {nodes}")

    for name in VIEWS:
        go(page, name)
        page.wait_for_selector("main .card:visible")
        if name == "dead-letters":
            page.wait_for_selector(".letter >> nth=2")
        if name == "windows":
            page.wait_for_selector("main table")
        look(name)
    go(page, f"results/message/{ids['entities']}")
    page.wait_for_selector("#story mark")
    look("story")
    page.keyboard.press("Escape")
    go(page, "dead-letters")
    page.click(".letter .buttons >> text=Edit")
    page.wait_for_selector("#edit-text")
    look("edit")
    page.context.close()
    assert found == []


@pytest.mark.parametrize("width", [360, 390, 768, 1100, 1440, 2560])
def test_nothing_scrolls_sideways_and_letters_stay_large(browser, filled, width):
    """At every width no view is wider than the screen, and no letter of the drawing is under 11 pixels."""
    server, _ = filled
    page = opened(browser, server, viewport={"width": width, "height": 900})
    for name in VIEWS:
        go(page, name)
        page.wait_for_selector("main .card:visible")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    go(page, "flow")
    page.wait_for_selector("svg.flow text")
    least = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll("svg.flow text, svg.flow tspan")].map((each) =>
        parseFloat(getComputedStyle(each).fontSize) * each.ownerSVGElement.getScreenCTM().a))"""
    )
    assert least >= 11
    # No figure of the drawing lies over another.
    over = page.evaluate(
        """() => { const all = [...document.querySelectorAll("svg.flow text")].map((e) => e.getBoundingClientRect());
        const beside = (a, b) => a.left >= b.right - 1 || b.left >= a.right - 1;
        const below = (a, b) => a.top >= b.bottom - 3 || b.top >= a.bottom - 3;
        return all.some((a, i) => all.slice(i + 1).some((b) => !beside(a, b) && !below(a, b))); }"""
    )
    assert not over
    page.context.close()


def test_predictions_are_shown_as_what_they_are(browser, filled):
    """Labels as bars, entities in their text, boxes and masks over the picture, vectors by norm, speech, text, JSON."""
    server, ids = filled
    page = opened(browser, server, "results")

    def story(name: str) -> str:
        go(page, f"results/message/{ids[name]}")
        page.wait_for_selector(f"#story-title:has-text('{ids[name]}')")
        page.wait_for_selector("#story .part:has-text('What went out')")
        return page.inner_text("#story .part:has-text('What went out')")

    assert "75.0 %" in story("labels") and page.locator("#story .answer .bar-row").count() == 2
    story("entities")
    assert [each.split("\n")[0] for each in page.locator("#story mark").all_inner_texts()] == [
        "Ann LeePER",
        "ZürichLOC",
    ]
    story("boxes")
    page.wait_for_selector("#story .boxes .box")
    drawn = page.evaluate(
        """() => { const box = document.querySelector(".box").getBoundingClientRect();
        const image = document.querySelector(".overlaid img"), frame = image.getBoundingClientRect();
        const scale = frame.width / image.naturalWidth;
        return [box.left - frame.left, box.top - frame.top, box.width, box.height].map((each) => each / scale); }"""
    )
    assert [round(each) for each in drawn] == [4, 4, 26, 16]
    story("masks")
    assert "data:image/png" in page.eval_on_selector("#story .mask", "each => getComputedStyle(each).maskImage")
    assert "2 numbers, norm 1.00" in story("vector") and page.is_visible("#story canvas.strip")
    assert "0.1 – 0.4 s" in story("transcript") and "It is on its way." in story("generated")
    assert "97.0 %" in story("zero-shot")
    bars = (
        "[...document.querySelectorAll('#story .answer .bar-row')].map((each) => each.innerText.split(/\\s*\\n\\s*/))"
    )
    assert "Where is it?" in story("similar") and page.evaluate(bars) == [["It is late", "0.710"], ["Thanks", "-0.120"]]
    assert "Where is it?" in story("ranked") and page.evaluate(bars) == [["It was sent", "0.970"], ["Thanks", "0.020"]]
    assert "deep" not in story("json")
    page.click("#story .json .json > summary")
    page.wait_for_selector("#story .json .json .json > summary:has-text('3 items')")
    assert page.query_selector("#story b:has-text('json')") is None
    page.context.close()


def test_what_is_shown_is_saved_and_copied(browser, filled, tmp_path):
    """CSV and JSON hold the rows that are shown, a formula from a message as text; a link opens its message again."""
    server, ids = filled
    page = opened(browser, server, "results?q=label:refund", permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".item:only-child")
    with page.expect_download() as saved:
        page.click("main >> text=JSON")
    (row,) = json.loads(Path(saved.value.path()).read_text("utf-8"))
    assert (row["message_id"], row["label"], row["variant"]) == (ids["labels"], "refund", "b")
    with page.expect_download() as saved:
        page.click("main >> text=CSV")
    lines = Path(saved.value.path()).read_text("utf-8").splitlines()
    assert len(lines) == 2 and ids["labels"] in lines[1]
    hostile = """async () => { const { csv } = await import("/static/copy.js");
    return csv([{ a: "=HYPERLINK(1)", b: 'say "hi", twice', c: -1, d: null, e: "a;=1", f: "a\\t=1" }]); }"""
    assert page.evaluate(hostile) == 'a,b,c,d,e,f\r\n\'=HYPERLINK(1),"say ""hi"", twice",-1,,"a;=1","a\t=1"\r\n'
    page.click(".item .link")
    page.click("#story >> text=Copy link")
    page.wait_for_selector("#story >> text=Copied")
    address = page.evaluate("navigator.clipboard.readText()")
    assert address.endswith(f"#results/message/{ids['labels']}?q=label%3Arefund")
    page.keyboard.press("Escape")
    page.wait_for_selector("#story", state="hidden")
    assert "message" not in page.url and "label%3Arefund" in page.url
    page.context.close()


def test_going_away_and_coming_back_keeps_what_was_typed(browser, filled):
    """SQL, the text of a message, and what was sent are there again, from another view and after a reload."""
    server, _ = filled
    page = opened(browser, server, "audit")
    page.fill("#sql", "SELECT 1 AS one, 'm-1' AS message_id")
    page.click("main >> text=Run")
    page.wait_for_selector("td >> text=1")
    assert page.get_attribute("td >> a:text-is('m-1')", "href") == "#audit/message/m-1"
    view(page, "try")
    page.fill("#text", "what came of this")
    page.click(".try .primary")
    page.wait_for_selector(".journey h2 >> text=what came of this")
    page.fill("#text", "not sent yet")
    view(page, "audit")
    page.wait_for_selector("td >> text=1")
    assert page.input_value("#sql").startswith("SELECT 1 AS one")
    page.reload()
    page.wait_for_selector("#sql")
    assert page.input_value("#sql").startswith("SELECT 1 AS one")
    view(page, "try")
    assert page.input_value("#text") == "not sent yet"
    page.wait_for_selector(".journey h2 >> text=what came of this")
    page.context.close()


def test_bars_bins_nodes_and_the_keyboard_narrow_the_page(browser, filled):
    """A bar, a bin, a chip and a step of the drawing each write their terms; Enter and the skip link do as they say."""
    server, _ = filled
    page = opened(browser, server, "results")
    page.click("button.bar-label >> text=refund")
    page.wait_for_selector(".item:only-child")
    assert page.input_value("#search") == "label:refund"
    page.locator(".note", has_text="of the 1 that fit the filter").wait_for()
    assert page.locator("main .bars .bar-row").count() == 1
    page.click("text=Clear")
    page.locator(".note", has_text="results kept").wait_for()
    page.focus("rect[role=button] >> nth=-1")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('search').value.startsWith('score>=')")
    go(page, "flow")
    page.wait_for_selector(".node.predict")
    page.focus(".node.predict")
    page.keyboard.press("Enter")
    page.wait_for_selector("main >> text=Predict: failed last")
    page.wait_for_selector("main .item >> text=field '0' is no text")
    page.reload()
    page.wait_for_selector("main >> text=Predict: failed last")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view" and "step=predict" in page.url
    page.click(".node.windows >> text=2 shifted")
    page.wait_for_selector("main tbody >> text=recounted")
    assert page.url.endswith("#windows")
    page.context.close()


def test_labels_keep_their_colours_and_charts_their_gaps(browser, filled):
    """After a reload, with another label seen first, a label has its colour; a quiet stretch is a gap in each chart."""
    server, _ = filled
    page = opened(browser, server, "windows")
    colour = "async () => (await import('/static/dom.js')).colourOf('refund')"
    before = page.evaluate(colour)
    page.reload()
    page.evaluate("async () => (await import('/static/dom.js')).colourOf('something new')")
    assert page.evaluate(colour) == before
    page.wait_for_selector("main table")
    assert page.locator(".pill.bad >> text=shifted").count() == 2
    assert page.locator("main tbody tr").count() == 17
    counts = page.locator("main tbody tr td:nth-child(2)").all_inner_texts()
    assert counts == [*["100"] * 15, "101", "100"] and page.is_visible("tbody >> text=recounted")
    places = page.evaluate(
        "[...new Set([...document.querySelectorAll('main rect.column')].map((each) => each.x.baseVal.value))]"
    )
    steps = [later - place for place, later in pairwise(sorted(places))]
    assert len(places) == 17 and max(steps) == pytest.approx(4 * min(steps), rel=0.01)
    gaps = page.evaluate(
        """async () => { const { Lines } = await import("/static/lines.js");
        const chart = new Lines("x", [{ name: "a", className: "c1", at: 1 }], { gap: 15 });
        chart.draw([[0, 1], [10, 2], [50, 3], [60, null], [70, 4]]); return chart.data(); }"""
    )
    assert gaps == [[0, 10, 17.5, 50, 60, 70], [1, 2, None, 3, None, 4]]
    axis = page.evaluate(
        """async () => { const { Lines } = await import("/static/lines.js");
        const chart = new Lines("x", [{ name: "a", className: "c1", at: 1 }]);
        document.querySelector("main").append(chart.element);
        chart.draw([[1800000000, 1]]);
        await new Promise(requestAnimationFrame);
        return [chart.chart.scales.x.min, chart.chart.scales.x.max]; }"""
    )
    assert axis == [1_799_999_970, 1_800_000_030]
    page.context.close()


def test_the_page_says_what_serves(browser, filled):
    """Model, revision, variant, device, subscription and the job's log lines stand at the top."""
    server, _ = filled
    page = opened(browser, server, "flow")
    page.wait_for_selector(".facts >> text=variant b")
    shown = page.inner_text(".job")
    assert all(each in shown for each in ("tickets", "sha256:012345678", "torch", "cpu", "views-", "UTC"))
    page.click(".job summary")
    assert "12:00:00 INFO ready" in page.inner_text(".job .log")
    page.context.close()


def test_the_page_says_what_a_models_file_has_in_force(browser, filled):
    """Version, rules, shares by the file and as seen, agreement, checks, errors, what was refused; a name narrows."""
    server, _ = filled
    page = opened(browser, server, "flow")
    card = page.locator("section.card", has_text="aaaaaaaa-bbbbbb")
    words = ("gs://my-bucket/models.yaml", "Refused since", "<b>0.95</b>", "ceil() takes number", "90 MB of 4.0 GB")
    assert all(each in card.inner_text() for each in words), card.inner_text()
    assert "text-classification, object-detection" in page.inner_text(".facts")
    rows = [each.split("\t") for each in card.locator("tbody tr").all_inner_texts()]
    stable, b = ([cell.strip() for cell in row] for row in rows)
    assert stable[2:] == ["90 % of the rest by attributes.customer", "–", "90", "2", "–", "97.5 %", "90 MB"]
    assert b[2].split("\n") == [
        "100 % where attributes.language == 'de'",
        "10 % of the rest by attributes.customer",
        "shadow of 20 %",
    ]
    assert b[3:] == [f"100 % {len(PREDICTIONS)}", "0", "0", "agrees on 75 % of 4", "–", "no"]
    card.locator("button", has_text="b").last.click()
    page.locator(".item").first.wait_for()
    assert page.input_value("#search") == "variant:b" and "#results" in page.url
    page.context.close()


def test_going_from_view_to_view_leaves_nothing_behind(browser, filled):
    """Charts and lists of the views that were left are collected: the tenth round holds what the second held."""
    server, _ = filled
    page = opened(browser, server, "flow", viewport={"width": 1280, "height": 900})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def nodes(rounds: int) -> float:
        for _ in range(rounds):
            for name, shown in (("windows", "main canvas >> nth=2"), ("dead-letters", ".letter"), ("flow", "svg.flow")):
                go(page, name)
                # Not wait_for_selector: the handle that it gives would itself hold the view on which it waited.
                page.locator(shown).first.wait_for()
        session.send("HeapProfiler.collectGarbage")
        return next(
            each["value"] for each in session.send("Performance.getMetrics")["metrics"] if each["name"] == "Nodes"
        )

    before = nodes(2)
    assert nodes(8) < before + 400
    page.context.close()
