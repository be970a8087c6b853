"""Remote endpoints by their flags: what makes the handler, whose token goes where, and hub models on providers."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import FakeEndpoint, vector

from pipeline.handlers import make_handler
from pipeline.options import parse
from transforms.models.errors import ModelLoadError
from transforms.models.remote.caller import EndpointUnavailable
from transforms.models.remote.handler import EndpointModelHandler
from transforms.models.token import TokenSource
from transforms.records import Failure, Message, Prediction, Request

ROOT = Path(__file__).parents[2]


def requests(inputs, parameters=None) -> list[Request]:
    return [Request(one, parameters or {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]


def run(url: str, task: str, inputs, parameters=None, **settings) -> list[Prediction | Failure]:
    """The outcomes of one batch."""
    handler = EndpointModelHandler(url, task, **settings)
    return list(handler.run_inference(requests(inputs, parameters), handler.load_model()))


FLAGS = [
    "--input_subscription=projects/my-project/subscriptions/input",
    "--output_topic=projects/my-project/topics/out",
    "--dead_letter_topic=projects/my-project/topics/dead",
]


def test_the_job_s_flags_make_the_handler():
    """--endpoint and its companions arrive; the default parameters are checked before anything runs."""
    with FakeEndpoint("openai").running() as fake:
        flags = [f"--endpoint={fake.url}/v1", "--task=feature-extraction", "--model=org/mine"]
        more = ["--endpoint_timeout_s=3", "--endpoint_max_wait_s=9", "--endpoint_concurrency=2"]
        handler = make_handler(parse([*FLAGS, *flags, *more])[0])
    spec = handler.spec
    assert (spec.model, spec.timeout_s, spec.max_wait_s, spec.concurrency) == ("org/mine", 3.0, 9.0, 2)
    with pytest.raises(ModelLoadError, match="`parameters`: parameters.top"):
        make_handler(parse([*FLAGS, *flags, '--inference_params={"top": 1}'])[0])


@pytest.mark.parametrize(
    ("endpoint", "task", "words"),
    [
        ("https://host", "text-clasification", "`task=text-clasification`: not a task for an endpoint"),
        ("https://host", "text-to-audio", "not a task for an endpoint"),
        ("https://host/v1", "fill-mask", "an OpenAI-compatible endpoint"),
        ("https://me:secret@host/x", "fill-mask", "holds a user, a password or a query"),
        ("https://host/x?api_key=secret", "fill-mask", "holds a user, a password or a query"),
        ("provider:nobody", "fill-mask", "no such provider; there are: auto, "),
        ("provider:groq", "fill-mask", "it has: text-generation"),
        ("provider:auto", "text-generation", "needs `token`: say where"),
    ],
)
def test_what_cannot_work_is_one_clear_line(endpoint, task, words):
    """A wrong task, kind of server or provider is told before the job starts, without a request."""
    with pytest.raises(ModelLoadError) as error:
        EndpointModelHandler(endpoint, task, model="org/model").check()
    text = str(error.value)
    assert words in text and "secret" not in text and "\n" not in text


def test_the_token_source_serves_private_hub_models(tmp_path, monkeypatch):
    """Local weights of a private model are asked for with the same token, which its error does not show."""
    from huggingface_hub import constants

    (tmp_path / "token").write_text("hf_privateToken1234")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("transforms.models.hub.is_offline_mode", lambda: False)
    with FakeEndpoint("inference", tokens={"hf_other"}).running() as fake:
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", fake.url)
        flags = ["--model=org/private", "--task=fill-mask", f"--hf_token_source=file:{tmp_path / 'token'}"]
        with pytest.raises(ModelLoadError, match="a private one.*`token`") as error:
            make_handler(parse([*FLAGS, *flags])[0])
    assert {seen.token for seen in fake.seen} == {"hf_privateToken1234"}
    assert "privateToken" not in str(error.value)


def test_a_job_that_is_only_submitted_reads_no_token(monkeypatch):
    """For Dataflow the token is the workers' alone: its source need not even exist where the job is launched."""
    monkeypatch.delenv("NOT_HERE", raising=False)
    cloud = [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=europe-west1",
        "--hf_token_source=env:NOT_HERE",
    ]
    local = make_handler(parse([*FLAGS, *cloud, "--model=org/private", "--task=fill-mask"])[0])
    remote = make_handler(parse([*FLAGS, *cloud, "--endpoint=https://host.invalid", "--task=fill-mask"])[0])
    assert local.token == remote.token == TokenSource("env:NOT_HERE")


@pytest.fixture
def hub(monkeypatch):
    """A hub and a router for Inference Providers, both the same fake server."""
    from huggingface_hub import constants
    from huggingface_hub.inference._providers import PROVIDERS, _common, hf_inference

    def get(path):
        mapping = {"groq": {"providerId": "groq-model", "status": "live", "task": "conversational"}}
        about = {"id": "org/model", "pipeline_tag": "feature-extraction", "tags": ["feature-extraction"]}
        return 200, {**about, "inferenceProviderMapping": mapping}, {}

    def post(path, payload):
        if path.endswith("chat/completions"):
            return fake.openai("/v1/chat/completions", payload)
        return 200, vector(payload["inputs"]), {}

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    with FakeEndpoint("inference").running() as fake:
        fake.get, fake.post = get, post
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", fake.url)
        monkeypatch.setattr(constants, "INFERENCE_PROXY_TEMPLATE", fake.url + "/{provider}")
        monkeypatch.setattr(PROVIDERS["hf-inference"]["feature-extraction"], "base_url", f"{fake.url}/hf-inference")
        _common._fetch_inference_provider_mapping.cache_clear()
        hf_inference._check_supported_task.cache_clear()
        yield fake


def test_hub_models_on_inference_providers(hub, monkeypatch):
    """A hub id runs on whichever provider was named, through Hugging Face's router, with the job's own token."""
    monkeypatch.setenv("PROVIDER_TOKEN", "hf_providerToken1234")
    token = TokenSource("env:PROVIDER_TOKEN")
    common = {"model": "org/model", "token": token}
    (vector_,) = run("provider:hf-inference", "feature-extraction", ["a"], **common)
    (chat,) = run("provider:groq", "text-generation", ["Hi"], {"max_new_tokens": 3}, **common)
    np.testing.assert_allclose(vector_.prediction, vector("a"), rtol=1e-6)
    assert chat.prediction == [{"generated_text": "HiHello."}] and chat.model.model == "org/model"
    embed, talk = hub.posts
    assert embed.path == "/hf-inference/models/org/model/pipeline/feature-extraction"
    said = [{"role": "user", "content": "Hi"}]
    assert talk.payload == {"model": "groq-model", "stream": False, "messages": said, "max_tokens": 3}
    assert {embed.token, talk.token} == {"hf_providerToken1234"}


def test_a_hub_that_does_not_say_who_serves_is_asked_again(hub, monkeypatch):
    """The hub's bad moment is waited for; a model that nobody serves fails the bundle, and blames no message."""
    monkeypatch.setenv("PROVIDER_TOKEN", "hf_providerToken1234")
    settings = {"model": "org/model", "token": TokenSource("env:PROVIDER_TOKEN")}
    answer, looks = hub.get, []

    def get(path):
        looks.append(path)
        return (503, {"error": "later"}, {}) if len(looks) < 3 else answer(path)

    hub.get = get
    (outcome,) = run("provider:groq", "text-generation", ["Hi"], **settings)
    assert isinstance(outcome, Prediction) and len(looks) >= 3
    with pytest.raises(EndpointUnavailable, match="org/model"):
        run("provider:cohere", "text-generation", ["Hi"], max_wait_s=0.1, **settings)


def test_the_page_s_commands_parse():
    """Every launch in docs/endpoints.md is one that the options take."""
    page = (ROOT / "docs" / "endpoints.md").read_text("utf-8")
    blocks = [block for block in page.split("```")[1::2] if "pipeline.main" in block]
    assert blocks
    for block in blocks:
        for command in block.replace("\\\n", " ").split("python -m pipeline.main")[1:]:
            flags = [word for word in shlex.split(command, comments=True) if word.startswith("--")]
            ours = {flag.partition("=")[0]: flag for flag in [*FLAGS, *flags]}
            assert parse(list(ours.values()))[0].endpoint
