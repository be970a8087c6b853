"""The console without a browser: who may ask, what may be asked, and that its figures are the topics'."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest
import tiny_models
from console_data import flags_of
from console_served import Served, served
from google.pubsub_v1 import SubscriberClient
from streams import ROOT, fresh, text_message

from pipeline import audit_sink, clients, publish
from pipeline.console import audit, settings
from pipeline.console.actions import Refused, compose
from pipeline.console.book import BYTES, Book
from pipeline.console.flow import Flow, Second, quantile
from pipeline.console.pictures import picture
from pipeline.console.show import readable, summary
from pipeline.console.story import label_and_score
from pipeline.emulators.process import spawn
from pipeline.flags import UsageError
from pipeline.matchers import TableName
from transforms.records import Message

TABLE = TableName("my-project", "inference", "audit")


@pytest.fixture(scope="module")
def resources(servers):
    return fresh("console")


@pytest.fixture(scope="module")
def console(resources) -> Iterator[Served]:
    with served(*flags_of(resources)) as server:
        yield server


@pytest.fixture
def client(console) -> Iterator[httpx.Client]:
    """A client that sends what the console's own page sends."""
    with httpx.Client(base_url=f"http://{console.address}", trust_env=False) as plain:
        plain.headers["X-Console-Token"] = plain.get("/api/about").json()["token"]
        yield plain


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"Host": "evil.example"}),
        ("/api/about", {"Host": "evil.example:80"}),
        ("/api/about", {"Origin": "http://evil.example"}),
        ("/api/about", {"Origin": "null"}),
        ("/api/results", {"Sec-Fetch-Site": "cross-site"}),
        ("/static/main.js", {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_other_origins_get_nothing(client, path, headers):
    """A page of another site, or one whose name was made to resolve to 127.0.0.1, is refused everything."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert "token" not in answer.text and "<html" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Console-Token": "guessed", "Content-Type": "application/json"},
        {"X-Console-Token": "", "Content-Type": "application/json"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_changes_need_the_pages_token(client, headers):
    """A form or a request without the token of the page changes nothing."""
    answer = client.post("/api/publish", content=b'{"text": "hello"}', headers=headers)
    assert answer.status_code == 403


def test_every_answer_forbids_what_is_not_its_own(client):
    """The policy allows scripts and styles of this origin only, and nothing inline; also on refusals."""
    for answer in (client.get("/"), client.get("/static/page.css"), client.get("/", headers={"Host": "evil.example"})):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_all_that_it_names_and_nothing_else(client):
    """Each file that the page or a script of it asks for is there, in its kind; no other is given out."""
    asked = re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/").text)
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    seen: set[str] = set()
    while asked:
        name = asked.pop()
        answer = client.get(name)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        seen.add(name)
        found = re.findall(r'from "\./([a-z]+\.js)"', answer.text) if name.endswith(".js") else []
        asked += [each for each in map("/static/{}".format, found) if each not in seen and each not in asked]
    assert len(seen) > 25 and ".uplot" in client.get("/static/page.css").text
    for path in (
        "/static/",
        "/static/nothing.js",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/vendor/uPlot.LICENSE",
    ):
        assert client.get(path).status_code == 404


def test_it_listens_on_loopback_alone(console):
    """The address is 127.0.0.1; no flag makes it another."""
    assert console.address.startswith("127.0.0.1:")
    with pytest.raises(UsageError, match="--host: no such flag"):
        settings.parse(["--host=0.0.0.0"])


def test_on_a_real_project_it_only_reads(monkeypatch):
    """Without emulators: no subscriptions of its own, no publishing, no SQL of one's own, until a flag says so."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    found = settings.parse(
        ["--audit_table=my-project:inference.audit", "--input_topic=projects/my-project/topics/input"]
    )
    assert (found.own_subscriptions, found.may_publish, found.may_query) == (False, False, False)
    allowed = settings.parse(["--audit_table=my-project:inference.audit", "--allow_publish", "--allow_query"])
    assert (allowed.own_subscriptions, allowed.may_publish, allowed.may_query) == (False, True, True)
    with pytest.raises(UsageError, match="nothing to watch"):
        settings.parse([])


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM `my-project.inference.audit` WHERE TRUE",
        "DROP TABLE inference.audit",
        "CREATE TABLE inference.x AS SELECT 1",
        "INSERT INTO inference.x SELECT 1",
        "TRUNCATE TABLE inference.audit",
        "MERGE inference.a USING inference.b ON FALSE WHEN NOT MATCHED THEN INSERT ROW",
        "SELECT 1; DROP TABLE inference.audit",
        "EXPORT DATA OPTIONS (uri = 'gs://b/*') AS SELECT 1",
        "CALL inference.procedure()",
        "BEGIN SELECT 1; END",
        "EXECUTE IMMEDIATE 'DROP TABLE inference.audit'",
        "SELEC 1",
        "",
    ],
)
def test_the_sql_box_only_reads(sql):
    """Anything but one SELECT is refused before it is sent."""
    with pytest.raises(Refused):
        audit.check(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
        "SELECT 1 UNION ALL SELECT 2",
        "SELECT status FROM `p.d.t` -- DROP",
    ],
)
def test_reading_is_let_through(sql):
    """A SELECT, a WITH and a UNION are run."""
    audit.check(sql)


def test_the_ready_queries_are_the_pages():
    """Each SQL block of docs/audit.md that reads the audit table alone is a file of the package, word for word."""
    page = (ROOT / "docs" / "audit.md").read_text("utf-8")
    blocks = re.findall(r"^((?:(?!#|```)[^\n]+\n)+)\n```sql\n(.*?)```", page, re.S | re.M)
    assert len(blocks) == page.count("```sql")
    shown = [
        "".join(f"-- {line}\n" for line in above.splitlines()) + sql
        for above, sql in blocks
        if not re.search(r"`my-project\.inference\.(?!audit(_latest)?`)", sql)
    ]
    files = sorted((ROOT / "pipeline" / "console" / "queries").iterdir())
    assert [each.read_text("utf-8") for each in files] == shown


def test_the_ready_queries_read_the_table_that_is_watched():
    """Each is let through, has a name of its own, and asks the job's table or its view and no other."""
    found = audit.ready_queries(TableName("their-project", "tickets", "rows"))
    for query in found:
        audit.check(query.sql)
        assert set(re.findall(r"`([^`]*)`", query.sql)) <= {
            "their-project.tickets.rows",
            "their-project.tickets.rows_latest",
        }
    assert len({query.name for query in found}) == len(found) > 5
    by_name = {query.name: query for query in found}
    assert by_name["Error rate by hour"].parameters == ("since", "until")
    assert by_name["Everything about one message"].about == "Everything about one message, repeats included"


def wait(client, path: str, done) -> dict:
    """Asks until ``done`` is true of the answer."""
    for _ in range(300):
        found = client.get(path).json()
        if done(found):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_a_dead_letter_is_found_and_replayed_as_it_came(client, resources):
    """What is replayed has the original bytes, attributes and key; asked for twice, it goes once."""
    notes = {"stage": "predict", "error_type": "Odd", "error": "because", "message_id": "odd-1", "attempt": "1"}
    attributes = {"colour": "green", **{f"dead_letter_{key}": value for key, value in notes.items()}}
    publish.publish_all(resources.dead_letter_topic, [Message(b"\xffraw", attributes, ordering_key="k")])
    path = "/api/dead-letters?q=stage:predict error:Odd"
    assert wait(client, path, lambda found: found["letters"])["letters"][0]["error"] == "because"
    answer = client.post("/api/replay", json={"q": "stage:predict error:Odd"}).json()
    (replayed,) = answer["replayed"]
    again = client.post("/api/replay", json={"message_ids": ["odd-1"]}).json()
    assert again == {"replayed": []}
    pulled = clients.pubsub(SubscriberClient).pull(
        subscription=resources.input_subscription, max_messages=100, timeout=20
    )
    (message,) = [
        each.message for each in pulled.received_messages if each.message.message_id == replayed["replayed_as"]
    ]
    assert message.data == b"\xffraw" and message.ordering_key == "k"
    kept = {"dead_letter_attempt": "1", "dead_letter_first_message_id": "odd-1"}
    assert dict(message.attributes) == {"colour": "green", **kept}


def test_what_belongs_elsewhere_is_not_replayed(client, resources):
    """A dead letter of another input and a message that is none stay, and the page is told why; their group goes."""
    other = fresh("other")
    notes = {"dead_letter_stage": "predict", "dead_letter_error_type": "Elsewhere", "dead_letter_error": "because"}
    theirs = {**notes, "dead_letter_message_id": "theirs", "dead_letter_subscription": other.input_subscription}
    ours = {**notes, "dead_letter_message_id": "ours", "dead_letter_subscription": resources.input_subscription}
    publish.publish_all(
        resources.dead_letter_topic, [Message(b"t", theirs), Message(b"o", ours), Message(b"s", {"stranger": "yes"})]
    )
    wait(client, "/api/dead-letters?q=error:Elsewhere", lambda found: found["count"] == 2)
    wait(client, "/api/dead-letters?q=stage:unknown", lambda found: found["count"] >= 1)
    refused = client.post("/api/replay", json={"message_ids": ["theirs"]})
    assert refused.status_code == 400
    assert f"a dead letter of {other.input_subscription}, which reads {other.input_topic}" in refused.json()["error"]
    refused = client.post("/api/replay", json={"q": "stage:unknown"})
    assert refused.status_code == 400 and "no dead letter" in refused.json()["error"]
    answer = client.post("/api/replay", json={"q": "error:Elsewhere"}).json()
    assert [each["message_id"] for each in answer["replayed"]] == ["ours"]


def test_one_messages_story_has_its_audit_row(client, resources):
    """What was published, what came out and the row of the table, under one id; an unknown id is 404."""
    (message_id,) = publish.publish_all(resources.input_topic, [text_message("hello", colour="blue")])
    body = json.dumps({"prediction": [{"label": "A", "score": 0.75}]}).encode()
    publish.publish_all(resources.output_topic, [Message(body, {"message_id": message_id})])
    row = {"message_id": message_id, "processed_time": "2026-01-31T12:00:00Z", "status": "ok"}
    audit_sink.BigQuerySink(resources.audit_table).insert([row], [message_id])
    found = wait(client, f"/api/message?id={message_id}", lambda found: (found["story"] or {}).get("status") == "ok")
    assert found["story"]["label"] == "A" and found["story"]["attributes"] == {"colour": "blue"}
    assert found["audit"][0]["status"] == "ok"
    assert client.get("/api/results?q=colour=blue").json()["count"] == 1
    assert client.get("/api/results?q=colour=red").json()["count"] == 0
    assert client.get("/api/message?id=none-such").status_code == 404


def test_the_sql_box_answers_and_explains(client, resources):
    """A query's rows come back with their types; a wrong one comes back with the service's words."""
    answer = client.post(
        "/api/query",
        json={"sql": "SELECT 1 AS n, TIMESTAMP '2026-01-31' AS t, @word AS w", "parameters": {"word": "hi"}},
    )
    assert answer.json()["rows"] == [[1, "2026-01-31T00:00:00+00:00", "hi"]]
    wrong = client.post("/api/query", json={"sql": "SELECT nowhere FROM unnest([1])"})
    assert wrong.status_code == 400 and "nowhere" in wrong.json()["error"]
    files = client.post("/api/query", json={"sql": "SELECT * FROM read_text('/etc/passwd')"})
    assert files.status_code == 400 and "root:" not in files.text


def test_its_own_subscriptions_go_with_it(servers):
    """The console makes subscriptions to watch by, and deletes them when it is stopped."""
    mine = fresh("console")

    def subscriptions() -> list[str]:
        found = clients.pubsub(SubscriberClient).list_subscriptions(project="projects/my-project")
        return [
            each.name
            for each in found
            if "-console-" in each.name and mine.audit_table.dataset.replace("_", "-") in each.name
        ]

    with spawn(
        "pipeline.console", "--port=0", f"--input_topic={mine.input_topic}", f"--output_topic={mine.output_topic}"
    ):
        assert len(subscriptions()) == 2
    assert subscriptions() == []


def test_the_book_is_bounded():
    """Beyond its messages and bytes the oldest are forgotten, out of the distributions too."""
    book = Book()
    for number in range(40):
        data = json.dumps({"prediction": [{"label": f"L{number % 4}", "score": 0.5}], "pad": "x" * (8 << 20)}).encode()
        book.result(Message(data, {"message_id": str(number)}))
    kept, count = book.newest("ok", 1000)
    assert count < 40 and sum(len(story.output.data) for story in kept) <= BYTES + (9 << 20)
    assert sum(book.spread.labels.values()) == sum(book.spread.scores) == count
    assert kept[0].message_id == "39"


def test_a_repeat_counts_once_and_order_does_not_matter():
    """A result that is published twice is one result; its input may be seen after it, and gives the latency then."""
    book = Book()
    result = Message(b'{"prediction": [{"label": "A", "score": 1.0}]}', {"message_id": "1"}, "9", publish_time=10.5)
    book.result(result)
    book.result(result)
    book.published(Message(b"x", {}, "1", publish_time=10.0))
    (story,), count = book.newest("ok", 10)
    assert count == 1 and book.spread.labels == {"A": 1}
    assert story.latency_ms == pytest.approx(500) and book.on_their_way()[:2] == (0, None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"prediction": [{"label": "A", "score": 0.5}]}', ("A", 0.5)),
        (b'{"prediction": {"label": "A"}}', ("A", None)),
        (b'{"prediction": [[0.1, 0.2]]}', (None, None)),
        (b'{"prediction": [{"label": 3, "score": true}]}', (None, None)),
        (b"[" * 100_000, (None, None)),
        (b"\xff", (None, None)),
    ],
)
def test_any_prediction_is_read_or_left(data, expected):
    """Labels and scores are taken where a task has them; anything else, nonsense too, is none."""
    assert label_and_score(data) == expected


def test_bodies_are_shown_or_named():
    """Text is cut whole characters at a time; bytes are named, not shown."""
    assert readable(Message("é".encode() * 1000), 10) == "é" * 9 + "…"
    assert readable(Message(b"\xff\xfe", {"content-type": "image/png"})) == "(2 bytes, image/png)"
    assert readable(Message(b"caf\xe9 <b>")) == "caf\\xe9 <b>"


def test_a_dead_letter_is_shown_whole():
    """What failed may be a parameter: a dead letter's list shows its body, a result's list the model's input."""
    body, book = b'{"inputs": "hello", "parameters": 7}', Book()
    dead = book.dead_letter(Message(body, {"dead_letter_message_id": "1"}))
    assert summary(dead)["input"] == body.decode()
    book.published(Message(body, {}, "2"))
    alive = book.result(Message(b'{"prediction": []}', {"message_id": "2"}))
    assert alive is not None and summary(alive)["input"] == "hello"


def test_only_pictures_are_shown_as_such():
    """Pixels are shown by what the bytes say, also as base64 in JSON; what may hold more, or is large, is not."""
    png = tiny_models.png(tiny_models.picture())
    coded = base64.b64encode(png).decode()
    for kind, data, expected in (
        ("image/png", png, ("image/png", png)),
        ("image/svg+xml", png, ("image/png", png)),
        ("image/png", b"<svg onload='x()'>", None),
        ("image/svg+xml", b"<svg onload='x()'>", None),
        ("image/png", png + b"x" * (2 << 20), None),
        ("", json.dumps({"inputs": coded}).encode(), ("image/png", png)),
        (
            "",
            json.dumps({"inputs": {"image": f"data:image/png;base64,{coded}", "text": "?"}}).encode(),
            ("image/png", png),
        ),
        ("", json.dumps({"inputs": "iVBORw0KGgo and more"}).encode(), None),
        ("", b"iVBORw0KGgo", None),
    ):
        assert picture(Message(data, {"content-type": kind} if kind else {})) == expected


def test_what_is_composed_is_what_is_decoded():
    """Text, a raw body and a file become the messages that the job reads, each with a trace of its own."""
    message = compose({"text": "héllo"})
    assert json.loads(message.data) == {"inputs": "héllo"}
    assert compose({"text": "a"}).attributes["traceparent"] != message.attributes["traceparent"]
    assert compose({"json": "not json"}).data == b"not json"
    image = compose({"base64": "AAEC", "content_type": "image/png"})
    assert (image.data, image.attributes["content-type"]) == (b"\x00\x01\x02", "image/png")
    for wrong in (
        {},
        {"base64": "?"},
        {"base64": "é"},
        {"text": "a", "attributes": {"a": 1}},
        {"text": "x" * (9 << 20)},
    ):
        with pytest.raises(Refused):
            compose(wrong)


def test_quantiles_are_nearest_rank():
    """Of 1 to 100, the median is 51 and the 99 % quantile 100; of nothing, none."""
    ordered = [float(n) for n in range(1, 101)]
    assert (quantile(ordered, 0.5), quantile(ordered, 0.99), quantile([], 0.5)) == (51.0, 100.0, None)


def test_a_burst_is_sampled_evenly():
    """Of 12,000 latencies that grow within one second, those kept have the median of all, and not of the first."""
    second = Second(0)
    for latency in range(12_000):
        second.saw(float(latency))
    assert len(second.latencies) == 500
    assert 4_800 < (quantile(sorted(second.latencies), 0.5) or 0) < 7_200


def test_quiet_seconds_are_points_too():
    """A flow that saw nothing has a point for each second since, and no latency."""
    flow = Flow()
    flow.since -= 3
    points = flow.points()
    assert len(points) in (3, 4) and points[0][1:] == [0, 0, 0, None, None, None]
    assert flow.points(int(points[-1][0])) in ([], flow.points()[-1:])


def test_rates_are_by_stage(monkeypatch):
    """Ten results and five failures of one stage in the last five whole seconds are two and one a second."""
    flow, book = Flow(), Book()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 2)
    flow.saw_ended([book.dead_letter(Message(b"", {"dead_letter_stage": "predict"}, str(n))) for n in range(5)])
    results = [book.result(Message(b"{}", {"message_id": f"r{n}"})) for n in range(10)]
    flow.saw_ended([story for story in results if story is not None])
    monkeypatch.setattr(time, "time", lambda: now)
    assert flow.rates() == {"published": 0.0, "results": 2.0, "dead_letters": {"predict": 1.0}}
