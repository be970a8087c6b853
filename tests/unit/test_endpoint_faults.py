"""Remote endpoints under stress: what waits, what is blamed, and where the token never appears."""

from __future__ import annotations

import datetime
import email.utils
import logging
import pickle
import time
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.transforms.display import DisplayData
from fake_endpoint import FakeEndpoint, Fault

from pipeline.options import parse
from transforms.models import token as token_module
from transforms.models.errors import ModelLoadError
from transforms.models.remote import caller, circuit_breaker
from transforms.models.remote.caller import EndpointUnavailable
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.token import TokenSource
from transforms.predict import Predict
from transforms.records import Failure, Message, Prediction, Request

ROOT = Path(__file__).parents[2]
OLD, NEW = "hf_oldOldOldOldOld1234", "hf_newNewNewNewNew5678"


def requests(inputs) -> list[Request]:
    return [Request(one, {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]


def run(url: str, inputs, task="feature-extraction", **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch."""
    handler = EndpointModelHandler(url, task, **settings)
    return list(handler.run_inference(requests(inputs), handler.load_model()))


def kinds(outcomes) -> Counter[str]:
    return Counter(o.error_type if isinstance(o, Failure) else "Prediction" for o in outcomes)


@pytest.fixture
def hasty(monkeypatch):
    """Back-off and probes in hundredths of their seconds."""
    monkeypatch.setattr(caller, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.1)
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_S", 0.02)
    monkeypatch.setattr(circuit_breaker, "LAST_PROBE_S", 0.1)
    monkeypatch.setattr(token_module, "_PAUSE_S", 0.02)


LOADING = {"error": "Model org/embedder is currently loading", "estimated_time": 0.1}
PASSING = {
    "a dropped connection": Fault(0),
    "408": Fault(408, {"error": "timeout"}),
    "429": Fault(429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    "500": Fault(500, {"error": "oops"}),
    "502": Fault(502, "<html><title>502 Bad Gateway</title></html>"),
    "503 while loading": Fault(503, LOADING),
    "504": Fault(504, {"error": "gateway timeout"}),
    "424": Fault(424, {"error": "Request failed during generation", "error_type": "generation"}),
    "400 while paused": Fault(400, {"error": "Bad Request: endpoint is paused, ask a maintainer to restart it"}),
    "an answer that is none": Fault(200, "<html>hello</html>"),
    "an answer of another shape": Fault(200, {"unexpected": True}),
    "no answer in time": Fault(-1, seconds=1.0),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(fault, hasty):
    """A fault that comes once and blames no input costs one more request, and no message."""
    with FakeEndpoint("inference", script=lambda n, path, payload: fault if n == 1 else None).running() as fake:
        outcomes = run(fake.url, ["a"], timeout_s=0.5)
        assert kinds(outcomes) == {"Prediction": 1} and len(fake.posts) == 2


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_blames_the_input_is_a_dead_letter_at_once(status):
    """No second request, all others are answered, and the dead letter holds the server's own words."""

    def script(number, path, payload):
        return Fault(status, {"error": "`inputs` must have less than 512 tokens"}) if payload["inputs"] == "b" else None

    with FakeEndpoint("inference", script=script).running() as fake:
        first, second, third = run(fake.url, ["a", "b", "c"])
    assert isinstance(first, Prediction) and isinstance(third, Prediction) and len(fake.posts) == 3
    assert second.error_type == "EndpointRefused"
    assert f"{status}: `inputs` must have less than 512 tokens" in second.error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too long", "code": 400}}, "400: too long"),
        ({"detail": [{"msg": "field required"}, {"msg": "too short"}]}, "400: field required; too short"),
        ({"message": "no", "type": "Validation"}, "400: no"),
        ("plain words", "400: plain words"),
        ("<html><title>Bad\nRequest</title></html>", "400: Bad Request"),
    ],
)
def test_every_server_s_words_are_found(body, words):
    """OpenAI's, FastAPI's and other ways to write an error give one readable line."""
    with FakeEndpoint("inference", script=lambda n, path, payload: Fault(400, body)).running() as fake:
        assert run(fake.url, ["a"])[0].error.endswith(words)


def test_a_refused_request_of_many_is_halved_until_the_culprit_is_alone():
    """One poisoned text among 32 costs 1 + 2 log2(32) requests, and only itself."""
    texts = [f"t{n}" for n in range(32)]
    texts[13] = "poison"
    with FakeEndpoint("tei").running() as fake:
        outcomes = run(fake.url, texts)
    assert kinds(outcomes) == {"Prediction": 31, "EndpointRefused": 1} and isinstance(outcomes[13], Failure)
    assert len(fake.posts) == 11


@pytest.mark.parametrize("date", [False, True], ids=["seconds", "date"])
def test_retry_after_is_honoured(date):
    """The next attempt comes no earlier than the server asks for, in either way to say it."""
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    header = {"retry-after": email.utils.format_datetime(at, usegmt=True) if date else "1"}
    fault = Fault(429, {"error": "slow down"}, header)
    with FakeEndpoint("inference", script=lambda n, path, payload: fault if n == 1 else None).running() as fake:
        assert kinds(run(fake.url, ["a"])) == {"Prediction": 1}
    first, second = fake.posts
    assert second.at - first.at >= 1.0


def test_overload_lowers_the_load():
    """A server that takes two requests at once is asked for few more than two, however many may be under way."""

    def script(number, path, payload):
        return Fault(429, {"error": "overloaded"}) if fake._now > 2 else None

    with FakeEndpoint("inference", script=script, latency_s=0.02).running() as fake:
        outcomes = run(fake.url, [f"t{n}" for n in range(100)], concurrency=32)
    assert kinds(outcomes) == {"Prediction": 100}
    print(f"{len(fake.posts)} requests for 100 messages on a server of two places, with 32 here")
    assert len(fake.posts) <= 200


def test_a_stalled_endpoint_is_probed_not_hammered(hasty):
    """While nothing is answered, a thousand waiting messages send one probe at a time; then all are answered."""
    dark = time.monotonic() + 2.0

    def script(number, path, payload):
        return Fault(0) if time.monotonic() < dark else None

    with FakeEndpoint("inference", script=script).running() as fake:
        outcomes = run(fake.url, [f"t{n}" for n in range(1000)])
    assert kinds(outcomes) == {"Prediction": 1000}
    in_the_dark = sum(seen.status == 0 for seen in fake.posts)
    print(f"{in_the_dark} requests in 2 s of darkness, probes at most 0.1 s apart")
    assert in_the_dark <= 16 + 2 / 0.07


def test_an_endpoint_that_stays_away_fails_the_batch(hasty):
    """After max_wait_s the batch raises, in one line with the last cause; no message is blamed."""
    with FakeEndpoint(
        "inference", script=lambda n, path, payload: Fault(503, {"error": "no capacity"})
    ).running() as fake:
        with pytest.raises(EndpointUnavailable, match="no answer for 0.5 s.*503: no capacity") as error:
            run(fake.url, [f"t{n}" for n in range(50)], max_wait_s=0.5)
        assert "\n" not in str(error.value)


def test_a_second_try_while_it_is_away_still_says_why(hasty):
    """A bundle that comes again finds the breaker open, waits its own time, and its error names the cause too."""
    away = Fault(503, {"error": "no capacity"})
    with FakeEndpoint("inference", script=lambda n, path, payload: away if n > 1 else None).running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", max_wait_s=0.5)
        model = handler.load_model()
        handler.run_inference(requests(["good"]), model)
        for _ in range(3):
            with pytest.raises(EndpointUnavailable, match="503: no capacity"):
                handler.run_inference(requests([f"t{n}" for n in range(40)]), model)
        fake.script = None
        assert kinds(handler.run_inference(requests(["a", "b"]), model)) == {"Prediction": 2}


def test_nothing_is_blamed_while_everything_fails(hasty):
    """An endpoint that answers 500 to all is away: its messages come again, and none is a dead letter."""
    with (
        FakeEndpoint(
            "inference", script=lambda n, path, payload: Fault(500, {"error": "CUDA error"})
        ).running() as fake,
        pytest.raises(EndpointUnavailable, match="500: CUDA error"),
    ):
        run(fake.url, ["a", "b"], max_wait_s=1.0)


@pytest.mark.parametrize(
    "fault", [Fault(500, {"error": "kaboom"}), Fault(0), Fault(400, {"error": "is paused: kaboom"})]
)
def test_an_input_that_breaks_the_server_each_time_is_blamed(fault, hasty):
    """Failing five times while others are answered makes an input a dead letter; it would stop the stream else."""

    def script(number, path, payload):
        return fault if payload["inputs"] == "bad" else None

    with FakeEndpoint("inference", script=script).running() as fake:
        outcomes = run(fake.url, [*(f"t{n}" for n in range(20)), "bad"])
    assert kinds(outcomes) == {"Prediction": 20, "EndpointFailed": 1}
    assert "answers others" in outcomes[20].error


def test_an_input_that_breaks_a_request_of_many_is_found(hasty):
    """Where several texts share a request, one that makes the server fail is halved out, and blamed alone."""

    def script(number, path, payload):
        return Fault(500, {"error": "kaboom"}) if "bad" in payload["inputs"] else None

    with FakeEndpoint("tei", script=script).running() as fake:
        outcomes = run(fake.url, [*(f"t{n}" for n in range(70)), "bad"])
    assert kinds(outcomes) == {"Prediction": 70, "EndpointFailed": 1}


ITS_OWN = {
    "a gateway that forbids what is in it": Fault(403, "<html><title>403 Forbidden</title></html>"),
    "over every quota by itself": Fault(429, {"error": {"message": "Request too large: limit 10000, requested 12000"}}),
    "a server that dies of it behind a gateway": Fault(503, "upstream connect error"),
    "a gateway that leads it elsewhere": Fault(302, "", {"location": "/blocked"}),
    "no route for it": Fault(404, {"error": "not found"}),
}


@pytest.mark.parametrize(
    "name", [name if n < 2 else pytest.param(name, marks=pytest.mark.slow) for n, name in enumerate(ITS_OWN)]
)
def test_one_input_that_is_never_answered_does_not_stop_the_job(name, hasty, monkeypatch):
    """Whatever its status: what went well before still does until its time is over, so that it is the input alone."""

    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.02)

    def script(number, path, payload):
        return ITS_OWN[name] if payload["inputs"] == "bad" else None

    with FakeEndpoint("inference", script=script).running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", max_wait_s=0.7)
        model = handler.load_model()
        assert kinds(handler.run_inference(requests(["good"]), model)) == {"Prediction": 1}
        assert kinds(handler.run_inference(requests(["bad"]), model)) == {"EndpointFailed": 1}


@pytest.mark.slow
def test_one_input_that_is_never_answered_does_not_cost_its_neighbours(hasty, monkeypatch):
    """A gateway that forbids a request of many for one text in it: halved, and the one is blamed."""

    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.02)

    def script(number, path, payload):
        return Fault(403, "") if "bad" in payload["inputs"] else None

    with FakeEndpoint("tei", script=script).running() as fake:
        outcomes = run(fake.url, [*(f"t{n}" for n in range(40)), "bad"], max_wait_s=1.0)
    assert kinds(outcomes) == {"Prediction": 40, "EndpointFailed": 1}


def test_an_outage_after_much_overload_blames_nobody(hasty, monkeypatch):
    """A message that was refused again and again while others were answered comes again if the endpoint goes away."""
    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.02)
    dark = []

    def script(number, path, payload):
        if payload["inputs"] == "unlucky":
            dark.extend([True] if number > 16 else [])
            return Fault(429, {"error": "overloaded"})
        return Fault(503, {"error": "away"}) if dark else None

    with FakeEndpoint("inference", script=script).running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", max_wait_s=1.2)
        model = handler.load_model()
        handler.run_inference(requests(["good"]), model)
        with pytest.raises(EndpointUnavailable):
            handler.run_inference(requests(["unlucky"]), model)


def test_an_input_that_breaks_the_server_is_blamed_even_alone(hasty):
    """On a quiet stream there are no others: what went well before is asked again, and tells who is to blame."""

    def script(number, path, payload):
        return Fault(500, {"error": "kaboom"}) if payload["inputs"] == "bad" else None

    with FakeEndpoint("inference", script=script).running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction")
        model = handler.load_model()
        assert kinds(handler.run_inference(requests(["good"]), model)) == {"Prediction": 1}
        assert kinds(handler.run_inference(requests(["bad"]), model)) == {"EndpointFailed": 1}


def test_a_rotated_token_is_picked_up(tmp_path, hasty):
    """The file changes, the server refuses the old token: the batch goes on with the new one, and nothing is lost."""
    file = tmp_path / "token"
    file.write_text(OLD)

    def script(number, path, payload):
        if number == 50:
            fake.tokens = {NEW}
            file.write_text(NEW)

    with FakeEndpoint("inference", tokens={OLD}, script=script).running() as fake:
        outcomes = run(fake.url, [f"t{n}" for n in range(100)], token=TokenSource(f"file:{file}"))
    assert kinds(outcomes) == {"Prediction": 100}
    assert {seen.token for seen in fake.posts} == {OLD, NEW}


def test_a_token_that_comes_late_is_waited_for(tmp_path, hasty):
    """A token revoked before its successor is in place blames no message: they wait until it is."""
    file = tmp_path / "token"
    file.write_text(OLD)

    def script(number, path, payload):
        if number == 8:
            file.write_text(NEW)

    with FakeEndpoint("inference", tokens={NEW}, script=script).running() as fake:
        outcomes = run(fake.url, ["a", "b", "c"], token=TokenSource(f"file:{file}"))
    assert kinds(outcomes) == {"Prediction": 3}


def everything_in(error: BaseException | None) -> str:
    """All that an exception and those behind it could tell, their attributes included."""
    told = []
    while error is not None:
        told += [repr(error), str(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(told)


def test_the_token_is_nowhere(tmp_path, monkeypatch, caplog, hasty):
    """Not in the handler, its pickle, display data, the job graph, options, log lines, errors or dead letters."""
    monkeypatch.setenv("SECRET_TOKEN", OLD)
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").propagate = True

    def script(number, path, payload):
        text = payload["inputs"]
        return (
            Fault(422, {"error": f"refused with token {OLD}"}) if text == "bad" else Fault(0) if number == 2 else None
        )

    with FakeEndpoint("inference", tokens={OLD}, script=script).running() as fake:
        handler = EndpointModelHandler(
            fake.url, "feature-extraction", token=TokenSource("env:SECRET_TOKEN"), max_wait_s=0.5
        )
        model = handler.load_model()
        outcomes = handler.run_inference(requests(["a", "b", "bad"]), model)
        fake.tokens = {NEW}  # the server now quotes the token it refuses
        with pytest.raises(EndpointUnavailable, match="401") as error:
            handler.run_inference(requests(["c"]), model)
        with pytest.raises(ModelLoadError, match="401") as refused:
            handler.probe()
        flags = ["--hf_token_source=env:SECRET_TOKEN", f"--endpoint={fake.url}", "--task=feature-extraction"]
    assert kinds(outcomes) == {"Prediction": 2, "EndpointRefused": 1}
    pipeline = beam.Pipeline()
    pipeline | beam.Create(requests(["a"])) | Predict(handler)
    names = [f"--{n}=projects/my-project/{k}/name-{n}" for n, k in (("input_subscription", "subscriptions"),)]
    names += [f"--{n}=projects/my-project/topics/name-{n}" for n in ("output_topic", "dead_letter_topic")]
    settings, options = parse([*names, *flags])
    told = [
        repr(handler),
        repr(vars(handler)),
        repr(pickle.dumps(handler)),
        repr(DisplayData.create_from(handler).items) if hasattr(handler, "display_data") else "",
        repr(pipeline.to_runner_api().SerializeToString()),
        repr(settings),
        repr(options.get_all_options()),
        repr(options.display_data()),
        caplog.text,
        repr(outcomes),
        everything_in(error.value),
        everything_in(refused.value),
        str(refused.getrepr(style="long")),
    ]
    assert "***" in outcomes[2].error and "refused with token" in outcomes[2].error
    for text in told:
        assert OLD not in text and OLD[3:] not in text, text[max(0, text.find(OLD[3:]) - 200) :][:400]


def test_a_redirect_does_not_carry_the_token_away(monkeypatch, hasty):
    """Another host never sees the token, nor any request; the operator reads where it would have led."""
    monkeypatch.setenv("SECRET_TOKEN", OLD)
    with FakeEndpoint("inference").running() as other:
        away = Fault(307, "", {"location": f"{other.url}/x"})
        with (
            FakeEndpoint("inference", script=lambda n, path, payload: away).running() as fake,
            pytest.raises(EndpointUnavailable, match=f"redirects to {other.url}/x"),
        ):
            run(fake.url, ["a"], token=TokenSource("env:SECRET_TOKEN"), max_wait_s=0.2)
        assert other.seen == []


def test_an_outage_of_days_is_waited_out():
    """However often it was probed, the breaker goes on probing: its back-off grows over no bound."""
    breaker = circuit_breaker.CircuitBreaker("e", 1)
    breaker._probes = 5000
    breaker.is_open = True
    breaker.under_way = 1
    breaker.leave(circuit_breaker.Verdict.BUSY, 0.0)
    assert breaker._probe_at - circuit_breaker.time.monotonic() <= circuit_breaker.LAST_PROBE_S
