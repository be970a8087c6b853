"""audit erase and audit prove, against the embedded servers: what is deleted, what is not yet, and what is missing."""

from __future__ import annotations

import datetime
import re
import time
import uuid

import pytest
from fake_job import Behaviour, fake_job
from google.cloud import bigquery
from google.pubsub_v1 import SubscriberClient, types
from streams import PATIENCE_S, collect, fresh, text_message

from pipeline import audit_sink, cli, clients, erase, prove, publish
from pipeline.matchers import TableName
from transforms.records import Message


def named(table: TableName) -> str:
    return f"{table.project}:{table.dataset}.{table.table}"


def row(number: int, user: str, age_s: float) -> dict:
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "message_id": str(number),
        "processed_time": (now - datetime.timedelta(seconds=age_s)).isoformat(),
        "status": "ok",
        "input_bytes": 3,
        "attributes": f'{{"user_id": "{user}", "e-mail": "{user}@example.com"}}',
    }


def ids_of(table: TableName) -> set[str]:
    rows = clients.bigquery_client(table.project).query(f"SELECT message_id FROM `{table}`").result()
    return {each["message_id"] for each in rows}


@pytest.fixture
def table(servers) -> TableName:
    """An audit table with rows of two people, two of them a minute old."""
    found = fresh("erase").audit_table
    rows = [row(1, "ada", 7200), row(2, "bob", 7200), row(3, "ada", 7200), row(4, "ada", 60), row(5, "bob", 60)]
    assert not audit_sink.BigQuerySink(found).insert(rows, [uuid.uuid4().hex for _ in rows])
    return found


def test_without_yes_nothing_is_deleted(table, capsys):
    """It counts, says how many cannot be deleted yet, and leaves all."""
    assert erase.main([f"--audit_table={named(table)}", "--where=attributes.user_id = 'ada'"]) == 0
    assert capsys.readouterr().out.startswith("3 rows, of which 1 cannot be deleted yet")
    assert ids_of(table) == {"1", "2", "3", "4", "5"}


def test_old_rows_go_at_once_and_young_ones_later(table, capsys):
    """With --no_wait the young row is left, with exit code 1 and when to come again; waited for, it is gone too."""
    flags = [f"--audit_table={named(table)}", "--where=attributes.`e-mail` = 'ada@example.com'", "--yes"]
    assert erase.main([*flags, "--no_wait"]) == 1
    out = capsys.readouterr().out
    assert "2 rows deleted, 1 left" in out and "run the same again after" in out
    assert ids_of(table) == {"2", "4", "5"}
    assert erase.main([*flags, "--buffer_s=61"]) == 0
    assert "1 rows deleted, 0 left" in capsys.readouterr().out
    assert ids_of(table) == {"2", "5"}


def test_a_row_that_grows_old_between_two_queries_is_not_left():
    """Too young for the first deletion, it is old for the count after it; the next deletion has it."""

    class Grown:
        _buffer_s, deletions = 0.0, 0

        def count(self):
            return int(self.deletions < 2), 0, datetime.datetime.now(datetime.timezone.utc)

        def delete(self):
            self.deletions += 1

    assert erase.erase(Grown(), wait=True) == 0


@pytest.mark.parametrize(
    ("where", "sql"),
    [
        ("attributes.user_id = 'attributes.x'", "(JSON_VALUE(attributes, '$.\"user_id\"') = 'attributes.x')"),
        ("attributes.`user-id` IN ('a', \"b\")", "(JSON_VALUE(attributes, '$.\"user-id\"') IN ('a', \"b\"))"),
        ("input_sha256 = 'ab' OR message_id = ';--'", "(input_sha256 = 'ab' OR message_id = ';--')"),
    ],
)
def test_attributes_have_names(where, sql):
    """attributes.NAME is the JSON value of that name, outside of texts, and everything else stays as it is."""
    assert erase.condition(where) == sql


@pytest.mark.parametrize("where", ["TRUE); DROP TABLE x", "a = 1) OR (TRUE", "a = 'open", "a = 1 -- x", "a = 1;"])
def test_one_condition_and_no_more(where, capsys):
    """What would end the condition, or begin another statement, is refused with one line and exit code 2."""
    assert erase.main(["--audit_table=my-project:a.b", f"--where={where}"]) == 2
    assert "not one condition" in capsys.readouterr().err


COLUMNS = (
    ("subscription_name", "STRING"),
    ("message_id", "STRING"),
    ("publish_time", "TIMESTAMP"),
    ("data", "BYTES"),
    ("attributes", "JSON"),
)


def second_record(resources) -> TableName:
    """A BigQuery subscription to the input topic, and its table."""
    audit = resources.audit_table
    inputs = TableName(audit.project, audit.dataset, "inputs")
    schema = [bigquery.SchemaField(name, kind) for name, kind in COLUMNS]
    clients.bigquery_client(audit.project).create_table(bigquery.Table(str(inputs), schema))
    config = types.BigQueryConfig(table=str(inputs), write_metadata=True)
    name = f"{resources.input_subscription}-record"
    clients.pubsub(SubscriberClient).create_subscription(
        request=types.Subscription(name=name, topic=resources.input_topic, bigquery_config=config)
    )
    return inputs


def test_a_chaotic_run_is_proved_complete_and_a_deleted_row_is_named(servers, tmp_path, capsys):
    """Killed twice and restarted: none is missing. One row deleted by hand: its id is named, and the exit code is 1."""
    resources = fresh("prove")
    inputs = second_record(resources)
    begun = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=5)
    total = 0
    for kill in (True, True, False):
        with fake_job(resources.flags(), tmp_path / "log", Behaviour(lease_s=10)) as job:
            job.until_running()
            messages = [text_message(f"number {n}") for n in range(60)]
            publish.publish_all(resources.input_topic, [*messages, Message(b"\xff"), Message(b'{"inputs": 1}')])
            total += 62
            if kill:
                job.kill()
            else:
                collect(resources, total)
                assert job.drain() == 0
    client = clients.bigquery_client("my-project")

    def recorded() -> int:
        (found,) = client.query(f"SELECT COUNT(DISTINCT message_id) AS n FROM `{inputs}`").result()
        return found["n"]

    deadline = time.monotonic() + PATIENCE_S
    while recorded() < total and time.monotonic() < deadline:
        time.sleep(0.2)
    flags = [f"--audit_table={named(resources.audit_table)}", f"--inputs_table={named(inputs)}"]
    flags += [f"--from={begun.isoformat()}", "--in_flight_s=0.001"]
    assert prove.main(flags) == 0
    out = capsys.readouterr().out
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", out)}
    assert counts["published"] == total == counts["results"] + counts["dead_letters"] and counts["dead_letters"] == 6
    assert counts["rows"] >= total and counts["missing"] == counts["in_flight"] == 0
    (victim,) = client.query(f"SELECT MIN(message_id) AS id FROM `{resources.audit_table}`").result()
    client.query(f"DELETE FROM `{resources.audit_table}` WHERE message_id = '{victim['id']}'").result()
    assert prove.main(flags) == 1
    out = capsys.readouterr().out
    assert "missing=1" in out and f"missing: {victim['id']}, published " in out
    assert prove.main([*flags, "--in_flight_s=3600"]) == 0
    assert "in_flight=1 missing=0" in capsys.readouterr().out
    # A second record without a message in it proves nothing.
    assert prove.main([*flags, "--from=2001-01-01T00:00:00Z", "--to=2001-01-02T00:00:00Z"]) == 1
    assert "nothing is proved" in capsys.readouterr().err


def test_prove_refuses_what_proves_nothing(capsys):
    """A range without an inside and a table compared with itself are wrong usage."""
    flags = ["--audit_table=my-project:a.b", "--inputs_table=my-project:a.c"]
    for more, words in (
        (["--from=1h", "--to=2h"], "not before --to"),
        (["--inputs_table=my-project:a.b", "--from=1h"], "also"),
    ):
        assert prove.main([*flags, *more]) == 2
        assert words in capsys.readouterr().err


def test_a_bigquery_subscription_gives_no_messages(servers):
    """It writes to its table alone, and says that it is active; a pull from it is refused."""
    resources = fresh("exports")
    inputs = second_record(resources)
    publish.publish_all(resources.input_topic, [Message(b"\xff\x00", {"n": "1"})])
    client, name = clients.pubsub(SubscriberClient), f"{resources.input_subscription}-record"
    deadline = time.monotonic() + PATIENCE_S
    rows: list = []
    while not rows and time.monotonic() < deadline:
        rows = list(clients.bigquery_client("my-project").query(f"SELECT * FROM `{inputs}`").result())
        time.sleep(0.1)
    (found,) = rows
    assert found["data"] == b"\xff\x00" and found["attributes"] == {"n": "1"} and found["subscription_name"] == name
    assert client.get_subscription(subscription=name).bigquery_config.state == types.BigQueryConfig.State.ACTIVE
    with pytest.raises(Exception, match="writes to BigQuery"):
        client.pull(subscription=name, max_messages=1, retry=None)


def test_a_person_is_erased_and_what_the_table_holds_is_chosen(servers, tmp_path, capsys):
    """Rows without predictions and with one attribute alone; by that, a person's are counted, deleted, and gone."""
    resources = fresh("person")
    flags = [*resources.flags(), "--audit_prediction=none", "--audit_attributes=user_id"]
    own = [{"user_id": user, "e-mail": f"{user}@example.com"} for user in ("ada", "bob", "ada", "eve")]
    with fake_job(flags, tmp_path / "log") as job:
        job.until_running()
        publish.publish_all(resources.input_topic, [text_message("hello", **each) for each in own[:3]])
        publish.publish_all(resources.input_topic, [Message(b"\xff", own[3])])
        ledger = collect(resources, 4)
        assert job.drain() == 0, job.words()
    assert all(row["prediction"] is None and row["input"] is None and row["input_sha256"] for row in ledger.rows)
    assert sorted(row["attributes"]["user_id"] for row in ledger.rows) == ["ada", "ada", "bob", "eve"]
    assert "example.com" not in str(ledger.rows)
    assert all(b'"label":"TEXT"' in each.data for each in ledger.results), "the answer itself is not touched"
    assert all(each.attributes["e-mail"] for each in [*ledger.results, *ledger.dead_letters])
    command = ["audit", "erase", f"--audit_table={named(resources.audit_table)}", "--where=attributes.user_id = 'ada'"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("2 rows, of which 2 cannot be deleted yet; nothing is deleted")
    assert cli.main([*command, "--yes", "--no_wait"]) == 1
    assert "0 rows deleted, 2 left" in capsys.readouterr().out and len(ids_of(resources.audit_table)) == 4
    assert cli.main([*command, "--yes", "--buffer_s=1"]) == 0
    assert "2 rows deleted, 0 left" in capsys.readouterr().out
    left = ids_of(resources.audit_table)
    assert left == {row["message_id"] for row in ledger.rows if row["attributes"]["user_id"] != "ada"}
    assert cli.main(command) == 0 and capsys.readouterr().out.startswith("0 rows")
