"""Vertex AI endpoints: every container's form of instances, what answers, what is refused, and where it is asked."""

from __future__ import annotations

import functools
import itertools
import json

import pytest
from fake_endpoint import Fault, vector
from fake_vertex import DEPLOYED, MODEL, NAME, VERSION, FakeVertex, error, exhausted, this_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.models.errors import ModelLoadError
from transforms.models.inputs import Ask
from transforms.models.remote import caller, circuit_breaker
from transforms.models.remote.discover import EndpointSpec, pick_server
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.remote.reading import read_reply
from transforms.models.remote.reply import Reply
from transforms.models.remote.rows import read_rows
from transforms.models.remote.vertex import dedicated_in, place
from transforms.models.task_table import endpoint_task
from transforms.records import Failure, Message, Prediction, Request

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Back-off and probes in hundredths of their seconds."""
    monkeypatch.setattr(caller, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(caller, "LAST_WAIT_S", 0.05)
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "LAST_PROBE_S", 0.05)


def run(endpoint: str, inputs, task="feature-extraction", parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch, with no token: who asks is another test's."""
    handler = EndpointModelHandler(endpoint, task, **{"auth": "none", **settings})
    asked = [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(asked, handler.load_model()))


@pytest.mark.parametrize("hidden", [set(), {"model"}, {"endpoint"}])
@pytest.mark.parametrize("container", ["toolkit", "tei"])
def test_embeddings_of_each_container(container, hidden):
    """Each is asked in its own form, found out from its image, or by a small question where that may not be seen."""
    texts = [f"text {n}" for n in range(40)]
    with FakeVertex(container).running() as fake:
        fake.hidden = hidden
        outcomes = run(fake.endpoint, texts, parameters={"normalize": True})
    for text, one in zip(texts, outcomes, strict=True):
        assert isinstance(one, Prediction) and one.prediction.tolist() == pytest.approx(vector(text))
    asked = [seen for seen in fake.posts if len(seen.payload["instances"]) > 1]
    first, second = sorted((seen.payload for seen in asked), key=lambda payload: -len(payload["instances"]))
    assert (len(first["instances"]), len(second["instances"])) == (32, 8)
    if container == "toolkit":
        assert first == {"instances": texts[:32], "parameters": {"normalize": True}}
    else:
        assert first["instances"][0] == {"inputs": "text 0", "truncate": True, "normalize": True}
    if not hidden:
        assert len(fake.posts) == 2  # nothing was asked to find out


@pytest.mark.parametrize("hidden", [set(), {"endpoint"}])
@pytest.mark.parametrize("container", ["tgi", "vllm"])
def test_prompts_of_each_container(container, hidden):
    """Text Generation Inference and Google's vLLM: the text with its prompt, and without it where that is asked."""
    with FakeVertex(container).running() as fake:
        fake.hidden = hidden
        (whole,) = run(fake.endpoint, ["once"], "text-generation", {"max_new_tokens": 5})
        (new,) = run(fake.endpoint, ["once"], "text-generation", {"max_new_tokens": 5, "return_full_text": False})
    assert whole.prediction == [{"generated_text": "once and more"}]
    assert new.prediction == [{"generated_text": " and more"}]
    sent = fake.posts[-1].payload["instances"][0]
    if container == "tgi":
        assert sent == {"inputs": "once", "parameters": {"max_new_tokens": 5, "return_full_text": False}}
    else:
        assert sent["prompt"] == "once" and sent["max_tokens"] == 5 and sent["raw_response"] is True


@pytest.mark.parametrize("container", ["tgi", "vllm", "unknown"])
def test_chats_take_the_openai_route(container):
    """As Model Garden has it, beside the endpoint's name."""
    with FakeVertex(container).running() as fake:
        (outcome,) = run(fake.endpoint, [CHAT], "text-generation", {"max_new_tokens": 5})
    assert outcome.prediction == [{"generated_text": [*CHAT, {"role": "assistant", "content": "Hello."}]}]
    sent = fake.posts[-1]
    assert sent.path == f"/v1/{NAME}/chat/completions" and sent.payload["messages"] == CHAT
    assert sent.payload["max_tokens"] == 5 and sent.payload["stream"] is False


@pytest.mark.parametrize(
    ("route", "task", "given_input", "key"),
    [
        ("/v1/chat/completions", "text-generation", CHAT, "messages"),
        ("/v1/chat/completions", "text-generation", "Hi", "messages"),
        ("/v1/completions", "text-generation", "Hi", "prompt"),
        ("/v1/embeddings", "feature-extraction", "Hi", "input"),
    ],
)
def test_a_container_with_openai_s_routes_is_asked_by_raw_predict(route, task, given_input, key):
    """The body is the container's own; which model answered, its headers say."""
    with FakeVertex("my-own-vllm", route).running() as fake:
        (outcome,) = run(fake.endpoint, [given_input], task)
    assert isinstance(outcome, Prediction), outcome
    assert fake.posts[-1].path == f"/v1/{NAME}:rawPredict" and key in fake.posts[-1].payload
    assert (outcome.model.model, outcome.model.revision) == (MODEL, f"{VERSION}/{DEPLOYED}")


def test_the_row_names_the_model_that_answered():
    """Version and deployed id of each reply: an endpoint's traffic may be split, and change while the job runs."""
    with FakeVertex().running() as fake:
        (before,) = run(fake.endpoint, ["a"])
        fake.deployed = "7777"
        (after,) = run(fake.endpoint, ["b"])
        (named,) = run(fake.endpoint, ["c"], model="org/mine")
    assert before.model.model == MODEL and before.model.revision == f"{VERSION}/{DEPLOYED}"
    assert after.model.revision == f"{VERSION}/7777" and named.model.model == "org/mine"


def test_a_request_is_cut_under_the_service_s_limit():
    """Large inputs share requests as far as 1.5 MB; one over it goes alone, and is refused alone."""
    sizes = [200_000] * 20 + [1_600_000]
    texts = [chr(97 + n) * size for n, size in enumerate(sizes)]
    with FakeVertex("tei").running() as fake:
        outcomes = run(fake.endpoint, texts)
    assert [type(one) for one in outcomes] == [Prediction] * 20 + [Failure]
    assert outcomes[-1].error_type == "EndpointRefused" and "413" in outcomes[-1].error
    assert sorted(len(seen.payload["instances"]) for seen in fake.posts if seen.status == 200) == [6, 7, 7]


def test_one_bad_instance_stays_alone():
    """A refused request is halved until the culprit is found; its neighbours are answered."""
    texts = [f"text {n}" for n in range(32)]
    texts[13] = "poison"
    with FakeVertex("tei").running() as fake:
        outcomes = run(fake.endpoint, texts)
    assert [n for n, one in enumerate(outcomes) if isinstance(one, Failure)] == [13]
    assert "cannot be tokenized" in outcomes[13].error
    assert len(fake.posts) <= 1 + 2 * 5


def test_seconds_in_the_details_of_a_429_are_kept():
    """Google says in RetryInfo how long to wait; nothing is sent meanwhile."""
    with FakeVertex(script=lambda n, *_: exhausted(1) if n == 1 else None).running() as fake:
        assert isinstance(run(fake.endpoint, ["a"])[0], Prediction)
    first, second = fake.posts
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize(
    "words",
    [
        "Endpoint 123 does not have any deployed models",
        "Dedicated Endpoint cannot be accessed through the shared Vertex AI domain. Please access the endpoint using "
        "its dedicated dns name '1.europe-west4-2.prediction.vertexai.goog'",
        "The model is not ready yet",
    ],
)
def test_a_400_that_no_message_caused_blames_none(words):
    """An endpoint without a model, or asked at the wrong address, makes messages wait, and no dead letters."""
    bad = error(400, "FAILED_PRECONDITION", words)
    with FakeVertex(script=lambda n, *_: Fault(400, bad[1])).running() as fake:
        fake.hidden = {"endpoint"}
        handler = EndpointModelHandler(f"{fake.url}/v1/{NAME}", "fill-mask", auth="none", max_wait_s=0.2)
        with pytest.raises(caller.EndpointUnavailable):
            handler.run_inference([Request("a [MASK]", {}, Message())], handler.load_model())


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (f"vertex:{NAME}", f"https://europe-west4-aiplatform.googleapis.com/v1/{NAME}"),
        (
            "vertex:projects/p/locations/global/endpoints/openapi",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi",
        ),
        (f"https://h.example/v1/{NAME}:predict", f"https://h.example/v1/{NAME}"),
        (f"https://h.example/v1beta1/{NAME}/chat/completions", f"https://h.example/v1/{NAME}"),
        ("https://h.example/v1", None),
        ("vertex:projects/p", None),
        (f"vertex:{NAME}@evil.example/x", None),
    ],
)
def test_where_an_endpoint_is_asked(endpoint, url, monkeypatch):
    """By its name, or by a URL that has the name; at its region's address, or at the one that a variable says."""
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", raising=False)
    found = place(endpoint)
    assert (found.url if found else None) == url
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "http://127.0.0.1:1/")
    if endpoint.startswith("vertex:") and found:
        assert place(endpoint).url == f"http://127.0.0.1:1/v1/{found.name}"


def test_a_dedicated_domain(monkeypatch):
    """Found in a description or a refusal, it has 10 MB a request; what describes it stays at the region's address."""
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", raising=False)
    dns = "1234567890.europe-west4-99.prediction.vertexai.goog"
    assert dedicated_in(f"no: {dns}.evil.example") == "" == dedicated_in("1.europe-west4-9.prediction.vertexai.google")
    assert dedicated_in(f"use its dedicated dns name '{dns}'.") == dns
    there = place(f"vertex:{NAME}").at(dns)
    assert there.url == f"https://{dns}/v1/{NAME}" and there.api == "https://europe-west4-aiplatform.googleapis.com"
    assert place(f"https://{dns}/v1/{NAME}:predict") == there
    server = pick_server(EndpointSpec(there.url, "feature-extraction"), endpoint_task("feature-extraction"), None, "")
    assert server.most_bytes > 9_000_000
    for other in (
        "evil.example",
        "9.europe-west4-99.prediction.vertexai.goog",
        "x.prediction.vertexai.goog.evil.example",
        None,
        7,
        "127.0.0.1",
    ):
        assert place(f"vertex:{NAME}").at(other) == place(f"vertex:{NAME}")


def test_the_models_of_model_garden_as_a_service():
    """endpoints/openapi has OpenAI's routes alone, and is told the publisher's model."""
    spec = EndpointSpec("vertex:projects/p/locations/l/endpoints/openapi", "text-generation", "meta/llama-x")
    server = pick_server(spec, endpoint_task("text-generation"), None, "")
    post = server.post([Ask(CHAT, {})])
    assert post.url.endswith("/endpoints/openapi/chat/completions") and b'"meta/llama-x"' in post.body


def test_the_look_says_what_to_mend(monkeypatch, tmp_path):
    """A role that is missing is named with the way out, before the job starts."""
    with this_machine(monkeypatch, tmp_path) as metadata:
        denied = error(403, "PERMISSION_DENIED", "Permission 'aiplatform.endpoints.predict' denied")
        with FakeVertex(tokens=metadata.tokens, script=lambda *_: Fault(403, denied[1])).running() as fake:
            handler = EndpointModelHandler(fake.endpoint, "feature-extraction", auth="google")
            with pytest.raises(ModelLoadError, match="aiplatform.user.*pipeline.doctor"):
                handler.probe()


def _rows(server, entry, asks, reply, answer):
    return read_rows(answer, server, entry, asks)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = st.sampled_from(["predictions", "deployedModelId", "modelVersionId", "model", "error", "choices", "metadata"])


@settings(max_examples=150)
@given(
    answer=st.dictionaries(KEYS, ANY, max_size=6) | ANY,
    headers=st.dictionaries(st.just("x-vertex-ai-deployed-model-id"), st.text(max_size=9)),
)
def test_whatever_a_reply_holds_it_is_an_outcome(answer, headers):
    """Predictions of any shape, ids that are none, errors in any place: as many rows as asked, or a verdict."""
    body = json.dumps(answer).encode()
    for task, form in itertools.product(("feature-extraction", "text-classification"), ("plain", "flat")):
        entry = endpoint_task(task)
        server = pick_server(EndpointSpec(f"vertex:{NAME}", task), entry, None, "")
        server.form = form
        asks = [Ask("x", {})] * 2
        read = functools.partial(_rows, server, entry, asks)
        found = read_reply(Reply(200, headers, body), read)
        assert found.value is None or len(found.value) == 2
