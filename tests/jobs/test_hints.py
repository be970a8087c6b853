"""Ways out that make what is missing: on the emulators where those are used, on Google Cloud otherwise."""

from __future__ import annotations

import pytest

from pipeline.checks import hints
from pipeline.matchers import TableName

TOPIC, SUBSCRIPTION = "projects/p/topics/t", "projects/p/subscriptions/s"
TABLE = TableName("my-project", "inference", "audit")


@pytest.mark.parametrize("emulated", [True, False])
def test_what_is_missing_is_made_where_it_is_looked_for(emulated, monkeypatch):
    """With an emulator's variable set, nothing is asked of Google Cloud, and without it nothing of an emulator."""
    for name in hints.EMULATORS.values():
        monkeypatch.setenv(name, "127.0.0.1:1") if emulated else monkeypatch.delenv(name, raising=False)
    said = [
        hints.make_topic("output_topic", TOPIC),
        hints.make_subscription("input_subscription", SUBSCRIPTION, TOPIC),
        hints.make_table(TABLE),
        hints.make_dataset("audit_table", TABLE),
    ]
    if emulated:
        assert said == [
            f"create it with: beam-hf-inference emulators create --output_topic={TOPIC}",
            f"create it with: beam-hf-inference emulators create --input_subscription={SUBSCRIPTION} --topic={TOPIC}",
            "create it with: beam-hf-inference emulators create --audit_table=my-project:inference.audit",
            "create it with: beam-hf-inference emulators create --audit_table=my-project:inference.audit",
        ]
        return
    topic, subscription, table, dataset = said
    assert topic == f"create it with: gcloud pubsub topics create {TOPIC}"
    assert subscription == f"create it with: gcloud pubsub subscriptions create {SUBSCRIPTION} --topic={TOPIC}"
    assert "bq mk --table" in table and table.endswith("my-project:inference.audit audit_schema.json")
    assert "bq mk --dataset my-project:inference && python -m transforms.records" in dataset
