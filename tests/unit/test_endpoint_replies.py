"""Replies of endpoints that are not what was asked for: who is blamed, and that nobody else is."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import orjson
import pytest
from failing_messages import case, message
from fake_endpoint import FakeEndpoint, Fault, vector

from transforms import barrier
from transforms.models.errors import ModelLoadError, NonFinite
from transforms.models.inputs import Ask
from transforms.models.remote import caller, circuit_breaker, endpoint, transport
from transforms.models.remote.caller import EndpointUnavailable
from transforms.models.remote.discover import EndpointSpec, pick_server
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.remote.reading import read_reply
from transforms.models.remote.reply import LONGEST_WAIT_S, Reply, Verdict
from transforms.models.remote.rows import read_rows
from transforms.models.task_table import endpoint_task
from transforms.records import Failure, Message, Prediction, Request


def requests(inputs: list[Any], parameters: dict[str, Any] | None = None) -> list[Request]:
    return [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]


def run(url: str, task: str, inputs: list[Any], **settings: Any) -> list[Prediction | Failure]:
    """The outcomes of one batch, by an endpoint that nothing is known of yet."""
    handler = EndpointModelHandler(url, task, **settings)
    return list(handler.run_inference(requests(inputs), handler.load_model()))


def kinds(outcomes: list[Prediction | Failure]) -> list[str]:
    return [one.error_type if isinstance(one, Failure) else "Prediction" for one in outcomes]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and probes in hundredths of their seconds."""
    monkeypatch.setattr(caller, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.05)
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "LAST_PROBE_S", 0.05)


def answer_to(name: str) -> list[Prediction | Failure]:
    """What becomes of a case's message and a neighbour, where its server answers everything so."""
    recipe = case(name)["model_recipe"]
    answer = recipe["endpoint_answer"]
    with FakeEndpoint(script=lambda n, path, payload: Fault(200, answer)).running() as fake:
        url = fake.url + ("/v1" if recipe.get("url") else "")
        return run(url, recipe["task"], [orjson.loads(message(name).data)["inputs"]], max_wait_s=5.0)


def test_content_parts_are_a_text() -> None:
    """A server that writes its answer as content parts is understood, thoughts left out."""
    (outcome,) = answer_to("endpoint-content-parts")
    assert isinstance(outcome, Prediction) and outcome.prediction[0]["generated_text"][-1]["content"] == "hello"


def test_a_text_only_chat_of_image_text_to_text_gives_the_new_text() -> None:
    """As with local weights it is the task that decides, not whether the chat has a picture."""
    (outcome,) = answer_to("endpoint-itt-text-only-chat")
    assert isinstance(outcome, Prediction) and outcome.prediction == [{"generated_text": "hello"}]


def test_a_null_score_blames_its_message() -> None:
    """It is what a server writes for NaN: a dead letter at once, as with local weights, and no failed batch."""
    (outcome,) = answer_to("endpoint-null-score")
    assert isinstance(outcome, Failure) and outcome.error_type == "NonFinite"


def reading(task: str, answer: Any, rows: int = 1, url: str = "http://x", parameters: Any = None) -> Any:
    """How an answer of 200 with this JSON, or these bytes, is understood."""
    entry = endpoint_task(task)
    server = pick_server(EndpointSpec(url, task), entry, None, "m")
    inputs: Any = [{"role": "user", "content": "x"}] if parameters == "chat" else "x"
    asks = [Ask(inputs, parameters if isinstance(parameters, dict) else {})] * rows
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_reply(Reply(200, {}, body), lambda reply, found: read_rows(found, server, entry, asks))


NO_NUMBER = [
    ("feature-extraction", [0.5, None]),
    ("feature-extraction", [None, None]),
    ("feature-extraction", [[[0.5, 0.5], [0.5, None]]]),
    ("feature-extraction", b"[0.5, NaN]"),
    ("feature-extraction", b"[-Infinity, 0.5]"),
    ("feature-extraction", b"[1e999, 0.5]"),
    ("feature-extraction", [1e39, 0.5]),
    ("text-classification", [[{"label": "a", "score": None}]]),
    ("text-classification", b'[{"label": "a", "score": NaN}]'),
    ("token-classification", [{"score": None, "word": "x"}]),
    ("zero-shot-classification", {"labels": ["a"], "scores": [None]}),
    ("fill-mask", [[{"score": 0.5, "token_str": "a"}], [{"score": None, "token_str": "a"}]]),
    ("question-answering", {"score": None, "answer": "x"}),
    ("object-detection", [{"label": "a", "score": 0.5, "box": {"a": None, "b": 1, "c": 1, "d": 1}}]),
    ("image-feature-extraction", [[[0.5, None]]]),
]


@pytest.mark.parametrize(("task", "answer"), NO_NUMBER)
def test_no_number_is_non_finite(task: str, answer: Any) -> None:
    """Null, NaN, infinity, or more than float32 holds, in place of any number: `NonFinite` of that row."""
    found = reading(task, answer)
    assert found.verdict is Verdict.OK and isinstance(found.value[0], NonFinite), found


MISFITS = [
    ("feature-extraction", None),
    ("feature-extraction", []),
    ("feature-extraction", ["0.5", "0.25"]),
    ("feature-extraction", [True, False]),
    ("feature-extraction", "0.5"),
    ("feature-extraction", [[0.5], [0.5, 0.25]]),
    ("feature-extraction", [0.5, [0.5]]),
    ("feature-extraction", [[[[[0.5]]]]]),
    ("feature-extraction", "[" * 100),
    ("text-classification", [{"label": "a", "score": "0.5"}]),
    ("text-classification", [{"label": "a", "score": True}]),
    ("text-classification", [{"label": None, "score": 0.5}]),
    ("text-classification", [[{"label": "a", "score": 0.5}], [{"label": "a", "score": 0.5}]]),
    ("token-classification", [None]),
    ("zero-shot-classification", {"labels": ["a", "b"], "scores": [0.5]}),
    ("zero-shot-classification", {"labels": "ab", "scores": "ab"}),
    ("fill-mask", [[{"score": 0.5}], [None]]),
    ("fill-mask", [[[]], [[]]]),
    ("question-answering", {"score": 0.5, "answer": None}),
    ("object-detection", [{"label": "a", "score": 0.5, "box": None}]),
    ("image-segmentation", [{"label": "a", "mask": None}]),
    ("text-generation", [{"generated_text": None}]),
    ("text-generation", [{"generated_text": ["x"]}]),
    ("automatic-speech-recognition", {"text": None}),
    ("automatic-speech-recognition", {"text": "x", "chunks": "x"}),
    ("image-feature-extraction", {"features": [1]}),
    ("feature-extraction", b"\xff\xfe[\x000\x00]\x00"),
    ("feature-extraction", b"[0.5, 0.25"),
    ("feature-extraction", b""),
    ("feature-extraction", b"[" * 100_000),
    ("feature-extraction", b'["NaN", ' + b"[" * 100_000),
    ("feature-extraction", b"[NaN, 1" + b"0" * 5_000 + b"]"),
]


@pytest.mark.parametrize(("task", "answer"), MISFITS)
def test_what_is_no_answer_is_a_misfit(task: str, answer: Any) -> None:
    """Text, booleans, nulls and lists where others belong: tried again, and in no case an error of ours."""
    found = reading(task, answer)
    assert found.verdict is Verdict.BROKEN and found.misfit and "cannot be read" not in found.misfit, found


@pytest.mark.parametrize("content", [None, 0, False, {}, [], [None], [{"type": "text"}], [{"type": "image_url"}]])
def test_a_message_without_a_text_is_a_misfit(content: Any) -> None:
    """No text is made up for it, unless a call of a tool or thoughts stand in its place."""
    said = {"role": "assistant", "content": content}
    chat = {"url": "http://x/v1", "parameters": "chat"}
    assert reading("text-generation", {"choices": [{"message": said}]}, **chat).misfit
    if content is None:
        thought = {"choices": [{"message": {**said, "reasoning_content": "hm"}}]}
        assert reading("text-generation", thought, **chat).value[0][0]["generated_text"][-1]["content"] == ""


@pytest.mark.parametrize(
    "odd",
    [
        {"finish_reason": "error"},
        {"finish_reason": "abort"},
        {"finish_reason": "length", "error": {"code": 502, "message": "upstream"}},
    ],
)
def test_a_text_that_was_broken_off_is_no_answer(odd: dict[str, Any]) -> None:
    """A server that stops in the middle says so beside what it has, and half a text is nobody's answer."""
    for choice in ({"text": "The parcel is"}, {"message": {"role": "assistant", "content": "The parcel is"}}):
        assert reading("text-generation", {"choices": [choice | odd]}, url="http://x/v1").misfit
        assert not reading(
            "text-generation", {"choices": [choice | {"finish_reason": "length"}]}, url="http://x/v1"
        ).misfit


def test_as_many_texts_as_were_asked_for() -> None:
    """A server that knows no `n` answers one, and another may answer more: neither is what was asked."""
    for n, said in ((2, 1), (1, 2), (3, 0)):
        choices = [{"text": "x"}] * said
        parameters = {"num_return_sequences": n}
        assert reading("text-generation", {"choices": choices}, url="http://x/v1", parameters=parameters).misfit


@pytest.mark.parametrize("names", [["a"], ["a", "c"], ["a", "b", "c"], ["a", "a"], ["A", "b"]])
@pytest.mark.parametrize("task", ["zero-shot-classification", "zero-shot-image-classification"])
def test_a_choice_is_among_the_labels_that_were_given(task: str, names: list[str]) -> None:
    """A server that chooses among others, such as its own, has not answered; blanks around one are nothing."""
    for candidates in (["a", "b"], "a, b"):
        answer = [{"label": name, "score": 0.5} for name in names]
        assert reading(task, answer, parameters={"candidate_labels": candidates}).misfit
        fine = [{"label": name, "score": 0.5} for name in ("b", "a ")]
        assert not reading(task, fine, parameters={"candidate_labels": candidates}).misfit


ROW = {"embedding": [0.5, 0.25]}
ROWS = [
    [{**ROW, "index": 0}, {**ROW, "index": 0}],
    [{**ROW, "index": 0}, ROW],
    [{**ROW, "index": 1}, {**ROW, "index": 2}],
    [{**ROW, "index": "0"}, {**ROW, "index": "1"}],
    [{**ROW, "index": False}, {**ROW, "index": True}],
    [{**ROW, "index": None}, {**ROW, "index": None}],
    [ROW],
    [ROW, ROW, ROW],
    [ROW, {"embedding": None}],
    [ROW, {"embedding": [0.5]}],
    [ROW, {"embedding": "AAAAPw=="}],
    [ROW, {"embedding": "AAAAPwAA"}],
    [ROW, {"embedding": ""}],
]


@pytest.mark.parametrize("data", ROWS)
def test_rows_that_cannot_be_told_apart_are_a_misfit(data: list[Any]) -> None:
    """More or fewer rows than inputs, indices missing, doubled or odd, and rows that are cut off."""
    assert reading("feature-extraction", {"data": data}, rows=2, url="http://x/v1").misfit


def test_rows_go_by_their_index_or_all_by_their_place() -> None:
    """Rows in another order find their inputs; rows without any index are in the order of the inputs."""
    ordered = [{"embedding": [float(n), 1.0], "index": n} for n in (1, 0)]
    bare = [{"embedding": [float(n), 1.0]} for n in (0, 1)]
    for data in (ordered, bare):
        found = reading("feature-extraction", {"data": data}, rows=2, url="http://x/v1")
        assert [row[0] for row in found.value] == [0.0, 1.0]


TOLD = [
    ({"error": "Rate limit reached for requests"}, Verdict.BUSY),
    ({"error": {"message": "slow down", "code": 429}}, Verdict.BUSY),
    ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, Verdict.BUSY),
    ({"error": "no capacity", "status_code": 503}, Verdict.BUSY),
    ({"error": {"message": "too long", "code": 400}}, Verdict.REFUSED),
    ({"error": "`inputs` is too long", "error_type": "Validation"}, Verdict.REFUSED),
    ({"error": {"message": "too long", "type": "invalid_request_error"}}, Verdict.REFUSED),
    ({"object": "error", "message": "too long", "code": 422}, Verdict.REFUSED),
    ({"error": "Model org/m is currently loading"}, Verdict.BUSY),
    ({"error": "kaboom"}, Verdict.BROKEN),
    ({"error": {"message": "kaboom", "code": "500"}}, Verdict.BROKEN),
    ({"error": {"code": 401}}, Verdict.BROKEN),
    ({"errors": [{"message": "kaboom"}]}, Verdict.BROKEN),
    ({"error": True}, Verdict.BROKEN),
]


@pytest.mark.parametrize(("body", "verdict"), TOLD)
def test_an_error_in_a_200_is_judged_as_that_error(body: Any, verdict: Verdict) -> None:
    """By the status it names, by its kind, or by its words; the words are kept."""
    found = reading("feature-extraction", body)
    assert found.verdict is verdict and found.in_body and not found.misfit, found


def test_an_answer_with_an_empty_error_is_an_answer() -> None:
    """`"error": null`, or a note beside the choices, takes nothing from what was answered."""
    for note in (None, "a note"):
        body = {"error": note, "choices": [{"text": "x"}]}
        assert reading("text-generation", body, url="http://x/v1").verdict is Verdict.OK


@pytest.mark.parametrize(
    "text", ["9" * 400, "1e999", "inf", "-5", "²", "٣.٣.٣", "Mon, 99 Foo 99999 00:00:00 GMT", "x", "", "99999999"]
)
def test_an_absurd_time_to_wait_is_not_believed(text: str) -> None:
    """Retry-After waits five minutes at most, whatever stands there, so that the endpoint is asked again."""
    assert 0.0 <= Reply(429, {"retry-after": text}).retry_after() <= LONGEST_WAIT_S


@pytest.mark.parametrize("count", [None, True, -1, "x", "²", "9" * 400, 10**18, 1.5, [], {}, "-1", ""])
def test_an_absurd_count_of_tokens_is_none(count: Any) -> None:
    """What is no number of tokens is not counted, in the body or in a header."""
    assert Reply(200).tokens({"usage": {"prompt_tokens": count, "completion_tokens": count}}) == (None, 0)
    if isinstance(count, str):
        assert Reply(200, {"x-prompt-tokens": count, "x-generated-tokens": count}).tokens([]) == (None, 0)


@pytest.mark.parametrize("body", [{"unexpected": True}, {"error": "kaboom"}, "<html>hello</html>", "[null, NaN"])
def test_an_input_that_never_fits_is_blamed_alone(body: Any) -> None:
    """A few tries on, the others answered: one dead letter, whose redacted text has nothing of the server's."""

    def script(number: int, path: str, payload: Any) -> Fault | None:
        return Fault(200, body) if "bad" in payload["inputs"] else None

    for kind in ("inference", "tei"):
        with FakeEndpoint(kind, script=script).running() as fake:
            outcomes = run(fake.url, "feature-extraction", ["a", "bad", "c", "d"])
        assert kinds(outcomes) == ["Prediction", "EndpointFailed", "Prediction", "Prediction"]
        failure = outcomes[1]
        assert isinstance(failure, Failure) and failure.redacted is not None
        assert failure.redacted.endswith("answers others: …") and failure.error != failure.redacted


def test_an_input_that_never_fits_is_blamed_where_nothing_was_answered_before() -> None:
    """The first message of a new process on a quiet stream: a small question tells whose fault it is."""

    def script(number: int, path: str, payload: Any) -> Fault | None:
        return Fault(200, {"unexpected": True}) if payload["inputs"] == "bad" else None

    with FakeEndpoint(script=script).running() as fake:
        assert kinds(run(fake.url, "feature-extraction", ["bad"], max_wait_s=20.0)) == ["EndpointFailed"]


@pytest.mark.parametrize("body", [{"unexpected": True}, {"error": "kaboom"}, "<html>hello</html>"])
def test_an_endpoint_that_never_fits_blames_nobody_and_is_told_at_launch(body: Any) -> None:
    """It is the endpoint: messages come again, though it fitted before; and the probe refuses a launch."""
    with FakeEndpoint(script=lambda n, path, payload: Fault(200, body) if n > 2 else None).running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction", max_wait_s=0.5)
        model = handler.load_model()
        assert kinds(list(handler.run_inference(requests(["a", "b"]), model))) == ["Prediction", "Prediction"]
        for _ in range(2):
            with pytest.raises(EndpointUnavailable, match="no answer for 0.5 s; at last: [25]00"):
                handler.run_inference(requests(["c", "d", "e"]), model)
        with pytest.raises(ModelLoadError, match="no answer to `task=feature-extraction`"):
            handler.probe()


def test_a_model_without_numbers_is_told_at_launch() -> None:
    """An endpoint whose answer to a plain word has null in it is refused, before any message is a dead letter."""
    with (
        FakeEndpoint(answer=[0.5, None]).running() as fake,
        pytest.raises(ModelLoadError, match="NonFinite: .*null"),
    ):
        EndpointModelHandler(fake.url, "feature-extraction").probe()


def test_one_misfit_at_launch_is_asked_again() -> None:
    """A single odd answer says nothing of an endpoint; the launch goes on with the next one."""
    odd = Fault(200, {"unexpected": True})
    with FakeEndpoint("tei", script=lambda n, path, payload: odd if n == 1 else None).running() as fake:
        assert EndpointModelHandler(fake.url, "feature-extraction").probe() is not None


def test_a_row_without_numbers_does_not_cost_its_neighbours() -> None:
    """NaN spreads in a server's batch: each row that has none is asked again alone, and only the culprit is blamed."""

    def script(number: int, path: str, payload: Any) -> Fault | None:
        texts = payload["inputs"]
        return Fault(200, [[None] * 8 if text < "c" else vector(text) for text in texts]) if "bad" in texts else None

    with FakeEndpoint("tei", script=script).running() as fake:
        outcomes = run(fake.url, "feature-extraction", ["a", "bad", "c"])
    assert kinds(outcomes) == ["Prediction", "NonFinite", "Prediction"]
    assert isinstance(outcomes[0], Prediction)
    np.testing.assert_allclose(outcomes[0].prediction, vector("a"), rtol=1e-6)


def test_a_body_is_bounded_packed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzip answer is read; one that would unpack to more than the bound is not, nor one that is simply too long."""
    monkeypatch.setattr(transport, "MAX_BYTES", 100_000)
    packed = {"content-encoding": "gzip"}
    bodies = {
        "good": Fault(200, gzip.compress(b"[0.5, 0.25]"), packed),
        "bomb": Fault(200, gzip.compress(b"[" + b"0," * 5_000_000 + b"0]"), packed),
        "long": Fault(200, "[" + "0," * 100_000 + "0]"),
        "broken": Fault(200, b"no gzip", packed),
        "short": Fault(200, "[0.5", {"content-length": "99999999999"}),
        "odd": Fault(200, "[0.5, 0.25]", {"content-type": "text/html; charset=klingon"}),
    }

    def script(number: int, path: str, payload: Any) -> Fault | None:
        return bodies.get(payload["inputs"])

    with FakeEndpoint(script=script).running() as fake:
        outcomes = run(fake.url, "feature-extraction", [*bodies, "x"], timeout_s=1.0)
    found = dict(zip(bodies, kinds(outcomes), strict=False))
    assert {name for name, kind in found.items() if kind == "Prediction"} == {"good", "odd"}
    assert set(kinds(outcomes)) == {"Prediction", "EndpointFailed"} and "over 100,000 bytes" in outcomes[1].error


def test_no_cookie_is_kept() -> None:
    """A server that sets one more with each answer gets none of them back, and its connections stay spread."""

    def script(number: int, path: str, payload: Any) -> Fault:
        sent.append(fake.cookies)
        return Fault(200, [0.5, 0.25], {"set-cookie": f"name{number}=value"})

    sent: list[Any] = []
    with FakeEndpoint(script=script).running() as fake:
        run(fake.url, "feature-extraction", ["a"] * 5, concurrency=1)
    assert len(sent) == 5 and not any(sent)


def test_what_nobody_foresaw_here_costs_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own, in making a request or an outcome, is that message's alone: `Unexpected`, and counted."""
    real_wire, real_outcome = endpoint.to_wire, endpoint.Endpoint._outcome

    def wire(task: Any, checked: Any) -> Any:
        return [][1] if checked == "bad 1" else object() if checked == "bad 2" else real_wire(task, checked)

    def outcome(self: Any, request: Request, *others: Any) -> Any:
        return {}["x"] if request.inputs == "bad 3" else real_outcome(self, request, *others)

    monkeypatch.setattr(endpoint, "to_wire", wire)
    monkeypatch.setattr(endpoint.Endpoint, "_outcome", outcome)
    before = barrier.unexpected_errors["predict"]
    with FakeEndpoint("tei").running() as fake:
        outcomes = run(fake.url, "feature-extraction", ["a", "bad 1", "bad 2", "bad 3", "b"])
    assert kinds(outcomes) == ["Prediction", "Unexpected", "Unexpected", "Unexpected", "Prediction"]
    assert barrier.unexpected_errors["predict"] >= before + 3


@pytest.mark.parametrize(
    "info",
    [
        {"model_id": ["x"], "model_sha": {"a": 1}, "model_dtype": 5},
        {"model_id": "x" * 100_000, "model_sha": "a\nb", "model_dtype": None},
        {"model_type": {}, "max_client_batch_size": "32"},
        {"model_type": {}, "max_client_batch_size": True},
        {"model_type": {}, "max_client_batch_size": 10**30},
        {"error": "kaboom"},
        [],
        None,
        "text",
    ],
)
def test_what_an_endpoint_says_of_itself_is_not_believed(info: Any) -> None:
    """Whatever /info holds, the model has a name fit for an attribute, and messages are answered."""
    with FakeEndpoint("tei").running() as fake:
        fake.get = lambda path: (200, info, {})  # type: ignore[method-assign]
        fake.post = lambda path, payload: (  # type: ignore[method-assign]
            200,
            [vector(text) for text in payload["inputs"]] if path == "/embed" else vector(payload["inputs"]),
            {},
        )
        outcomes = run(fake.url, "feature-extraction", ["a", "b"], max_wait_s=5.0)
    assert kinds(outcomes) == ["Prediction", "Prediction"]
    assert all(one.model is not None and one.model.model == fake.url and one.model.revision == "" for one in outcomes)


LINK = "http://169.254.169.254/latest/meta-data"
LINKS = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": LINK}}, {"type": "text", "text": "x"}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": LINK}]},
    {"role": "user", "content": [{"type": "image", "url": LINK}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": LINK}}]},
    {"role": "user", "content": "x", "images": [LINK]},
]


@pytest.mark.parametrize("route", ["", "/v1"])
@pytest.mark.parametrize("task", ["text-generation", "image-text-to-text"])
@pytest.mark.parametrize("said", LINKS)
def test_no_link_in_a_chat_reaches_a_server(route: str, task: str, said: dict[str, Any]) -> None:
    """On every path to an endpoint a remote URL is that message's `InvalidInput`, and no request is made for it."""
    with FakeEndpoint("openai" if route else "tgi").running() as fake:
        assert kinds(run(fake.url + route, task, [[said]])) == ["InvalidInput"]
        assert fake.posts == []


def test_no_log_line_quotes_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that does not fit may be made of the input: log and failed bundle say only what was expected."""
    with FakeEndpoint(script=lambda n, path, payload: Fault(200, {"echo": "secret words"})).running() as fake:
        with pytest.raises(EndpointUnavailable, match="200, but expected lists of numbers, got …") as error:
            run(fake.url, "feature-extraction", ["secret words"], max_wait_s=5.0)
        assert "secret" not in caplog.text and "secret" not in str(error.value) and "expected" in caplog.text
