"""The filter language: what each term means, in the book, as SQL and for windows."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from console_data import letter, result

from pipeline.console import app, audit, filter_sql, filters, window_filter
from pipeline.console.actions import Refused
from pipeline.console.book import Book
from pipeline.console.filters import matcher, parse
from pipeline.console.story import reason
from pipeline.matchers import TableName
from transforms.records import Message

NOW = time.time()


@pytest.fixture(scope="module")
def book() -> Book:
    """Two results, a minute apart, and two dead letters."""
    book = Book()
    asked = Message(b'{"inputs": "Wo bleibt mein Paket?"}', {"customer": "Acme Ltd", "odd:key": "v"}, "1", NOW - 61)
    book.published(Message(asked.data, asked.attributes, "1", publish_time=NOW - 61))
    first = result("1", [{"label": "refund", "score": 0.9}], model="my-org/tickets", variant="b", customer="Acme Ltd")
    second = result("2", [{"label": 'a "quoted" label', "score": 0.4}], model="other")
    for message, at in ((first, NOW - 60), (second, NOW)):
        book.result(Message(message.data, message.attributes, f"o{at}", publish_time=at))
    for message_id, error in (("3", "inputs is 'dict', not a text"), ("4", "inputs is 'list', not a text")):
        dead = letter(message_id, error=error, error_type="InvalidInput")
        book.dead_letter(Message(dead.data, dead.attributes, f"d{message_id}", publish_time=NOW))
    return book


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("", {"1", "2", "3", "4"}),
        ("label:refund", {"1"}),
        ("label:REFUND", {"1"}),
        ('label:"a \\"quoted\\" label"', {"2"}),
        ("-label:refund", {"2", "3", "4"}),
        ("score<0.6", {"2"}),
        ("score>=90%", {"1"}),
        ("score>0.4 score<=0.9", {"1"}),
        ("latency>500", {"1"}),
        ("latency>2s", set()),
        ("age>30s", {"1"}),
        ("since:30s", {"2", "3", "4"}),
        ("until:30s", {"1"}),
        ("stage:predict", {"3", "4"}),
        ("error:InvalidInput is:waiting", {"3", "4"}),
        ('reason:"inputs is …, not a text"', {"3", "4"}),
        ("status:result", {"1", "2"}),
        ("status:dead-letter", {"3", "4"}),
        ("variant:b", {"1"}),
        ("model:other", {"2"}),
        ("task:text-classification", {"1", "2"}),
        ("id:3", {"3"}),
        ("3", {"3"}),
        ('label:""', set()),
        ('"odd:key"="v\\n"', set()),
        ('customer="Acme Ltd"', {"1"}),
        ("customer=acme", set()),
        ('"odd:key"=v', {"1"}),
        ("paket", {"1"}),
        ('"mein paket"', {"1"}),
        ("mein -paket", set()),
        ("list", {"4"}),
        ("http://example.com", set()),
        ("label=refund", set()),
    ],
)
def test_each_term_means_what_it_says(book, q, expected, monkeypatch):
    """Fields, numbers, times, attributes, words and their opposites."""
    monkeypatch.setattr(filters, "time", SimpleNamespace(time=lambda: NOW))  # whenever this test's turn comes
    found = book.newest("ok", 10, 0, q)[0]
    cases, _ = book.cases(matcher(q))
    assert {each.message_id for each in found} | {each.letter.message_id for each in cases} == expected


@pytest.mark.parametrize(
    ("q", "words"),
    [
        ("score<high", "no number"),
        ("age>x", "no number"),
        ("score<" + "9" * 400, "no number"),
        ("since:yesterday", "no time"),
        ("until:25:99", "no time"),
        ('label:"a b', "its quotes do not end"),
        ('refund "', "its quotes do not end"),
        ('"\\', "its quotes do not end"),
        ("since:5m until:15m", "nothing can fit"),
        ("since:2026-01-31 until:2026-01-31", "nothing can fit"),
    ],
)
def test_a_term_that_is_none_is_said(q, words):
    """A number or a time that is none, open quotes and a range turned round are refused, with what they may be."""
    with pytest.raises(Refused, match=words):
        parse(q)


@pytest.mark.parametrize("q", ["latency>1 score<", "(.*)+$ [a", '5" disk', "-- '"])
def test_other_signs_are_words(q):
    """A sign without a value, a pattern's signs and a quotation mark within a word are looked for as they stand."""
    assert (parse(q)[-1].op, parse(q)[-1].value) == ("", q.split()[-1])


def test_a_filter_that_is_cut_would_find_something_else():
    """A filter over the limit is refused, and a time that SQL has no year for."""
    request = SimpleNamespace(query_params={"q": "-label:refund " * 600})
    with pytest.raises(Refused, match="8,400 characters"):
        app._filter(request)
    for q in ("since:99999999d", "age>99999999d"):
        with pytest.raises(Refused, match="years"):
            filter_sql.select(TABLE, parse(q))


def test_a_time_without_a_zone_is_utc():
    """Dates and times are in UTC where they say no zone, and in their own where they do."""
    (plain,), (zoned,), (there,) = (
        parse(f"since:{each}") for each in ("2026-01-31T12:00", "2026-01-31T12:00:00Z", "2026-01-31T17:30+05:30")
    )
    assert parse("since:9:30")[0].number == parse("since:09:30")[0].number
    assert plain.number == zoned.number == there.number == 1_769_860_800


def test_a_label_is_as_long_as_the_console_keeps_it():
    """Of one of ten thousand characters two hundred are kept: as many are compared, here and as SQL."""
    (term,) = parse("label:" + "x" * 5_000)
    assert term.value == "x" * 200
    assert "STARTS_WITH" in filter_sql.select(TABLE, [term])
    assert "STARTS_WITH" not in filter_sql.select(TABLE, parse("label:x"))


def test_the_same_cause_has_the_same_reason():
    """Quoted words, numbers and ids are of one message; what is left is the cause."""
    pairs = [
        ("field 'a' is 7, not a text", "field 'b c' is 12.5, not a text"),
        ("512 tokens, the model reads 128", "4,711 tokens, the model reads 128"),
        ("no object at 0xdeadbeef01", "no object at 0x7f3c21"),
        ('unknown key "x"', 'unknown key "yy"'),
    ]
    assert all(reason(one) == reason(other) for one, other in pairs)
    assert reason("inputs is missing") != reason("inputs is no text")
    assert '"' not in reason('a single " in it')


TABLE = TableName("my-project", "inference", "audit")


@pytest.mark.parametrize(
    "q",
    [
        "label:refund score<0.6 stage:predict latency>5 age>5m since:15m status:result -error:Odd",
        "customer=it's \"x'); DROP TABLE t; --\" variant:b",
        '"odd key"="a \\" b"',
        "",
    ],
)
def test_a_filter_as_sql_is_one_reading_statement(q):
    """Whatever stands in a filter, its SQL reads, and is let through by the same check as any other."""
    audit.check(filter_sql.select(TABLE, parse(q)))


def test_what_the_table_does_not_know_is_said():
    """A dead letter's state and its reason are the console's own."""
    for q in ("is:waiting", "reason:x"):
        with pytest.raises(Refused, match="only this console knows"):
            filter_sql.select(TABLE, parse(q))


def test_windows_are_narrowed_by_time_label_and_number():
    """A window belongs to a range that it overlaps; words and terms about single messages leave it alone."""
    windows = [
        {
            "window_start": f"2026-01-31T12:0{n}:00+00:00",
            "window_end": f"2026-01-31T12:0{n + 1}:00+00:00",
            "labels": {"A": n},
            "messages": 10 * n,
        }
        for n in range(1, 4)
    ]

    def found(q: str) -> list[int]:
        return [each["messages"] for each in window_filter.narrow(windows, q)]

    assert found("since:2026-01-31T12:02:30") == [20, 30]
    assert found("until:2026-01-31T12:02:00") == [10]
    assert found("messages>10 messages<30") == [20]
    assert found("-messages>10") == [10] and found("-since:2026-01-31T12:02:30") == [10]
    assert found("-label:a") == [] and found("-customer=x") == [10, 20, 30]
    assert found("label:B") == [] and found("label:a") == found("customer=x words") == [10, 20, 30]
