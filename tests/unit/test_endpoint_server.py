"""Remote endpoints against a real server: ``transformers serve`` with a tiny model of random weights."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models

from transforms.models.errors import ModelLoadError
from transforms.models.remote.handler import EndpointModelHandler
from transforms.records import Failure, Message, Prediction, Request

_NEEDS = [name for name in ("fastapi", "uvicorn", "openai", "accelerate") if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(_NEEDS), reason=f"needs transformers[serving]: {', '.join(_NEEDS)} not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's URL, and the folder of the one model that it serves."""
    model = str(tiny_models.causal())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        model,
        "--host=127.0.0.1",
        f"--port={port}",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "--device=cpu"], stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}", model
    finally:
        server.terminate()
        server.wait(20)


def run(url: str, model: str, inputs, parameters) -> list[Prediction | Failure]:
    handler = EndpointModelHandler(f"{url}/v1", "text-generation", model=model, parameters=parameters, concurrency=4)
    requests = [Request(one, {}, Message(message_id=str(i))) for i, one in enumerate(inputs)]
    return list(handler.run_inference(requests, handler.load_model()))


def test_chats_and_prompts_of_a_real_server(served):
    """Each chat and prompt gets its own new text, in the shape of local weights, with the server's count of tokens."""
    url, model = served
    chat = [{"role": "user", "content": "the cat"}]
    outcomes = run(url, model, [chat, "the dog", chat], {"max_new_tokens": 4, "do_sample": False})
    assert all(isinstance(outcome, Prediction) for outcome in outcomes), outcomes
    first, prompt, third = (outcome.prediction[0]["generated_text"] for outcome in outcomes)
    assert first[:-1] == chat and first[-1]["role"] == "assistant" and first == third
    assert prompt.startswith("the dog")
    assert all(outcome.tokens and outcome.tokens > 0 for outcome in outcomes)
    assert outcomes[0].model.model == model


def test_a_look_at_a_real_server(served):
    """The look before a launch passes on what is served, and says what is wrong with another model or path."""
    url, model = served
    handler = EndpointModelHandler(f"{url}/v1", "text-generation", model=model)
    assert handler.probe().model == model
    with pytest.raises(ModelLoadError, match="404"):
        EndpointModelHandler(f"{url}/nowhere/v1", "text-generation", model=model).probe()
