"""Servers as they are: waits in every header, tokens in every form, base64, paces, hedges and the cache."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import time

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint, Fault, vector
from hypothesis import given
from hypothesis import strategies as st

from transforms.models.inputs import Ask
from transforms.models.remote import cache as cache_module
from transforms.models.remote import pace as pace_module
from transforms.models.remote import waits
from transforms.models.remote.cache import Cache, key_of
from transforms.models.remote.caller import EndpointUnavailable
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.remote.pace import Limits, Pace, guess_tokens
from transforms.models.remote.reply import Reply
from transforms.models.remote.usage import tokens
from transforms.models.remote.waits import LONGEST_WAIT_S, wait_s
from transforms.records import Failure, Message, ModelInfo, Prediction, Request

NOW = time.time()
#: Two moments of a server whose clock is a year behind.
DATES = [email.utils.formatdate(NOW - 365 * 86_400 + seconds, usegmt=True) for seconds in (0, 90)]
PAST = "Wed, 21 Oct 2015 07:28:00 GMT"
WAITS = [
    ("HTTP", {"retry-after": "7"}, None, 7.0),
    ("HTTP, a date", {"retry-after": email.utils.formatdate(NOW + 60, usegmt=True)}, None, 60.0),
    ("OpenAI", {"retry-after-ms": "1500", "retry-after": "2"}, None, 1.5),
    ("OpenAI, Groq", {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, None, 90.5),
    ("Groq", {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, None, 0.02),
    (
        "what is left over does not count",
        {
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-requests": "1h",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "4s",
        },
        None,
        4.0,
    ),
    ("GitHub, gateways", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW + 30))}, None, 30.0),
    ("milliseconds", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int((NOW + 30) * 1000))}, None, 30.0),
    ("by its own clock", {"date": DATES[0], "retry-after": DATES[1]}, None, 90.0),
    ("by its own clock", {"date": DATES[0], "x-ratelimit-remaining": "0", "x-ratelimit-reset": DATES[1]}, None, 90.0),
    ("a past date, and more", {"retry-after": PAST, "ratelimit-remaining": "0", "ratelimit-reset": "4"}, None, 4.0),
    ("Azure", {"x-ms-retry-after-ms": "1500"}, None, 1.5),
    ("gateways", {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "7"}, None, 7.0),
    ("Discord, others", {"x-ratelimit-reset-after": "2.5"}, None, 2.5),
    ("draft 7", {"ratelimit": "limit=10, remaining=0, reset=12"}, None, 12.0),
    ("Hugging Face's hub", {"ratelimit": '"api";r=0;t=33'}, None, 33.0),
    ("not run out", {"ratelimit": '"api";r=5;t=33'}, None, 0.0),
    (
        "Anthropic",
        {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "3"},
        None,
        3.0,
    ),
    ("Google", {}, {"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "13s"}]}}, 13.0),
    ("Google", {}, {"error": {"details": [{"retryDelay": "0.5s"}, {"reason": "x"}]}}, 0.5),
    ("longer than anyone is believed", {"retry-after": "999999"}, None, LONGEST_WAIT_S),
    ("longer than a number", {"retry-after": "9" * 400}, None, 0.0),
    ("a past date", {"retry-after": PAST}, None, 0.0),
    ("no number", {"retry-after": "nan"}, None, 0.0),
    ("below zero", {"retry-after": "-5", "x-ratelimit-reset-after": "-5"}, None, 0.0),
    ("nothing", {}, None, 0.0),
]


@pytest.mark.parametrize(("whose", "headers", "answer", "seconds"), WAITS)
def test_how_long_a_server_asks_to_wait(whose, headers, answer, seconds, monkeypatch):
    """In each way that servers write it; of what has not run out the reset is not waited for."""
    monkeypatch.setattr(waits.time, "time", lambda: NOW)
    assert wait_s(headers, answer) == pytest.approx(seconds, abs=1.5 if seconds in (30.0, 60.0) else 1e-6)


NAMES = st.sampled_from([name for _, headers, _, _ in WAITS for name in headers])
VALUES = st.text(max_size=30) | st.sampled_from(["0", "1e999", "٣", "1h1h", "9" * 30, "0x10", "-1", "5s;", "Infinity"])
ANY = st.recursive(
    st.none() | st.text(max_size=9) | st.floats() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "details", "retryDelay"]), inner)
    ),
)


@given(headers=st.dictionaries(NAMES, VALUES, max_size=6), answer=ANY)
def test_no_header_is_waited_for_beyond_reason(headers, answer):
    """Whatever they say: a finite number of seconds between nothing and five minutes."""
    assert 0.0 <= wait_s(headers, answer) <= LONGEST_WAIT_S


USAGES = [
    ("OpenAI, vLLM, SGLang", {}, {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}, (5, 2)),
    ("embeddings of OpenAI, infinity", {}, {"usage": {"prompt_tokens": 5, "total_tokens": 5}}, (5, 0)),
    ("a total alone", {}, {"usage": {"total_tokens": 5}}, (5, 0)),
    ("OpenAI's responses, Anthropic", {}, {"usage": {"input_tokens": 5, "output_tokens": 2}}, (5, 2)),
    ("Google", {}, {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2}}, (5, 2)),
    ("Ollama", {}, {"response": "x", "prompt_eval_count": 5, "eval_count": 2}, (5, 2)),
    ("llama.cpp", {}, {"content": "x", "tokens_evaluated": 5, "tokens_predicted": 2}, (5, 2)),
    ("llama.cpp's timings", {}, {"timings": {"prompt_n": 5, "predicted_n": 2}}, (5, 2)),
    ("SGLang's own route", {}, {"text": "x", "meta_info": {"prompt_tokens": 5, "completion_tokens": 2}}, (5, 2)),
    ("TGI's details", {}, [{"generated_text": "x", "details": {"generated_tokens": 2}}], (None, 2)),
    ("TGI's headers", {"x-prompt-tokens": "5", "x-generated-tokens": "2"}, [{"generated_text": "x"}], (5, 2)),
    ("TEI's headers", {"x-compute-tokens": "5"}, [[0.1]], (5, 0)),
    ("nonsense", {"x-compute-tokens": "-5"}, {"usage": {"prompt_tokens": "many", "completion_tokens": 1e9}}, (None, 0)),
    ("too many", {}, {"usage": {"prompt_tokens": 10**12, "completion_tokens": True}}, (None, 0)),
    ("none", {}, "text", (None, 0)),
]


@pytest.mark.parametrize(("whose", "headers", "answer", "counted"), USAGES)
def test_tokens_in_each_form(whose, headers, answer, counted):
    """Read and generated, by every server's own names; what cannot be a count is none."""
    assert tokens(headers, answer) == counted


def run(url: str, task: str, inputs, parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch."""
    handler = EndpointModelHandler(url, task, **settings)
    asked = [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(asked, handler.load_model()))


def test_embeddings_in_base64_are_the_same():
    """A gateway that answers in base64, though floats were asked for, is understood; what is neither is no answer."""
    coded = base64.b64encode(np.asarray(vector("hello"), "<f4").tobytes()).decode()
    with FakeEndpoint("openai").running() as fake:
        (plain,) = run(f"{fake.url}/v1", "feature-extraction", ["hello"])
        assert fake.posts[0].payload["encoding_format"] == "float"
        fake.script = lambda *_: Fault(200, {"data": [{"index": 0, "embedding": coded}]})
        (coded_one,) = run(f"{fake.url}/v1", "feature-extraction", ["hello"])
        np.testing.assert_array_equal(plain.prediction, coded_one.prediction)
        for wrong in ("hello!", coded[:-3], "", "AAA="):
            fake.script = lambda *_, wrong=wrong: Fault(200, {"data": [{"index": 0, "embedding": wrong}]})
            with pytest.raises(EndpointUnavailable, match="expected"):
                run(f"{fake.url}/v1", "feature-extraction", ["hello"], max_wait_s=0.2)


REASONING = {"role": "assistant", "content": "42", "reasoning_content": "thoughts", "reasoning": "thoughts"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (REASONING, "42"),
        ({"content": [{"type": "thinking", "text": "thoughts"}, {"type": "text", "text": "42"}]}, "42"),
        ({"content": None, "tool_calls": [CALL]}, ""),
        ({"content": None, "reasoning_content": "thoughts that took all the tokens"}, ""),
        ({"content": [{"type": "thinking", "thinking": "thoughts that took all the tokens"}]}, ""),
        ({"role": "assistant"}, ""),
    ],
)
def test_thoughts_and_calls_are_no_answer(message, text):
    """Thoughts, as servers and models write them, stay out; a call in place of a text is an empty text."""
    choice = {"message": message, "finish_reason": "length"}
    with FakeEndpoint("openai", script=lambda *_: Fault(200, {"choices": [choice]})).running() as fake:
        chat = [{"role": "user", "content": "?"}]
        (outcome,) = run(f"{fake.url}/v1", "text-generation", [chat], {"return_full_text": False})
    assert outcome.prediction == [{"generated_text": text}]


@pytest.mark.parametrize(
    "message",
    [{"content": None}, {"content": []}, {"content": [7]}, {"content": [{"type": "text"}]}, {"content": 7}, {}, None],
)
def test_no_text_without_a_reason_is_no_answer(message):
    """A choice that came to its own end, and has no text, is asked for again: it is no empty answer."""
    choice = {"message": message, "finish_reason": "stop"}
    fake = FakeEndpoint("openai", script=lambda *_: Fault(200, {"choices": [choice]}))
    with fake.running(), pytest.raises(EndpointUnavailable, match="expected a choice with a text"):
        run(f"{fake.url}/v1", "text-generation", [[{"role": "user", "content": "?"}]], max_wait_s=0.2)


class Clock:
    """Time that passes only in waits."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pace_module.time, "monotonic", lambda: self.now)

        async def wait_for(awaitable, timeout):
            awaitable.close()
            self.now += timeout
            raise TimeoutError

        monkeypatch.setattr(pace_module.asyncio, "wait_for", wait_for)


def test_requests_leave_evenly(monkeypatch):
    """Ten a second: one each tenth of one, however many wait, and no burst after a pause."""
    clock = Clock(monkeypatch)

    async def take() -> list[float]:
        pace = Pace(10.0)
        left = []
        for _ in range(5):
            await pace.take()
            left.append(clock.now)
        clock.now += 60
        for _ in range(3):
            await pace.take()
            left.append(clock.now)
        return left

    left = asyncio.run(take())
    assert np.diff(left[:5]) == pytest.approx([0.1] * 4) and np.diff(left[5:]) == pytest.approx([0.1] * 2)


def test_a_guess_of_tokens_is_put_right(monkeypatch):
    """What a request took in truth is what those behind it wait for."""
    clock = Clock(monkeypatch)

    async def take() -> float:
        limits = Limits(None, 600)
        await limits.take(1000)
        limits.settle(1000, 50)
        await limits.take(10)
        limits.settle(10, None)  # nothing was said: the guess stands
        started = clock.now
        await limits.take(10)
        return clock.now - started

    assert asyncio.run(take()) == pytest.approx(1.0) and clock.now == pytest.approx(106.0)
    assert guess_tokens(b"x" * 400, 100) == 200 and guess_tokens(None, 0) == 0


def test_limits_hold_in_a_batch():
    """A fake that is asked at a bounded rate sees no two requests closer than that, but for its own delay."""
    with FakeEndpoint("inference").running() as fake:
        outcomes = run(fake.url, "feature-extraction", ["a", "b", "c", "d", "e"], requests_per_s=10)
    assert all(isinstance(one, Prediction) for one in outcomes)
    assert fake.posts[-1].at - fake.posts[0].at >= 0.3  # four tenths, less what the first was late


def test_a_straggler_is_asked_twice_and_no_more():
    """The second request's answer counts; and an endpoint that is slow with all gets one more in ten."""

    def slow_first(number, path, payload):
        return Fault(200, vector(payload["inputs"]), seconds=20.0) if number == 1 else None

    with FakeEndpoint("inference", script=slow_first).running() as fake:
        (outcome,) = run(fake.url, "feature-extraction", ["a"], hedge_s=0.05)
    assert isinstance(outcome, Prediction) and outcome.prediction.tolist() == pytest.approx(vector("a"))
    with FakeEndpoint("inference", latency_s=0.3).running() as fake:
        outcomes = run(fake.url, "feature-extraction", [f"t{n}" for n in range(40)], hedge_s=0.01, concurrency=64)
    assert all(isinstance(one, Prediction) for one in outcomes) and 40 < len(fake.posts) <= 40 + 1 + 4
    with FakeEndpoint("inference", latency_s=0.1).running() as fake:
        run(fake.url, "feature-extraction", ["a", "b"])
    assert len(fake.posts) == 2


INFO = ModelInfo("feature-extraction", "m", "r", "remote", "")


def test_the_identity_of_a_question():
    """Input, parameters, task, model and revision; nothing that differs has the same, and a text is no bytes."""
    ask = Ask("a", {"normalize": True})
    assert key_of(ask, INFO) == key_of(Ask("a", {"normalize": True}), INFO)
    others = [
        key_of(Ask("b", {"normalize": True}), INFO),
        key_of(Ask("a", {"normalize": False}), INFO),
        key_of(Ask("a", {}), INFO),
        key_of(Ask(b'"a"', {"normalize": True}), INFO),
        key_of(ask, ModelInfo("feature-extraction", "m", "r2", "remote", "")),
        key_of(ask, ModelInfo("feature-extraction", "mr", "", "remote", "")),
        key_of(ask, ModelInfo("text-classification", "m", "r", "remote", "")),
    ]
    assert len({key_of(ask, INFO), *others}) == 8


def test_the_cache_keeps_to_its_size_and_age(monkeypatch):
    """The longest unused make room; what is too large is not kept; what is too old is asked again."""
    now = [0.0]
    monkeypatch.setattr(cache_module.time, "monotonic", lambda: now[0])
    cache: Cache[str] = Cache(1)
    large = np.zeros(2**16, np.float32)  # a quarter of it, and a little
    for name in "abcd":
        cache.put(name.encode(), name, large)
    assert cache.get(b"a", 9.0) is None and cache.get(b"b", 9.0) == "b"
    cache.put(b"e", "e", large)
    assert cache.get(b"c", 9.0) is None and cache.get(b"b", 9.0) == "b"
    cache.put(b"f", "f", np.zeros(2**20, np.float32))
    assert cache.get(b"f", 9.0) is None
    now[0] = 10.0
    assert cache.get(b"b", 9.0) is None


def test_a_refusal_is_no_answer_to_keep():
    """A repeated bad input is refused alone, once a batch, and its neighbours have their own answers."""
    with FakeEndpoint("tei").running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", cache_mib=1)
        model = handler.load_model()
        for _ in range(2):
            asked = [Request(one, {}, Message(message_id=one)) for one in ("a", "poison", "poison", "b")]
            outcomes = handler.run_inference(asked, model)
            assert [type(one) for one in outcomes] == [Prediction, Failure, Failure, Prediction]
        assert [one.cached for one in (outcomes[0], outcomes[3])] == [True, True]
        assert fake.posts[-1].payload["inputs"] == ["poison"]
        assert (outcomes[0].tokens, outcomes[0].batch_size, outcomes[0].inference_ms) == (0, 0, 0.0)


def test_a_new_revision_is_asked_anew(monkeypatch):
    """Once the server says that it runs another model, no answer of the old one is given again."""
    from transforms.models.remote import endpoint

    with FakeEndpoint("tei").running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", cache_mib=1)
        model = handler.load_model()
        asked = [Request("a", {}, Message(message_id="1"))]
        assert [handler.run_inference(asked, model)[0].cached for _ in range(2)] == [False, True]
        info = fake.get
        fake.get = lambda path: (200, {**info(path)[1], "model_sha": "d" * 40}, {})
        monkeypatch.setattr(endpoint, "LOOK_AGAIN_S", -1.0)
        assert handler.run_inference(asked, model)[0].cached is False


def test_a_reply_of_any_size_says_how_long():
    """The wait of a 503 that loads its model is read beside the headers."""
    assert Reply(503, {}, b'{"error": "loading", "estimated_time": 20.0}').retry_after() == 20.0
    assert Reply(429, {"retry-after-ms": "250"}, b"[[[").retry_after() == 0.25
