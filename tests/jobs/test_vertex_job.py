"""A job on Vertex AI with the machine's own identity: a bad day, and a stream that repeats itself."""

from __future__ import annotations

import math
import random
import time
from collections import Counter

from fake_endpoint import FakeEndpoint, Fault
from fake_vertex import DEPLOYED, MODEL, VERSION, FakeMetadata, FakeVertex, exhausted
from streams import audit_rows, collect, drain, fresh, job, text_message

from pipeline.publish import publish_all as publish
from transforms.models.remote.handler import EndpointModelHandler
from transforms.records import Message, Prediction, Request


class BadDay:
    """Half way every token ends, and then there are one more 401 and one 429 that says to wait a second."""

    def __init__(self, metadata: FakeMetadata, messages: int) -> None:
        self.metadata = metadata
        self.messages = messages
        self.seen = 0
        self.told: list[int] = []

    def __call__(self, number, path, payload):
        self.seen += len(payload["instances"])
        if not self.told and self.seen > self.messages // 2:
            self.metadata.revoke()
            self.told.append(401)
            return None
        if self.told == [401]:
            self.told.append(429)
            return exhausted(1)
        if self.told == [401, 429]:
            self.told.append(401)
            return Fault(401, {"error": {"code": 401, "message": "Request had invalid authentication credentials."}})
        return None


def test_a_job_on_vertex_ai_s_bad_day(servers, tmp_path, monkeypatch):
    """300 messages: 299 results and one dead letter alone, requests near the minimum, and no token anywhere."""
    texts = [f"Ticket {n}" for n in range(300)]
    texts[150] = "poison"
    resources = fresh("vertex")
    ids = publish(resources.input_topic, [text_message(text) for text in texts])
    with FakeMetadata().running() as metadata, FakeVertex("tei", tokens=metadata.tokens).running() as fake:
        for name, value in metadata.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        flags = [f"--endpoint={fake.endpoint}", "--task=feature-extraction", "--endpoint_auth=google"]
        day = BadDay(metadata, 300)
        with job(resources, *flags, "--audit_input=full", log=tmp_path / "log") as process:
            while not fake.posts and process.poll() is None:
                time.sleep(0.05)  # the look at launch, on a good day
            looked = len(fake.posts)
            fake.script = day
            ledger = collect(resources, 300, 240)
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert drain(process) == 0
    log = (tmp_path / "log").read_text()
    assert {m.attributes["message_id"] for m in ledger.results} == set(ids) - {ids[150]}
    assert [m.attributes["dead_letter_message_id"] for m in ledger.dead_letters] == [ids[150]]
    assert "cannot be tokenized" in ledger.dead_letters[0].attributes["dead_letter_error"]
    assert max(ledger.ended().values()) == 1 and day.told == [401, 429, 401]
    rows = audit_rows(resources)
    assert Counter(row["status"] for row in rows) == {"ok": 299, "dead_letter": 1}
    answered = {(row["model"], row["model_revision"]) for row in rows if row["status"] == "ok"}
    assert answered == {(MODEL, f"{VERSION}/{DEPLOYED}")}
    told = [log, repr(rows), repr(ledger.results), repr(ledger.dead_letters), " ".join(process.args)]
    assert len(metadata.given) >= 2
    assert not any(token in text for text in told for token in metadata.given)
    asked = fake.posts[looked:]
    print(f"{len(asked)} requests for 300 messages, at least {math.ceil(300 / 32)} with 32 instances in each")
    print(f"by status {dict(Counter(seen.status for seen in asked))}, {len(metadata.given)} tokens")
    # A bundle holds what was there when it was made, so how many requests are the least is the source's affair. Beside
    # those answered: one refused and halved, the one 429 and 401, and a 401 for each under way half way.
    statuses = Counter(seen.status for seen in asked)
    assert statuses[429] == 1 and statuses[400] <= 6 and statuses[401] <= 1 + 16 and len(metadata.given) <= 4


def test_a_stream_with_repeats_is_asked_once_each():
    """1,000 messages of which 37 % repeat: as many requests saved, the answers equal to those without a cache."""
    chance = random.Random(7)
    texts = [f"question {n}" for n in range(630)]
    texts += [chance.choice(texts) for _ in range(370)]
    chance.shuffle(texts)
    asked = [Request(text, {}, Message(message_id=str(n))) for n, text in enumerate(texts)]
    found = {}
    for mib in (None, 8):
        with FakeEndpoint("inference").running() as fake:
            handler = EndpointModelHandler(fake.url, "feature-extraction", cache_mib=mib)
            model = handler.load_model()
            outcomes = [
                one for start in range(0, 1000, 100) for one in handler.run_inference(asked[start:][:100], model)
            ]
        assert all(isinstance(one, Prediction) for one in outcomes)
        found[mib] = ([one.prediction.tolist() for one in outcomes], len(fake.posts), [one.cached for one in outcomes])
    (plain, requests, nothing), (cached, fewer, marks) = found.values()
    print(f"{requests} requests without a cache, {fewer} with one: {requests - fewer} saved")
    assert plain == cached and (requests, fewer) == (1000, 630)
    assert set(nothing) == {None} and Counter(marks) == {False: 630, True: 370}
