"""audit find: an attribute or an id leads to a message's rows, whatever characters are in it."""

from __future__ import annotations

import datetime
import json
import uuid

import pytest
from streams import fresh

from pipeline import audit_sink, find

ODD = {"it's $.odd[0]": "a'b\"c\\", "customer.id": "42"}


def row(number: int, attributes: dict[str, str], age_s: float = 60, **more: object) -> dict:
    now = datetime.datetime.now(datetime.timezone.utc)
    written = (now - datetime.timedelta(seconds=age_s)).isoformat()
    given = {"message_id": str(number), "processed_time": written, "status": "ok", "input_bytes": 3, "model": "m"}
    return {**given, "model_revision": "0123456789", "attributes": json.dumps(attributes), **more}


@pytest.fixture(scope="module")
def table(servers) -> str:
    """Rows of two customers, one of them old, one dead and replayed, and one with odd attributes."""
    found = fresh("find").audit_table
    dead = {"status": "dead_letter", "stage": "decode", "error_type": "InvalidBody", "error": "the body is empty"}
    rows = [
        row(1, {"customer": "42", "kind": "a"}, prediction='[{"label": "refund"}]', worker="host-7"),
        row(2, {"customer": "42", "kind": "b"}, age_s=30, **dead),
        row(3, {"customer": "43"}),
        row(4, {"customer": "42", "dead_letter_first_message_id": "2"}, age_s=20),
        row(5, {"customer": "42"}, age_s=40 * 86400),
        row(6, ODD),
    ]
    assert not audit_sink.BigQuerySink(found).insert(rows, [uuid.uuid4().hex for _ in rows])
    return f"{found.project}:{found.dataset}.{found.table}"


def ids(capsys, table: str, *argv: str) -> list[str]:
    assert find.main([f"--audit_table={table}", "--json", *argv]) == 0
    return [json.loads(line)["message_id"] for line in capsys.readouterr().out.splitlines()]


def test_by_attributes_and_by_id(table, capsys):
    """All that is given must fit; newest first; a message's id finds its replays too; a month back unless asked."""
    assert ids(capsys, table, "customer=42") == ["4", "2", "1"]
    assert ids(capsys, table, "customer=42", "kind=b") == ["2"]
    assert ids(capsys, table, "customer=42", "--from=41d") == ["4", "2", "1", "5"]
    assert ids(capsys, table, "customer=42", "--from=50s", "--to=25s") == ["2"]
    assert ids(capsys, table, "--message_id=2") == ["4", "2"]
    assert ids(capsys, table, "customer=42", "--limit=1") == ["4"]
    assert ids(capsys, table, "customer=none") == []
    for name, value in ODD.items():
        assert ids(capsys, table, f"{name}={value}") == ["6"]


def test_a_line_says_what_became_of_a_message(table, capsys):
    """Its answer, or where it failed and why; and how far back was looked."""
    assert find.main([f"--audit_table={table}", "customer=42", "--from=5m"]) == 0
    _, dead, ok, last = capsys.readouterr().out.splitlines()
    assert "2 dead_letter decode, InvalidBody: the body is empty" in dead
    assert "1 ok m@01234567: [{'label': 'refund'}] [host-7]" in ok
    assert last.startswith("3 rows since ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "what to find is missing; use ATTRIBUTE=VALUE"),
        (["customer"], "'customer': not an attribute; use ATTRIBUTE=VALUE"),
        (['a"b=c'], "no attribute with a quotation mark"),
        (["a=b", "--from=1h", "--to=2h"], "--from is not before --to"),
        (["a=b", "--atribute=x"], "--atribute: no such flag"),
    ],
)
def test_what_cannot_be_found_is_wrong_usage(argv, words, capsys):
    """One line, exit code 2."""
    assert find.main(["--audit_table=my-project:a.b", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_missing_table_is_one_line(servers, capsys):
    """Exit code 1, and the service's words."""
    assert find.main(["--audit_table=my-project:nowhere.audit", "a=b"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nothing was looked for: ") and "nowhere" in line
