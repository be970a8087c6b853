"""Remote endpoints: each kind of server is asked in its own way, and every task has one shape of prediction."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from fake_endpoint import SHA, FakeEndpoint, Fault, vector
from PIL import Image

from transforms.models.remote.handler import EndpointModelHandler
from transforms.records import Failure, Message, Prediction, Request

ROOT = Path(__file__).parents[2]


def requests(inputs, parameters=None) -> list[Request]:
    return [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]


def run(url: str, task: str, inputs, parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch."""
    handler = EndpointModelHandler(url, task, **settings)
    return list(handler.run_inference(requests(inputs, parameters), handler.load_model()))


def test_embeddings_come_in_few_requests_and_in_order():
    """Text Embeddings Inference gets 32 texts a request, its limit by /info; each message has its own vector."""
    texts = [f"text {n}" for n in range(100)]
    with FakeEndpoint("tei").running() as fake:
        outcomes = run(fake.url, "feature-extraction", texts)
    for text, outcome in zip(texts, outcomes, strict=True):
        assert outcome.prediction.dtype == np.float32
        np.testing.assert_allclose(outcome.prediction, vector(text), rtol=1e-6)
    assert [post.path for post in fake.posts] == ["/embed"] * 4
    assert sorted(outcome.batch_size for outcome in outcomes) == [4] * 4 + [32] * 96


def test_the_model_and_its_revision_are_known():
    """/info names the model, its commit and its number format, for every result and audit row."""
    with FakeEndpoint("tei").running() as fake:
        info = run(fake.url, "feature-extraction", ["a"])[0].model
    assert (info.model, info.revision, info.device, info.dtype) == ("org/embedder", SHA, "remote", "float16")


def test_without_info_the_url_stands_for_the_model():
    """A server that does not say what it runs is named by its URL, or by --model."""
    with FakeEndpoint("inference").running() as fake:
        assert run(fake.url, "feature-extraction", ["a"])[0].model.model == fake.url
        assert run(fake.url, "feature-extraction", ["a"], model="org/known")[0].model.model == "org/known"


def test_a_message_with_several_texts_keeps_them_together():
    """Its texts may go in several requests; its prediction is one list, as with local weights."""
    with FakeEndpoint("tei").running() as fake:
        one, many = run(fake.url, "feature-extraction", ["a", [f"t{n}" for n in range(40)]])
    assert np.ndim(one.prediction) == 1 and len(many.prediction) == 40
    np.testing.assert_allclose(many.prediction[39], vector("t39"), rtol=1e-6)
    assert len(fake.posts) == 2


def test_messages_with_other_parameters_go_apart():
    """Parameters hold for a whole request, so only messages with equal ones share it."""
    batch = [*requests(["a", "b"], {"normalize": False}), *requests(["c"])]
    with FakeEndpoint("tei").running() as fake:
        handler = EndpointModelHandler(fake.url, "feature-extraction")
        handler.run_inference(batch, handler.load_model())
    sent = sorted((post.payload for post in fake.posts), key=lambda payload: payload["inputs"])
    assert sent == [
        {"inputs": ["a", "b"], "truncate": True, "normalize": False},
        {"inputs": ["c"], "truncate": True},
    ]


def test_classification_on_text_embeddings_inference():
    """Texts and pairs go together; the best label comes first, one of them unless top_k asks for more."""
    with FakeEndpoint("tei").running() as fake:
        text, pair = run(fake.url, "text-classification", ["fine", {"text": "a", "text_pair": "b"}])
        every = run(fake.url, "text-classification", ["fine"], {"top_k": None})
    assert fake.posts[0].payload["inputs"] == [["fine"], ["a", "b"]]
    assert text.prediction == pair.prediction == [{"score": 0.75, "label": "POSITIVE"}]
    assert [one["label"] for one in every[0].prediction] == ["POSITIVE", "NEGATIVE"]


PARSED = [{"label": "b", "score": 0.3}, {"label": "a", "score": 0.7}]
ENTITY = {"entity": "B-PER", "score": 0.9, "index": 1, "word": "Ada", "start": 0, "end": 3}
FILL = {"score": 0.5, "token": 7, "token_str": "sun", "sequence": "the sun"}
SPAN = {"score": 0.8, "start": 0, "end": 3, "answer": "Ada"}
QUESTION = {"question": "Who?", "context": "Ada wrote it."}

#: Task, inputs, parameters, what a server answers, and the prediction.
SHAPES = [
    ("text-classification", "x", {}, PARSED, [{"label": "a", "score": 0.7}]),
    ("text-classification", "x", {}, [PARSED], [{"label": "a", "score": 0.7}]),
    ("text-classification", "x", {"top_k": 2}, PARSED, PARSED[::-1]),
    ("token-classification", "Ada", {}, [ENTITY], [ENTITY]),
    ("token-classification", "Ada", {}, [[ENTITY]], [ENTITY]),
    ("token-classification", "x", {}, [], []),
    (
        "zero-shot-classification",
        "x",
        {"candidate_labels": ["a", "b"]},
        {"sequence": "x", "labels": ["a", "b"], "scores": [0.7, 0.3]},
        {"sequence": "x", "labels": ["a", "b"], "scores": [0.7, 0.3]},
    ),
    (
        "zero-shot-classification",
        "x",
        {"candidate_labels": ["a", "b"]},
        PARSED,
        {"sequence": "x", "labels": ["a", "b"], "scores": [0.7, 0.3]},
    ),
    ("fill-mask", "the [MASK]", {}, [FILL], [FILL]),
    ("fill-mask", "[MASK] [MASK]", {}, [[FILL], [FILL]], [[FILL], [FILL]]),
    ("question-answering", QUESTION, {}, SPAN, SPAN),
    ("question-answering", QUESTION, {}, [SPAN], SPAN),
    ("question-answering", QUESTION, {"top_k": 2}, [SPAN, SPAN], [SPAN, SPAN]),
    ("feature-extraction", "x", {}, [0.5, 0.25], [0.5, 0.25]),
    ("feature-extraction", "x", {}, [[0.5, 0.25]], [0.5, 0.25]),
    ("feature-extraction", "x", {}, {"embeddings": [0.5, 0.25]}, [0.5, 0.25]),
    ("feature-extraction", "x", {}, [[0.5], [0.25]], [[[0.5], [0.25]]]),
    ("text-generation", "x", {}, [{"generated_text": "x y", "details": {}}], [{"generated_text": "x y"}]),
    ("text-generation", "x", {}, {"generated_text": "x y"}, [{"generated_text": "x y"}]),
]


@pytest.mark.parametrize(("task", "inputs", "parameters", "answer", "expected"), SHAPES)
def test_every_server_s_answer_has_the_one_shape(task, inputs, parameters, answer, expected):
    """However a server writes it, the prediction is what local weights give."""
    with FakeEndpoint("inference", answer=answer).running() as fake:
        (outcome,) = run(fake.url, task, [inputs], parameters)
    prediction = outcome.prediction
    assert (prediction.tolist() if isinstance(prediction, np.ndarray) else prediction) == expected
    assert fake.posts[0].payload["inputs"] == inputs


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_images_are_sent_raw_or_in_base64():
    """Without parameters the bytes themselves, under their own content type; with parameters base64 in JSON."""
    with FakeEndpoint("inference", answer=[{"label": "red", "score": 1.0}]).running() as fake:
        data = base64.b64encode(png()).decode()
        outcomes = run(fake.url, "image-classification", [png(), data])
        outcomes += run(fake.url, "image-classification", [png()], {"top_k": 1})
    assert [outcome.prediction for outcome in outcomes] == [[{"label": "red", "score": 1.0}]] * 3
    raw, decoded, in_json = fake.posts
    assert (raw.content_type, raw.payload, decoded.payload) == ("image/png", png(), png())
    assert in_json.payload == {"inputs": data, "parameters": {"top_k": 1}}


def test_prompts_on_text_generation_inference():
    """The text holds the prompt unless it is not wanted, and the server's counts of tokens are taken over."""
    with FakeEndpoint("tgi").running() as fake:
        (full,) = run(fake.url, "text-generation", ["Once"])
        (new,) = run(fake.url, "text-generation", ["Once"], {"return_full_text": False, "max_new_tokens": 5})
    assert full.prediction == [{"generated_text": "Once and more"}]
    assert new.prediction == [{"generated_text": " and more"}]
    assert (full.tokens, full.model.model, full.model.revision) == (3, "org/writer", SHA)
    assert fake.posts[1].payload["parameters"] == {"return_full_text": False, "max_new_tokens": 5}


CHAT = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("kind", "suffix"), [("tgi", ""), ("openai", "/v1"), ("openai", "/v1/chat/completions")])
def test_chats(kind, suffix):
    """A chat goes to the chat route of either kind of server, parameters under the names it has there."""
    parameters = {"max_new_tokens": 5, "do_sample": False, "stop": ["."]}
    with FakeEndpoint(kind).running() as fake:
        (outcome,) = run(fake.url + suffix, "text-generation", [CHAT], parameters)
        (new,) = run(fake.url + suffix, "text-generation", [CHAT], {"return_full_text": False})
    assert outcome.prediction == [{"generated_text": [*CHAT, {"role": "assistant", "content": "Hello."}]}]
    assert new.prediction == [{"generated_text": "Hello."}] and outcome.tokens == 5
    sent = fake.posts[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.payload.pop("model") == ("org/served" if kind == "openai" else "org/writer")
    assert sent.payload == {"stream": False, "messages": CHAT, "max_tokens": 5, "temperature": 0, "stop": ["."]}


def test_completions_and_embeddings_of_an_openai_compatible_server():
    """Prompts are completions, texts embeddings, many a request and in order; the model is the one that is served."""
    with FakeEndpoint("openai").running() as fake:
        (text,) = run(f"{fake.url}/v1", "text-generation", ["Once"])
        vectors = run(f"{fake.url}/v1", "feature-extraction", ["a", "b", "c"])
    assert text.prediction == [{"generated_text": "Once and more"}] and text.model.model == "org/served"
    for name, outcome in zip("abc", vectors, strict=True):
        np.testing.assert_allclose(outcome.prediction, vector(name), rtol=1e-6)
    assert [post.path for post in fake.posts] == ["/v1/completions", "/v1/embeddings"]


def test_images_in_chats_become_data_uris():
    """image-text-to-text sends the picture itself, whatever way it came, and answers with the new text only."""
    with FakeEndpoint("openai").running() as fake:
        (outcome,) = run(f"{fake.url}/v1", "image-text-to-text", [{"image": png(), "text": "What is it?"}])
    assert outcome.prediction == [{"generated_text": "Hello."}]
    picture, words = fake.posts[0].payload["messages"][0]["content"]
    assert picture["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    assert words == {"type": "text", "text": "What is it?"}


BAD = [
    ("text-classification", 7, {}, "InvalidInput", "must be a string"),
    ("text-classification", "", {}, "InvalidInput", "empty"),
    ("text-classification", "x", {"top_n": 3}, "InvalidParameter", "it takes: function_to_apply, top_k"),
    ("question-answering", {"question": "Who?"}, {}, "InvalidInput", "context"),
    ("zero-shot-classification", "x", {}, "InvalidParameter", "candidate_labels"),
    ("text-generation", [{"role": "user"}], {}, "InvalidInput", "inputs[0]"),
    ("text-generation", CHAT, {"num_beams": 2}, "InvalidParameter", "num_beams"),
    ("feature-extraction", ["a", 7], {}, "InvalidInput", "inputs[1]"),
    ("image-classification", "https://host/cat.png", {}, "InvalidInput", "only gs://"),
]


@pytest.mark.parametrize(("task", "inputs", "parameters", "kind", "words"), BAD)
def test_what_no_server_needs_to_see_is_refused_here(task, inputs, parameters, kind, words):
    """Wrong inputs and parameters fail alone, with the words of local weights, and without a request."""
    with FakeEndpoint("tgi").running() as fake:
        (outcome,) = run(fake.url, task, [inputs], parameters)
    assert (outcome.error_type, fake.posts) == (kind, []) and words in outcome.error


def test_a_worker_that_only_calls_loads_no_model_library():
    """transformers, which takes seconds and memory, is not imported for a remote text task."""
    code = "import sys, transforms.models.remote.handler; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)


def test_beam_counts_what_it_costs():
    """What a pipeline reports of an endpoint is what was sent, and stands in docs/metrics.md."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference

    def script(number, path, payload):
        return Fault(503, {"error": "busy"}) if number == 1 else None

    with FakeEndpoint("tei", script=script).running() as fake:
        pipeline = TestPipeline(options=PipelineOptions(["--runner=BundleBasedDirectRunner"]))
        handler = EndpointModelHandler(fake.url, "feature-extraction")
        _ = pipeline | beam.Create(requests(["a b c", "d", "poison"])) | RunInference(handler)
        result = pipeline.run()
        result.wait_until_finish()
    found = result.metrics().query()
    counters = {
        m.key.metric.name: m.committed for m in found["counters"] if m.key.metric.namespace == "EndpointModelHandler"
    }
    assert counters["requests"] == len(fake.posts) == 6
    assert (counters["predictions"], counters["failures"], counters["retries"]) == (2, 1, 1)
    assert (counters["bisections"], counters["tokens_read"]) == (2, 4)
    assert counters["throttled_ms"] > 0
    ours = {"EndpointModelHandler"}
    names = {m.key.metric.name for kind in found.values() for m in kind if m.key.metric.namespace in ours}
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    beams = {name for name in names if name.startswith(("inference_", "num_", "model_", "load_", "failed_"))}
    assert {name for name in names - beams if f"`{name}`" not in page} == set()


def test_a_retried_request_is_no_new_one_for_the_sender():
    """A batch of several requests of which one fails once sends one more, not all again."""

    def script(number, path, payload):
        return Fault(503, {"error": "busy"}) if number == 2 else None

    with FakeEndpoint("tei", script=script).running() as fake:
        outcomes = run(fake.url, "feature-extraction", [f"t{n}" for n in range(128)])
    assert len(fake.posts) == 5 and all(isinstance(outcome, Prediction) for outcome in outcomes)
